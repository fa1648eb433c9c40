"""A library in a folder with a program that runs it under QEMU: what microcontrollers and boards share."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...passes.errors import UserError
from ..aot.build_info import BuildInfo
from ..aot.samples import pack_inputs, unpack_outputs
from ..artifact_folder import whole
from ..base import Artifact, TargetDescription
from ..inputs import check_inputs, random_inputs
from ..measurement import Measurement
from .cycles import Block, Core, NoEstimateError, can_estimate, estimate, read_blocks
from .plugin import EACH, Counts, InstructionSet, plugin_argument, read_counts
from .tools import run

# Exit codes of the programs in micro/runtime and arm/runtime.
_FAILURES = {
    2: "its arena is too small or not aligned",
    3: "it could not open its input or output file",
    4: "its input file is too short",
    6: "it could not write its output file",
    7: "it wrote outside its arena",
    9: "the emulated core lacks instructions that the code uses",
    10: "it could not start its threads",
    99: "it raised a fault",
}


@dataclass(frozen=True)
class _Run:
    outputs: list[np.ndarray]
    rest: bytes
    counts: Counts | None
    blocks: list[Block] = field(default_factory=list)


class EmulatedArtifact(Artifact):
    """A built library and the program that runs it.

    Attributes:
        info: What the build wrote.
    """

    nm: str
    """The symbol lister of the tool chain."""
    instructions: InstructionSet
    """Of the program."""

    def __init__(self, target: TargetDescription, path: Path, info: BuildInfo) -> None:
        self.target, self.path, self.info = target, path, info
        self.inputs, self.outputs = info.inputs, info.outputs

    @abstractmethod
    def command(self, plugin: Sequence[str], program: Path) -> list[str | Path]:
        """The emulator's command line."""

    def stack_bytes(self, rest: bytes) -> int | None:
        """The deepest stack, from what the program wrote behind its outputs."""
        return None

    def run(self, inputs: Sequence[np.ndarray], *, timeout: float = 300, threads: int = 1) -> list[np.ndarray]:
        """Run on the emulator; see `Artifact.run`.

        Args:
            timeout: Seconds after which an emulator that does not come to an end is stopped.
            threads: How many share an inference.
        """
        if not 1 <= threads <= self.info.threads:
            raise UserError(f"{self.path} was built for up to {self.info.threads} threads; {threads} were asked for")
        return self._emulate(inputs, timeout, count=False, arguments=[str(threads)] if threads > 1 else []).outputs

    def measure(
        self, inputs: Sequence[np.ndarray] | None = None, *, timeout: float = 300, cycles: bool = False, **options: Any
    ) -> Measurement:
        """Count the executed instructions of one inference.

        Args:
            inputs: Samples; the figures are means over them, which differ from one another only where the executed path
                depends on the data. One random sample when none are given.
            timeout: Seconds after which an emulator that does not come to an end is stopped.
            cycles: Whether to estimate cycles too, which takes a second or two, where LLVM's tools are installed; where they
                have no model of the core, a note says so.
            options: None.

        Raises:
            UserError: An unknown option, or inputs that do not fit, or the run failed.
            MissingToolError: The emulator is missing.
        """
        if options:
            raise UserError(f"target {self.target.name} measures without option '{next(iter(options))}'")
        each = cycles and can_estimate()
        done = self._emulate(random_inputs(self.inputs) if inputs is None else inputs, timeout, count=True, each=each)
        assert done.counts is not None
        samples, info, stack = len(done.counts.regions), self.info, self.stack_bytes(done.rest)
        notes = ["executed instructions under QEMU, which are not cycles"]
        if self.target.emulator_note:
            notes.append(self.target.emulator_note)
        estimated = None
        if done.blocks:
            try:
                estimated = estimate(done.blocks, Core(self.target.core, str(self.target.tvm.get("mtriple"))), samples)
                notes.append(estimated.sentence())
            except NoEstimateError as error:
                notes.append(f"cycles are not estimated: {error}")
        if info.patches is not None:
            notes.append(info.patches.sentence(info.arena_bytes))
        return Measurement(
            target=self.target.name,
            source="qemu",
            instructions=round(sum(done.counts.regions) / samples),
            functions={name: round(count / samples) for name, count in done.counts.functions.items()},
            layers={name: round(count / samples) for name, count in self._by_layer(done.counts).items()},
            classes={name: round(count / samples) for name, count in done.counts.classes.items()},
            cycle_estimate=estimated,
            flash_bytes=info.code_bytes + info.constant_bytes,
            code_bytes=info.code_bytes,
            constant_bytes=info.constant_bytes,
            ram_bytes=info.arena_bytes + (stack or 0),
            arena_bytes=info.arena_bytes,
            arena_lower_bound=info.arena_lower_bound,
            stack_bytes=stack,
            patches=info.patches,
            memory=info.memory,
            notes=tuple(notes),
        )

    def _by_layer(self, counts: Counts) -> dict[str, int]:
        """Executed instructions by layer, in the order of the model; layers that share a function are told apart by its calls.

        Empty where the calls are not those of the model, as when a function's first instruction is the target of a loop.
        """
        expected = sum(len(layers) for layers in self.info.layers.values())
        if len(counts.calls) != expected * len(counts.regions):
            return {}
        found: dict[str, int] = {}
        for start in range(0, len(counts.calls), expected or 1):
            layers = {name: iter(names) for name, names in self.info.layers.items()}
            for name, count in counts.calls[start : start + expected]:
                layer = next(layers[name], name)
                found[layer] = found.get(layer, 0) + count
        return found

    def _emulate(
        self, inputs: Sequence[np.ndarray], timeout: float, *, count: bool, each: bool = False, arguments: Sequence[str] = ()
    ) -> _Run:
        samples = check_inputs(self.inputs, inputs)
        program = whole(self.path, self.info.program).resolve()
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "input.bin").write_bytes(pack_inputs(self.inputs, inputs))
            plugin: list[str] = []
            results = None
            if count:
                calls, driver = list(self.info.layers), f"{self.info.prefix}_run"
                argument, results = plugin_argument(
                    program, self.nm, folder, classes=self.instructions, calls=calls, driver=driver, each=each
                )
                plugin = ["-plugin", argument]
            try:
                command = [*self.command(plugin, program), *arguments]
                run(command, what="running on the emulator", timeout=timeout, cwd=folder, lasting=True)
            except UserError as error:
                raise _explained(error) from error
            values, rest = unpack_outputs(self.outputs, (folder / "output.bin").read_bytes(), samples)
            found = read_blocks(folder / EACH) if (folder / EACH).exists() else []
            return _Run(values, rest, read_counts(results) if results is not None else None, found)


def _explained(error: UserError) -> UserError:
    for code, reason in _FAILURES.items():
        if str(error).endswith(f"exit code {code}"):
            return UserError(f"the program failed on the emulator: {reason}")
    return error
