"""A program of many candidates: written, linked, run under the emulator or on a board, its results read."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...passes.errors import ToolError
from ..emulators.tools import run
from ..remote.packed_call import packed_call
from .compile import CompiledTrial, compile_trials
from .execution import Ran, Transport
from .trial import MakeTrial, Outcome

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "runtime"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ALIGNMENT = 64
_GUARD = 64
_WORD = 4
_IN_FLASH = re.compile(r"\.(text|rodata|data)(\.|$)(?!tvm\.fp16)")
"""Sections of an object; not the functions that TVM adds to every one, which nothing calls."""
_ROUTINE = "tvmcompress_"
"""Starts the names of functions that kernels share."""
_FREE = frozenset(["__aeabi_unwind_cpp_pr0"])
"""What objects name and libraries need not have."""
_FEW = 8
"""Candidates for which a second program does not pay."""
_LIMIT = 60.0
"""Seconds that a program may run."""


class Emulator(Protocol):
    """What builds and runs programs for a family of cores."""

    tvm: dict[str, Any]
    """The TVM target."""
    prefix: str
    """Starts the names of the tool chain's programs."""
    transport: Transport
    most_bytes: int
    """Of a program's constants."""
    memory_bytes: int
    """Of a run's tensors and workspaces."""

    @property
    def at_once(self) -> int:
        """How many programs may run side by side."""

    def support(self, folder: Path, objects: Sequence[bytes]) -> tuple[list[Path], list[str | Path]]:
        """Sources to compile beside the object files of candidates, written into `folder`, and options of the linker."""

    def flags(self) -> list[str]:
        """Of the compiler."""

    def execute(self, program: Path, folder: Path, expected: Sequence[bytes], limit: float) -> Ran:
        """Run a program in a folder, for at most so many seconds; of each of its runs the output is known."""


@dataclass(frozen=True)
class _Layout:
    """Where a run has its memory.

    Attributes:
        places: Of the arguments that are copied, by number, then of the output and the workspaces.
        gaps: What must stay painted.
        size: All bytes.
    """

    places: dict[int | str, int]
    gaps: list[tuple[int, int]]
    size: int


class Compile(Protocol):
    """What compiles candidates, as `compile_trials` does."""

    def __call__(self, trials: Sequence[MakeTrial], target: dict[str, Any], /) -> list[CompiledTrial | Outcome]: ...


def measure(trials: Sequence[MakeTrial], emulator: Emulator, compile_them: Compile = compile_trials) -> list[Outcome]:
    """Compile candidates, check what they compute, measure what they cost.

    Args:
        trials: What makes the candidates.
        emulator: Where they run.
        compile_them: What compiles them.

    Raises:
        ToolError: The tool chain or the emulator fails on what is not a candidate's fault.
        MissingToolError: One of them is missing.
    """
    compiled = compile_them(trials, emulator.tvm)
    outcomes: dict[int, Outcome] = {i: made for i, made in enumerate(compiled) if isinstance(made, Outcome)}
    objects = {i: made for i, made in enumerate(compiled) if isinstance(made, CompiledTrial)}
    for i, made in objects.items():
        needed = max(layout.size for layout in _layouts(made))
        if needed > emulator.memory_bytes:
            outcomes[i] = Outcome("error", reason=f"it takes {needed:,} bytes of memory where {emulator.memory_bytes:,} are")
    waiting = [i for i in objects if i not in outcomes]
    while waiting:
        batches = _programs(waiting, objects, emulator)
        with ThreadPoolExecutor(len(batches)) as executor:
            for found, culprit in executor.map(lambda batch: _run({i: objects[i] for i in batch}, emulator), batches):
                outcomes.update(found)
                if culprit is not None:
                    outcomes[culprit[0]] = culprit[1]
        waiting = [i for i in waiting if i not in outcomes]
    return [outcomes[i] for i in range(len(trials))]


