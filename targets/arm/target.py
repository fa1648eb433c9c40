"""Cortex-A: the same library as for microcontrollers, run and counted by the user-mode emulator."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...passes._tvm import tvm
from ...passes.errors import UserError
from ..aot.build_info import BuildInfo
from ..aot.generate import Generated, generate
from ..aot.memory_map import memory_plan
from ..aot.schedule import NARROW_NEON, NEON
from ..aot.toolchain import Toolchain
from ..artifact_folder import read_artifact
from ..base import TargetDescription
from ..emulators.tools import missing, package_version, require
from ..remote.board import Board
from ..staging import staged
from ..trials.tunable import TunableTarget
from ..tuning_log import LogChoice, TuningLog
from .artifact import CortexAArtifact
from .cores import GENERIC, platform_of, problem
from .features import masks, needed, present
from .halves import check_halves, in_halves
from .project import write_project, write_runner
from .remote import CortexAProgram
from .trials import CortexAEmulator

_PROGRAM = "runner"
MOST_THREADS = 64
"""Of a library; its pool has a place for each."""


def check_threads(threads: int) -> None:
    """Refuse more threads than a library may have, or none.

    Raises:
        UserError: It is no such number.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise UserError(f"a library for Cortex-A may use 1 to {MOST_THREADS} threads, not {threads}")


class CortexATarget(TunableTarget):
    """Builds for one Cortex-A core."""

    def __init__(self, description: TargetDescription) -> None:
        super().__init__(description)
        self.remote = platform_of(description).wide

    @classmethod
    def problem(cls, description: TargetDescription) -> str | None:
        """What a board of this family cannot be."""
        return problem(description)

    def missing_tools(self) -> list[str]:
        """The cross compiler, the emulator, and a compiler for the counting plugin."""
        building, running = platform_of(self.description).programs
        return missing([*building, *running])

    def build(
        self,
        mod: tvm.IRModule,
        output: Path,
        *,
        prefix: str = "model",
        emit: str = "object",
        kernels: bool = True,
        tuning_log: LogChoice = None,
        threads: int = 1,
        features: Sequence[str] = (),
        float16: bool = False,
        **options: Any,
    ) -> CortexAArtifact:
        """Write the library and a program that runs it into `output`.

        Args:
            mod: A model module, parameters attached.
            output: The folder.
            prefix: Starts every symbol.
            emit: "object" for kernels compiled by LLVM, "c" for C source.
            kernels: Whether to use this family's own kernels; otherwise all come from the default schedule.
            tuning_log: A log's folder; by default the user's and the packaged one; False for none.
            threads: The most threads that may share an inference; the library then has a pool of POSIX threads of its own,
                and workspaces for each of them.
            features: What the processor has besides the description's, as attributes of a TVM target: `+dotprod`.
            float16: Whether a float model computes in float16, which the core must have.
            options: None.

        Raises:
            UserError: More threads than `MOST_THREADS` or none, float16 on a core or in C source that has none, a damaged
                tuning log, or the model cannot be compiled.
            MissingToolError: The cross compiler is missing.
        """
        if options:
            raise UserError(f"target {self.description.name} has no option '{next(iter(options))}'")
        check_threads(threads)
        require(platform_of(self.description).programs[0], f"building for {self.description.name}")
        if features:
            attributes = [*self.description.tvm.get("mattr", ()), *features]
            described = {**self.description.tvm, "mattr": attributes}
            return CortexATarget(self.description.model_copy(update={"tvm": described})).build(
                mod, output, prefix=prefix, emit=emit, kernels=kernels, tuning_log=tuning_log, threads=threads, float16=float16
            )
        if float16:
            check_halves(self.description)
            if emit == "c":
                raise UserError("C source has no float16 arithmetic; leave out --emit c or --float16")
        description, output, logs = self.description, Path(output), self.logs(tuning_log)
        with staged(output) as work:
            generated = generate(
                mod,
                description.tvm,
                work,
                registers=NEON if platform_of(description).wide else NARROW_NEON,
                linker=f"{platform_of(description).prefix}ld",
                prefix=prefix,
                version=package_version(),
                emit=emit,
                legalize=self.kernel_passes(logs, threads=threads) if kernels and emit == "object" else [],
                # Flash is no matter here, and the kernels read whole vectors of weights.
                decode=["int4", "2of4"],
                needs=masks(needed(description.tvm)),
                threads=threads,
                floats=in_halves if float16 else None,
            )
            code, constants = self._compile(generated, output, threads)
            info = BuildInfo(
                prefix=prefix,
                inputs=generated.inputs,
                outputs=generated.outputs,
                program=_PROGRAM,
                threads=threads,
                code_bytes=code,
                constant_bytes=constants,
                arena_bytes=generated.arena.plan.size,
                arena_lower_bound=generated.arena.plan.lower_bound,
                layers=generated.program.layers(),
                workspaces=generated.arena.workspace_bytes(generated.program),
                memory=memory_plan(generated.program, generated.arena),
            )
            info.write(work, description)
        return CortexAArtifact(description, output, info)

    def load(self, path: Path) -> CortexAArtifact:
        """The artifact in a folder."""
        return CortexAArtifact(self.description, Path(path), BuildInfo.read(Path(path)))

    def remote_options(self, board: Board) -> dict[str, Any]:
        """The instructions that the board has, where the description leaves its core open."""
        if self.description.core != GENERIC:
            return {}
        return {"features": present(board.facts.hwcap, board.facts.hwcap2)}

    def remote_program(self, path: Path) -> CortexAProgram:
        """The build in a folder, for boards."""
        require(platform_of(self.description).programs[0], f"building for {self.description.name}")
        return CortexAProgram(CortexATarget(read_artifact(Path(path))["target"]).load(path))

    def emulator(self) -> CortexAEmulator:
        """The user-mode emulator."""
        return CortexAEmulator(self.description)

    def kernel_passes(self, logs: Sequence[TuningLog] = (), *, threads: int = 1, **options: Any) -> list[Any]:
        """The passes that use the core's kernels."""
        if not platform_of(self.description).wide:
            return []
        from .kernels.legalize import UseNeonKernels
        from .kernels.products import products_of

        return [UseNeonKernels(products_of(self.description.tvm), self.tuned(logs), threads)]

    def _compile(self, generated: Generated, output: Path, threads: int) -> tuple[int, int]:
        """Compile and link; bytes of code and of constants."""
        folder = generated.folder
        write_project(generated, self.description, threads)
        # Position-independent: the same objects make the shared library.
        flags = [*self.description.compiler_flags, "-fPIC"]
        tools = Toolchain(platform_of(self.description).prefix, flags, output / "compiler.log")
        pool = ["-pthread"] if threads > 1 else []
        with tempfile.TemporaryDirectory() as scratch:
            compiled = tools.compile(generated, [write_runner(generated, threads)], Path(scratch))
            # Static: the emulator then needs no libraries of the other architecture.
            tools.link(compiled, ["-static", *pool], folder / _PROGRAM)
            tools.archive(compiled, folder / f"lib{generated.prefix}.a")
            tools.share(compiled, pool, folder / f"lib{generated.prefix}.so")
            flash = sum(tools.flash_bytes(path) for path in compiled.library)
        return flash - generated.constant_bytes, generated.constant_bytes
