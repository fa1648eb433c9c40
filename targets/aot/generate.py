"""Writing a model as a C library: header, driver, constants and kernels."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tvm.tirx.build import codegen_build

from ...passes._tvm import tvm
from ...passes.errors import UserError
from ...passes.graph.decode_weights import DecodeWeights
from ..base import TensorSpec
from ..channels_last import channels_last
from ..emulators.tools import run
from ..integer_io import core_and_specs, is_integer
from .arena import Arena
from .build_info import PREFIX
from .compiled import Compiled, compile_program
from .patches import Patches, choose_patches
from .plan import ALIGNMENT, align
from .program import Legalize, Program, make_program
from .schedule import Registers
from .templates import Templates

_TEMPLATES = Templates(Path(__file__).parent / "templates")
_C_TYPES = {
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
    "uint64": "uint64_t",
    "bool": "uint8_t",
    # Its bits; C has no such type everywhere.
    "float16": "uint16_t",
    "float32": "float",
    "float64": "double",
}
LARGEST_TEXT = 2 << 20
"""Bytes of constants that are written as C source; compilers take long for more, which goes into a binary file."""

EMITTED = ("object", "c")
"""What kernels are written as."""

_TAKEN = ("all", "c", "clean", "example", "help", "install", "m", "package", "runner", "serial", "startup", "test")
"""What CMake, the linker or the files around a library are called."""

_HIDDEN = (
    *("assert", "complex", "ctype", "errno", "fenv", "float", "inttypes", "iso646", "limits", "locale", "math", "semihosting"),
    *("setjmp", "signal", "stdalign", "stdarg", "stdatomic", "stdbool", "stddef", "stdint", "stdio", "stdlib", "stdnoreturn"),
    *("string", "tgmath", "threads", "time", "uchar", "wchar", "wctype"),
)
"""Headers that one of ours must not hide."""

_C_SCALARS = ("INT8", "INT16", "INT32", "UINT8", "FLOAT32")


@dataclass(frozen=True)
class Generated:
    """A generated library.

    Attributes:
        folder: Where its files are.
        prefix: Starts every symbol.
        sources: C files to compile.
        objects: Object files to link with them.
        inputs, outputs: What the library takes and gives.
        program: The calls.
        arena: Where tensors lie.
        constant_bytes: Bytes of the constants.
        patches: What is computed patch by patch; None where nothing is.
    """

    folder: Path
    prefix: str
    sources: tuple[Path, ...]
    objects: tuple[Path, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    program: Program
    arena: Arena
    constant_bytes: int
    patches: Patches | None = None


def check_prefix(prefix: str) -> None:
    """Refuse what cannot start C names and file names.

    Raises:
        UserError: It is no short lower-case identifier, or the name of something else.
    """
    if not re.match(PREFIX, prefix) or prefix.endswith("\n") or len(prefix) > 63:
        raise UserError(f"'{prefix}' cannot start C names; use at most 63 lower-case letters, digits and underscores")
    if prefix in (*_TAKEN, *_HIDDEN):
        raise UserError(f"'{prefix}' is the name of something else in a C project; choose another prefix")


def generate(
    mod: tvm.IRModule,
    target: dict[str, Any],
    folder: Path,
    *,
    registers: Registers,
    linker: str = "ld",
    prefix: str = "model",
    version: str = "0",
    emit: str = "object",
    legalize: Sequence[Legalize] = (),
    decode: Collection[str] = (),
    patch_wise: bool = False,
    needs: tuple[int, int] | None = None,
    threads: int = 1,
    floats: Callable[[tvm.IRModule], tvm.IRModule] | None = None,
) -> Generated:
    """Compile a model module to a library in `folder`.

    Args:
        mod: A model module, parameters attached; an integer one becomes its integer core, int8 in and out.
        target: The TVM target of the kernels.
        folder: Where to write; it must exist.
        registers: Of the core, for scheduling what has no kernel; C source uses no vectors.
        linker: The GNU linker of the target, which makes one object of those of the kernels.
        prefix: A C identifier that starts every symbol and file name.
        version: Written into the header.
        emit: "object" for kernels as an LLVM object, "c" for kernels as C source.
        legalize: The target's own kernels.
        decode: Stored weights ("int4", "float16") that are widened now, for speed; others are where they are read.
        patch_wise: Compute the first layers patch by patch where that makes the arena smaller.
        needs: Bits that Linux must give in AT_HWCAP and AT_HWCAP2, which the library asks before it starts.
        threads: The most POSIX threads that share an inference; with several, the library has a pool of its own.
        floats: What is done to a float model, when its images have their channels last.

    Raises:
        UserError: The prefix cannot be one, or the model cannot be compiled.
        MissingToolError: There is no such linker.
    """
    check_prefix(prefix)
    core, inputs, outputs = core_and_specs(mod)
    if emit not in EMITTED:
        raise UserError(f"emit must be {' or '.join(EMITTED)}, not '{emit}'")
    portable = emit == "c"
    # C has no float16.
    core = tvm.transform.Sequential([DecodeWeights({*decode, *(["float16"] if portable else [])})])(core)
    tvm_target = tvm.target.Target({"kind": "c"} if portable else target)
    if portable:
        registers = replace(registers, lanes=1, unroll=1)

    def compiled(module: tvm.IRModule) -> Compiled:
        return compile_program(make_program(module, prefix, registers, legalize, threads=threads > 1), tvm_target, threads)

    if not is_integer(core):
        core = channels_last(core) if floats is None else floats(channels_last(core))
    made = compiled(core)
    chosen = choose_patches(core, made, compiled) if patch_wise and is_integer(core) else None
    if chosen is not None:
        made = chosen[0]
    program, arena = made.program, made.arena
    kernel_source = _portable(codegen_build(made.module, tvm_target).inspect_source()) if portable else ""
    context = {
        **_context(made, inputs, outputs, prefix, version),
        "threads": threads,
        "prototypes": _PROTOTYPE.findall(kernel_source),
        "needs": needs,
    }
    names = {
        f"{prefix}.h": "model.h.j2",
        f"{prefix}.c": "model.c.j2",
        f"{prefix}_constants.h": "constants.h.j2",
    }
    if threads > 1:
        names.update({f"{prefix}_pool.h": "pool.h.j2", f"{prefix}_pool.c": "pool.c.j2"})
    constant_bytes = sum(value.nbytes for value in program.constants.values())
    if constant_bytes > LARGEST_TEXT and not portable:
        constants = f"{prefix}_constants.S"
        names[constants] = "constants.S.j2"
        _write_binary(program, folder / f"{prefix}_constants.bin")
    else:
        constants = f"{prefix}_constants.c"
        names[constants] = "constants.c.j2"
    for name, template in names.items():
        _TEMPLATES.write(template, folder / name, context)
    sources = [folder / f"{prefix}.c", folder / constants]
    if threads > 1:
        sources.append(folder / f"{prefix}_pool.c")
    objects = []
    for stale in folder.glob(f"{prefix}_kernels*"):
        stale.unlink()
    if portable:
        sources.append(folder / f"{prefix}_kernels.c")
        sources[-1].write_text(kernel_source)
    else:
        objects.append(folder / f"{prefix}_kernels.o")
        _join(made.objects, linker, objects[-1])
    return Generated(
        folder=folder,
        prefix=prefix,
        sources=tuple(sources),
        objects=tuple(objects),
        inputs=inputs,
        outputs=outputs,
        program=program,
        arena=arena,
        constant_bytes=constant_bytes,
        patches=None if chosen is None else chosen[1],
    )


def _join(objects: Mapping[str, bytes], linker: str, path: Path) -> None:
    """Make one object file of those of the functions.

    Each has its own copy of TVM's conversions of float16; what no function calls is left out.
    """
    with tempfile.TemporaryDirectory() as scratch:
        names = sorted(objects)
        parts = [Path(scratch) / f"{index}.o" for index in range(len(names))]
        for part, name in zip(parts, names, strict=True):
            part.write_bytes(objects[name])
        roots = [f"--undefined={name}" for name in names]
        run([linker, "-r", "--gc-sections", *roots, "-o", path, *parts], what=f"joining {path.name}", timeout=60)


def _context(
    made: Compiled,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    prefix: str,
    version: str,
) -> dict[str, Any]:
    program, arena = made.program, made.arena

    def tensor(spec: TensorSpec, name: str) -> dict[str, Any]:
        kind = spec.dtype.upper()
        return {
            **spec.model_dump(),
            "nbytes": spec.nbytes,
            "offset": arena.offset(name),
            "c_dtype": kind if kind in _C_SCALARS else "OTHER",
            "c_scale": _c_float(float(np.float32(spec.scale))) if spec.scale is not None else "0.0f",
        }

    def pointer(name: str) -> str:
        return f"(void *){prefix}_{name}" if name in program.constants else f"(void *)(arena + {arena.offset(name)})"

    steps = []
    parameters: dict[str, list[str]] = {}
    for step, own in zip(program.steps, arena.workspaces):
        places = [pointer(name) for name in (*step.arguments, *step.results)]
        divided = step.function in made.parallel
        sizes = made.workspaces.get(step.function, ())
        apart = [f" + part * {align(size)}" if divided else "" for size in sizes]
        places += [f"(void *)(arena + {arena.plan.offsets[name]}{more})" for name, more in zip(own, apart)]
        parameters[step.function] = ["void *"] * len(places) + ["int32_t"] * (2 * divided)
        places += ["part", "parts"] if divided else []
        steps.append({"function": step.function, "arguments": places, "layer": step.layer, "divided": divided})
    constants = [
        {
            "symbol": f"{prefix}_{name}",
            "c_type": _C_TYPES[value.dtype.name],
            "count": max(1, value.size),
            "nbytes": value.nbytes,
            "value": value,
        }
        for name, value in program.constants.items()
    ]
    return {
        "c_values": _c_values,
        "title": prefix,
        "prefix": prefix,
        "version": version,
        "arena_bytes": max(ALIGNMENT, arena.plan.size),
        "alignment": ALIGNMENT,
        "constant_bytes": sum(value.nbytes for value in program.constants.values()),
        "inputs": [tensor(spec, name) for spec, name in zip(inputs, program.inputs)],
        "outputs": [tensor(spec, name) for spec, name in zip(outputs, program.outputs)],
        "functions": [{"name": name, "parameters": ", ".join(parameters[name])} for name in sorted(parameters)],
        "steps": steps,
        "constants": constants,
    }


def _write_binary(program: Program, path: Path) -> None:
    """The constants one behind the other, each at a multiple of `ALIGNMENT`."""
    with path.open("wb") as file:
        for value in program.constants.values():
            file.write(value.tobytes())
            file.write(bytes(-value.nbytes % ALIGNMENT))


def _c_values(value: np.ndarray) -> str:
    flat = (value.view(np.uint16) if value.dtype == np.float16 else value).ravel().tolist()
    if value.dtype in (np.float32, np.float64):
        suffix = "f" if value.dtype == np.float32 else ""
        texts = [_c_float(v, suffix) for v in flat]
    elif value.dtype in (np.int32, np.int64):
        # The least integer has no literal of its own in C.
        least = np.iinfo(value.dtype).min
        texts = [f"{least + 1}-1" if v == least else str(v) for v in flat]
    elif value.dtype == np.uint64:
        texts = [f"{v}u" for v in flat]
    else:
        texts = [str(int(v)) for v in flat]
    lines = [",".join(texts[i : i + 24]) for i in range(0, len(texts), 24)]
    return ",\n".join(lines) if lines else "0"


def _c_float(value: float, suffix: str = "f") -> str:
    if value != value:
        return "NAN"
    if value in (float("inf"), float("-inf")):
        return "-INFINITY" if value < 0 else "INFINITY"
    return float(value).hex() + suffix


_PROTOTYPE = re.compile(r"^void \w+\([^)]*\);$", re.MULTILINE)
_HEADERS = ("math", "stdbool", "stddef", "stdint", "string")


def _portable(source: str) -> str:
    """TVM's C source without its headers, its macros and its module context."""
    source = re.sub(r"#include [^\n]*\n|// tvm target: .*\n|void\* __tvm_ffi__library_ctx.*\n", "", source)
    source = source.replace("#define TVM_EXPORTS\n", "").replace("TVM_DLL ", "")
    source = source.replace('#ifdef __cplusplus\nextern "C"\n#endif\n', "")
    # Written in the first round of a loop, which compilers do not see.
    source = re.sub(r"^( +\w+ \w+\[1\]);$", r"\1 = {0};", source, flags=re.MULTILINE)
    return "".join(f"#include <{name}.h>\n" for name in _HEADERS) + source