def _programs(waiting: list[int], objects: Mapping[int, CompiledTrial], emulator: Emulator) -> list[list[int]]:
    """The candidates of the programs that run next."""
    count = min(emulator.at_once, -(-len(waiting) // _FEW))
    shares = np.array_split(np.array(waiting), count)
    return [_that_fit([int(index) for index in share], objects, emulator.most_bytes) for share in shares]


def _that_fit(indices: list[int], objects: Mapping[int, CompiledTrial], limit: int) -> list[int]:
    """The first candidates, as many as have room in one program."""
    total = 0
    found: list[int] = []
    for index in indices:
        total += sum(value.nbytes for value in objects[index].trial.arguments) + 16384
        if found and total > limit:
            break
        found.append(index)
    return found


def _run(batch: Mapping[int, CompiledTrial], emulator: Emulator) -> tuple[dict[int, Outcome], tuple[int, Outcome] | None]:
    """What came of the candidates of one program, and of the one that it died of.

    Where an emulated one died nothing is known of the others: the counts are written at the end.
    """
    with tempfile.TemporaryDirectory(prefix="tvmcompress-trials-") as scratch:
        folder = Path(scratch)
        program = _build(batch, emulator, folder)
        expected = [made.trial.expected.tobytes() for made in batch.values() for _ in _layouts(made)]
        ran = emulator.execute(program, folder, expected, _LIMIT)
        finished = _finished(batch, ran.data)
        left = [index for index in batch if index not in finished]
        culprit = None
        if ran.failure is not None and not ran.lost:
            if not left:
                raise ToolError(ran.failure)
            culprit = left[0], Outcome("timeout" if ran.hung else "crash", reason=ran.failure)
            if not ran.costs:
                return {}, culprit
        costs, turns = iter(ran.costs), iter(ran.turns or [()] * len(ran.costs))
        code = _code_bytes(batch, emulator, folder)
    found = {index: Outcome("lost", reason=ran.failure) for index in left} if ran.lost else {}
    for index, made in batch.items():
        if index not in finished:
            break
        trial = made.trial
        (cost, turn), *_ = [(next(costs), next(turns)) for _ in _layouts(made)]
        if not finished[index]:
            found[index] = Outcome("wrong", reason="its output differs from the reference, or it wrote beside its memory")
            continue
        size, library = code[index]
        constants = trial.constant_bytes
        workspaces = sum(made.workspaces), constants, len(made.workspaces)
        found[index] = Outcome("ok", cost, turn, size + constants, *workspaces, library)
    return found, culprit


def _build(batch: Mapping[int, CompiledTrial], emulator: Emulator, folder: Path) -> Path:
    """Write, compile and link the program."""
    blob, places = bytearray(), dict[bytes, int]()

    def place(value: np.ndarray) -> int:
        content = value.tobytes()
        if content not in places:
            blob.extend(bytes(-len(blob) % _ALIGNMENT))
            places[content] = len(blob)
            blob.extend(content)
        return places[content]

    context: list[dict[str, Any]] = []
    objects: list[Path] = []
    for index, made in batch.items():
        trial = made.trial
        objects.append(folder / f"trial{index}.o")
        objects[-1].write_bytes(made.content)
        runs = []
        for layout in _layouts(made):
            arguments = [
                f"memory + {layout.places[i]}" if i in layout.places else f"(void *)(trial_data + {place(value)})"
                for i, value in enumerate(trial.arguments)
            ]
            own = [f"memory + {layout.places[name]}" for name in ("output", *map(str, range(len(made.workspaces))))]
            copies = [
                {"to": layout.places[i], "source": place(trial.arguments[i]), "bytes": trial.arguments[i].nbytes}
                for i in trial.activations
            ]
            runs.append(
                {
                    "gaps": layout.gaps,
                    "bytes": layout.size,
                    "copies": copies,
                    "arguments": arguments + own,
                    "place": layout.places["output"],
                }
            )
        count = len(trial.arguments) + 1 + len(made.workspaces)
        context.append(
            {
                "name": f"trial{index}",
                "parameters": ", ".join(["void *"] * count),
                "runs": runs,
                "output_bytes": trial.expected.nbytes,
            }
        )
    (folder / "data.bin").write_bytes(bytes(blob) + bytes(_ALIGNMENT))
    data = folder / "data.S"
    data.write_text(f'.section .rodata\n.balign {_ALIGNMENT}\n.global trial_data\ntrial_data:\n.incbin "{folder}/data.bin"\n')
    source = folder / "trials.c"
    size = max(run["bytes"] for trial in context for run in trial["runs"])
    values = {"trials": context, "memory_bytes": size}
    if emulator.transport == "module":
        text = _TEMPLATES.get_template("module.c.j2").render(values, packed_call=packed_call())
    else:
        text = _TEMPLATES.get_template("trials.c.j2").render(values, transport=emulator.transport)
    source.write_text(text)
    support, options = emulator.support(folder, [made.content for made in batch.values()])
    program = folder / ("trials.so" if emulator.transport == "module" else "trials.elf")
    command: list[str | Path] = [f"{emulator.prefix}gcc", "-std=gnu11", "-O1", *emulator.flags(), "-I", folder]
    command += [source, data, *support, *objects]
    run([*command, *options, "-o", program], what="building candidates", timeout=120)
    return program


def _layouts(made: CompiledTrial) -> list[_Layout]:
    """With the output on its own, and where it may lie in an argument's memory."""
    inplace = made.trial.inplace
    return [_layout(made, None), *([_layout(made, inplace)] if inplace is not None else [])]


def _layout(made: CompiledTrial, shared: int | None) -> _Layout:
    trial = made.trial
    places: dict[int | str, int] = {}
    gaps = []
    end = 0
    sizes: list[tuple[int | str, int]] = [(i, trial.arguments[i].nbytes) for i in trial.activations]
    sizes += [] if shared is not None else [("output", trial.expected.nbytes)]
    sizes += [(str(i), size) for i, size in enumerate(made.workspaces)]
    for name, size in sizes:
        start = -(-(end + _GUARD) // _ALIGNMENT) * _ALIGNMENT
        gaps.append((end, start))
        places[name], end = start, start + size
    if shared is not None:
        places["output"] = places[shared]
    gaps.append((end, end + _GUARD))
    return _Layout(places, gaps, end + _GUARD)


def _finished(batch: Mapping[int, CompiledTrial], data: bytes) -> dict[int, bool]:
    """Of the candidates that came to their end whether they were right."""
    found, at = {}, 0
    for index, made in batch.items():
        right = True
        expected = made.trial.expected.tobytes()
        for _ in _layouts(made):
            right = right and data[at : at + 1] == b"\1" and data[at + 1 : at + 1 + len(expected)] == expected
            at += 1 + len(expected)
        if at > len(data):
            break
        found[index] = right
    return found


def _code_bytes(batch: Mapping[int, Any], emulator: Emulator, folder: Path) -> dict[int, tuple[int, tuple[str, ...]]]:
    """Of each candidate the bytes of its code, as it lies among others, and what it calls of the C library."""
    paths = {f"trial{index}.o": index for index in batch}
    text = run([f"{emulator.prefix}objdump", "-h", *paths], what="measuring the code", timeout=60, cwd=folder)
    sizes: Counter[int] = Counter()
    current = -1
    for line in text.splitlines():
        fields = line.split()
        if "file format" in line:
            current = paths[fields[0].removesuffix(":")]
        elif len(fields) == 7 and _IN_FLASH.match(fields[1]):
            alignment = max(_WORD, 1 << int(fields[6].removeprefix("2**")))
            sizes[current] += -(-int(fields[2], 16) // alignment) * alignment
    calls: dict[int, set[str]] = {index: set() for index in batch}
    text = run([f"{emulator.prefix}nm", "-A", "-u", *paths], what="measuring the code", timeout=60, cwd=folder)
    routines: dict[str, int] | None = None
    for line in text.splitlines():
        path, _, rest = line.partition(":")
        name = rest.split()[-1]
        if name.startswith(_ROUTINE):
            routines = _routines(emulator, folder) if routines is None else routines
            name = f"{name}:{routines[name]}"
        if name not in _FREE:
            calls[paths[path]].add(name)
    return {index: (sizes[index], tuple(sorted(calls[index]))) for index in batch}


def _routines(emulator: Emulator, folder: Path) -> dict[str, int]:
    """Bytes of the program's routines, as they lie among others."""
    text = run([f"{emulator.prefix}nm", "-S", folder / "trials.elf"], what="measuring the code", timeout=60)
    lines = (fields for line in text.splitlines() if len(fields := line.split()) == 4 and fields[3].startswith(_ROUTINE))
    return {name: -(-int(size, 16) // _WORD) * _WORD for _, size, _, name in lines}
