"""Cortex-M: a firmware library without a runtime, run and counted on an emulated board."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...passes._tvm import tvm
from ...passes.errors import UserError
from ..aot.build_info import BuildInfo, check_inputs, pack_inputs, random_inputs, unpack_outputs
from ..aot.generate import Generated, generate
from ..base import Artifact, Measurement, Target, TargetDescription
from ..emulators.plugin import Counts, plugin_argument, read_counts
from ..emulators.tools import missing, package_version, run

_RUNTIME = Path(__file__).parent / "runtime"
_TEMPLATES = Environment(loader=FileSystemLoader(_RUNTIME), undefined=StrictUndefined, keep_trailing_newline=True)
_STACK_BYTES = 16384
_PROGRAM = "firmware/model.elf"
_FAILURES = {
    3: "it could not open its input or output file",
    4: "its input file is too short",
    7: "it wrote outside its arena",
    99: "it raised a fault",
}


class CortexMTarget(Target):
    """Builds for one Cortex-M core or board."""

    def missing_tools(self) -> list[str]:
        """The cross compiler, the emulator, and a compiler for the counting plugin."""
        return missing(["arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm", "cc"])

    def build(
        self,
        mod: tvm.IRModule,
        output: Path,
        *,
        prefix: str = "model",
        emit: str = "object",
        kernels: bool = True,
        check_memory: bool = True,
        **options: Any,
    ) -> CortexMArtifact:
        """Write the library, with a project that builds it, into `output`.

        Args:
            mod: A model module, parameters attached.
            output: The folder.
            prefix: Starts every symbol.
            emit: "object" for kernels compiled by LLVM, "c" for C source.
            kernels: Whether to use this core's own kernels; otherwise all come from TVM's default schedule.
            check_memory: Whether to refuse a model that does not fit the board.
            options: None.

        Raises:
            UserError: The model does not fit the board, or cannot be compiled.
            MissingToolError: The cross compiler is missing.
        """
        if options:
            raise UserError(f"target {self.description.name} has no option '{next(iter(options))}'")
        description = self.description
        output.mkdir(parents=True, exist_ok=True)
        generated = generate(
            mod, description.tvm, output, prefix=prefix, version=package_version(), emit=emit, legalize=self._kernels(kernels)
        )
        code, constants = self._compile(generated)
        if check_memory:
            _check_fit(description, code + constants, generated.arena.plan.size)
        _write_project(generated, description)
        info = BuildInfo(
            target=description.name,
            prefix=prefix,
            inputs=generated.inputs,
            outputs=generated.outputs,
            program=_PROGRAM,
            code_bytes=code,
            constant_bytes=constants,
            arena_bytes=generated.arena.plan.size,
            arena_lower_bound=generated.arena.plan.lower_bound,
        )
        info.write(output)
        return CortexMArtifact(description, output, info)

    def load(self, path: Path) -> CortexMArtifact:
        """The artifact in a folder."""
        return CortexMArtifact(self.description, path, BuildInfo.read(path))

    def _kernels(self, wanted: bool) -> list[Any]:
        if not (wanted and self.description.dsp):
            return []
        from .kernels.legalize import UseDspKernels

        return [UseDspKernels()]

    def _compile(self, generated: Generated) -> tuple[int, int]:
        """Compile and link for the emulator; bytes of code and of constants."""
        description, folder = self.description, generated.folder
        firmware = folder / "firmware"
        firmware.mkdir(exist_ok=True)
        context = {
            "prefix": generated.prefix,
            "stack_bytes": _STACK_BYTES,
            "flash_origin": description.emulated_flash_origin,
            "flash_bytes": description.emulated_flash_bytes,
            "ram_origin": description.emulated_ram_origin,
            "ram_bytes": description.emulated_ram_bytes,
        }
        (firmware / "emulator.ld").write_text(_TEMPLATES.get_template("linker.ld.j2").render(context))
        (firmware / "runner.c").write_text(_TEMPLATES.get_template("runner.c.j2").render(context))
        for name in ("startup.c", "semihosting.h"):
            shutil.copyfile(_RUNTIME / name, firmware / name)
        flags = ["-mthumb", *description.compiler_flags, "-ffunction-sections", "-fdata-sections", "-I", str(folder)]
        sizes = {}
        with tempfile.TemporaryDirectory() as scratch:
            objects = [str(path) for path in generated.objects]
            sources = [*generated.sources, firmware / "startup.c", firmware / "runner.c"]
            for source in sources:
                made = Path(scratch) / f"{source.stem}.o"
                level = "-O3" if source.stem.endswith("_kernels") else "-O2"
                run(
                    ["arm-none-eabi-gcc", "-std=gnu11", level, *flags, "-c", source, "-o", made],
                    what=f"compiling {source.name}", timeout=300, log=folder / "compiler.log",
                )
                objects.append(str(made))
            model = [path for path in objects if Path(path).stem not in ("startup", "runner")]
            sizes = {path: _section_sizes(path) for path in model}
            run(
                [
                    "arm-none-eabi-gcc", *flags, "-ffreestanding", "-nostartfiles", "-specs=nano.specs",
                    "-Wl,--gc-sections", "-T", firmware / "emulator.ld", *objects, "-lm", "-o", folder / _PROGRAM,
                ],
                what="linking the firmware", timeout=120, log=folder / "compiler.log",
            )  # fmt: skip
        constants = sum(sum(s.values()) for path, s in sizes.items() if path.endswith("_constants.o"))
        code = sum(sum(s.values()) for path, s in sizes.items() if not path.endswith("_constants.o"))
        return code, constants


class CortexMArtifact(Artifact):
    """A firmware library in a folder, with a program that runs it on the emulator."""

    def __init__(self, target: TargetDescription, path: Path, info: BuildInfo) -> None:
        self.target, self.path, self.info = target, path, info
        self.inputs, self.outputs = info.inputs, info.outputs

    def run(self, inputs: Sequence[np.ndarray], *, timeout: float = 300) -> list[np.ndarray]:
        """Run on the emulator; see `Artifact.run`."""
        return self._emulate(inputs, timeout, count=False)[0]

    def measure(
        self, inputs: Sequence[np.ndarray] | None = None, *, timeout: float = 300, **options: Any
    ) -> Measurement:
        """Count the executed instructions of one inference (the mean over the samples, where inputs hold several)."""
        if options:
            raise UserError(f"target {self.target.name} measures without option '{next(iter(options))}'")
        given = random_inputs(self.inputs) if inputs is None else inputs
        _, stack, counts = self._emulate(given, timeout, count=True)
        assert counts is not None
        samples = len(counts.regions)
        info = self.info
        return Measurement(
            target=self.target.name,
            source="qemu",
            instructions=round(sum(counts.regions) / samples),
            functions={name: round(count / samples) for name, count in counts.functions.items()},
            flash_bytes=info.code_bytes + info.constant_bytes,
            code_bytes=info.code_bytes,
            constant_bytes=info.constant_bytes,
            ram_bytes=info.arena_bytes + stack,
            arena_bytes=info.arena_bytes,
            stack_bytes=stack,
            notes=("executed instructions under QEMU, which are not cycles",),
        )

    def _emulate(
        self, inputs: Sequence[np.ndarray], timeout: float, *, count: bool
    ) -> tuple[list[np.ndarray], int, Counts | None]:
        samples = check_inputs(self.inputs, inputs)
        program = (self.path / self.info.program).resolve()
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "input.bin").write_bytes(pack_inputs(self.inputs, inputs))
            command: list[str | Path] = [
                "qemu-system-arm", "-M", str(self.target.emulator_machine), "-nographic", "-monitor", "none",
                "-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel", program,
            ]  # fmt: skip
            results = None
            if count:
                argument, results = plugin_argument(program, "arm-none-eabi-nm", folder, thumb=True)
                command += ["-plugin", argument]
            try:
                run(command, what="running on the emulator", timeout=timeout, cwd=folder)
            except UserError as error:
                raise _explained(error) from error
            output = (folder / "output.bin").read_bytes()
            values, rest = unpack_outputs(self.outputs, output, samples)
            stack = int(np.frombuffer(rest, np.uint32, 1)[0]) if len(rest) >= 4 else 0
            return values, stack, read_counts(results) if results is not None else None


def _explained(error: UserError) -> UserError:
    text = str(error)
    for code, reason in _FAILURES.items():
        if text.endswith(f"exit code {code}"):
            return UserError(f"the program failed on the emulator: {reason}")
    return error


def _section_sizes(path: str) -> dict[str, int]:
    """Bytes of the sections of an object file that end up in flash."""
    found: dict[str, int] = {}
    for line in run(["arm-none-eabi-size", "-A", path], what="measuring the code", timeout=60).splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[0].startswith((".text", ".rodata", ".data")):
            found[fields[0]] = int(fields[1])
    return found


def _check_fit(description: TargetDescription, flash: int, arena: int) -> None:
    if description.flash_bytes and flash > description.flash_bytes:
        raise UserError(
            f"the model needs {flash:,} bytes of flash and {description.name} has {description.flash_bytes:,}; "
            "prune more, quantize to int8, or choose a larger board"
        )
    needed = arena + 2048
    if description.ram_bytes and needed > description.ram_bytes:
        raise UserError(
            f"the model needs {arena:,} bytes of RAM for activations and some 2,048 for the stack, and {description.name} has "
            f"{description.ram_bytes:,}; quantize to int8, prune more, lower the input size, or choose a larger board"
        )


def _write_project(generated: Generated, description: TargetDescription) -> None:
    context = {
        "prefix": generated.prefix,
        "flags": " ".join(description.compiler_flags),
        "sources": [path.name for path in generated.sources],
        "objects": [path.name for path in generated.objects],
        "target": description.name,
        "flash_origin": description.flash_origin,
        "flash_bytes": description.flash_bytes,
        "ram_origin": description.ram_origin,
        "ram_bytes": description.ram_bytes,
        "stack_bytes": 4096,
    }
    folder = generated.folder
    (folder / "CMakeLists.txt").write_text(_TEMPLATES.get_template("CMakeLists.txt.j2").render(context))
    (folder / "arm-none-eabi.cmake").write_text(_TEMPLATES.get_template("toolchain.cmake.j2").render(context))
    (folder / "example_main.c").write_text(_TEMPLATES.get_template("example_main.c.j2").render(context))
    (folder / "firmware" / "board.ld").write_text(_TEMPLATES.get_template("linker.ld.j2").render(context))
