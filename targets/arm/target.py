"""64-bit Cortex-A: the same library as for microcontrollers, cross-compiled, run and counted by the user-mode emulator."""

from __future__ import annotations

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

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "runtime"), undefined=StrictUndefined, keep_trailing_newline=True
)
_PROGRAM = "runner"


class CortexATarget(Target):
    """Builds for one 64-bit Cortex-A core."""

    def missing_tools(self) -> list[str]:
        """The cross compiler, the emulator, and a compiler for the counting plugin."""
        return missing(["aarch64-linux-gnu-gcc", "qemu-aarch64", "cc"])

    def build(
        self, mod: tvm.IRModule, output: Path, *, prefix: str = "model", emit: str = "object", **options: Any
    ) -> CortexAArtifact:
        """Write the library and a program that runs it into `output`.

        Args:
            mod: A model module, parameters attached.
            output: The folder.
            prefix: Starts every symbol.
            emit: "object" for kernels compiled by LLVM, "c" for C source.
            options: None.

        Raises:
            UserError: The model cannot be compiled.
            MissingToolError: The cross compiler is missing.
        """
        if options:
            raise UserError(f"target {self.description.name} has no option '{next(iter(options))}'")
        description = self.description
        output.mkdir(parents=True, exist_ok=True)
        generated = generate(mod, description.tvm, output, prefix=prefix, version=package_version(), emit=emit)
        code, constants = self._compile(generated)
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
        return CortexAArtifact(description, output, info)

    def load(self, path: Path) -> CortexAArtifact:
        """The artifact in a folder."""
        return CortexAArtifact(self.description, path, BuildInfo.read(path))

    def _compile(self, generated: Generated) -> tuple[int, int]:
        folder = generated.folder
        runner = folder / "runner.c"
        runner.write_text(_TEMPLATES.get_template("runner.c.j2").render({"prefix": generated.prefix}))
        flags = [*self.description.compiler_flags, "-ffunction-sections", "-fdata-sections", "-I", str(folder)]
        objects = [str(path) for path in generated.objects]
        with tempfile.TemporaryDirectory() as scratch:
            for source in (*generated.sources, runner):
                made = Path(scratch) / f"{source.stem}.o"
                level = "-O3" if source.stem.endswith("_kernels") else "-O2"
                run(
                    ["aarch64-linux-gnu-gcc", "-std=gnu11", level, *flags, "-c", source, "-o", made],
                    what=f"compiling {source.name}",
                    timeout=300,
                    log=folder / "compiler.log",
                )
                objects.append(str(made))
            sizes = {path: _flash(path) for path in objects if Path(path).stem != "runner"}
            # Static: the emulator then needs no libraries of the other architecture.
            run(
                ["aarch64-linux-gnu-gcc", "-static", "-Wl,--gc-sections", *objects, "-lm", "-o", folder / _PROGRAM],
                what="linking the runner",
                timeout=120,
                log=folder / "compiler.log",
            )
        constants = sum(size for path, size in sizes.items() if path.endswith("_constants.o"))
        return sum(sizes.values()) - constants, constants


class CortexAArtifact(Artifact):
    """A library in a folder, with a program that runs it on the emulator."""

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
        _, counts = self._emulate(given, timeout, count=True)
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
            ram_bytes=info.arena_bytes,
            arena_bytes=info.arena_bytes,
            notes=("executed instructions under QEMU, which are not cycles",),
        )

    def _emulate(
        self, inputs: Sequence[np.ndarray], timeout: float, *, count: bool
    ) -> tuple[list[np.ndarray], Counts | None]:
        samples = check_inputs(self.inputs, inputs)
        program = (self.path / self.info.program).resolve()
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "input.bin").write_bytes(pack_inputs(self.inputs, inputs))
            command: list[str | Path] = ["qemu-aarch64", "-cpu", str(self.target.emulator_cpu)]
            results = None
            if count:
                argument, results = plugin_argument(program, "aarch64-linux-gnu-nm", folder, thumb=False)
                command += ["-plugin", argument]
            run([*command, program], what="running on the emulator", timeout=timeout, cwd=folder)
            values, _ = unpack_outputs(self.outputs, (folder / "output.bin").read_bytes(), samples)
            return values, read_counts(results) if results is not None else None


def _flash(path: str) -> int:
    """Bytes of the sections of an object file that are read at run time."""
    total = 0
    for line in run(["aarch64-linux-gnu-size", "-A", path], what="measuring the code", timeout=60).splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[0].startswith((".text", ".rodata", ".data")):
            total += int(fields[1])
    return total
