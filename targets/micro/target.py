"""Cortex-M: a firmware library without a runtime, run and counted on an emulated board."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...passes._tvm import tvm
from ...passes.errors import UserError
from ...passes.lowering.compress_sparse import CompressSparse
from ..aot.build_info import BuildInfo
from ..aot.generate import Generated, generate
from ..aot.memory_map import memory_plan
from ..aot.schedule import CORE_REGISTERS, FLOAT_REGISTERS, HELIUM, Registers
from ..aot.toolchain import Toolchain
from ..base import TargetDescription
from ..emulators.tools import missing, package_version, require
from ..staging import staged
from ..trials.tunable import TunableTarget
from ..tuning_log import LogChoice, TuningLog
from .artifact import CortexMArtifact
from .cores import has_long_products, problem
from .fit import check_fit
from .float_helpers import with_float_helpers
from .library_routines import with_routines
from .project import library_identity, write_firmware, write_project
from .soft_float import refuse_floats, use_arm_names
from .trials import CortexMEmulator

_PREFIX = "arm-none-eabi-"
_BUILDING = [_PREFIX + name for name in ("gcc", "ld", "ar", "size", "objcopy", "nm")]
_RUNNING = ["qemu-system-arm", "cc"]
_PROGRAM = "firmware/model.elf"


class CortexMTarget(TunableTarget):
    """Builds for one Cortex-M core or board."""

    @classmethod
    def problem(cls, description: TargetDescription) -> str | None:
        """What a board of this family cannot be."""
        return problem(description)

    def missing_tools(self) -> list[str]:
        """The cross compiler, the emulator, and a compiler for the counting plugin."""
        return missing([*_BUILDING, *_RUNNING])

    def build(
        self,
        mod: tvm.IRModule,
        output: Path,
        *,
        prefix: str = "model",
        emit: str = "object",
        kernels: bool = True,
        check_memory: bool = True,
        patch_wise: bool = False,
        soft_float: bool = True,
        spend_flash: int | None = None,
        sparse_weights: bool = False,
        tuning_log: LogChoice = None,
        **options: Any,
    ) -> CortexMArtifact:
        """Write the library, with a project that builds it, into `output`.

        Args:
            mod: A model module, parameters attached.
            output: The folder.
            prefix: Starts every symbol.
            emit: "object" for kernels compiled by LLVM, "c" for C source.
            kernels: Whether to use this core's own kernels; otherwise all come from the default schedule.
            check_memory: Whether to refuse a model that does not fit the board.
            patch_wise: Whether to compute the first layers of an integer model patch by patch where that takes less memory;
                kernels then take no workspace for speed alone either.
            soft_float: Whether layers may compute in floating point on a core without a unit for it, which is slow.
            spend_flash: Bytes of flash to spend for fewer instructions: the weights of the layers that gain most are kept
                as halfwords, and larger tiles of Winograd's filtering. A half percent of the weights, and what routines save,
                when not given; 0 spends none.
            sparse_weights: Whether int8 weights of which at most two of every four input channels are not zero are stored
                as these and their places, 2.5 bytes for four; it takes more instructions and, for a table, more RAM.
            tuning_log: A log's folder; by default the user's and the packaged one; False for none.
            options: None.

        Raises:
            UserError: A damaged tuning log, the model does not fit the board, or cannot be compiled.
            MissingToolError: The cross compiler is missing.
        """
        if options:
            raise UserError(f"target {self.description.name} has no option '{next(iter(options))}'")
        require(_BUILDING, f"building for {self.description.name}")
        description, output, logs = self.description, Path(output), self.logs(tuning_log)
        if sparse_weights:
            mod = tvm.transform.Sequential([CompressSparse()])(mod)

        def compiled(folder: Path, patch_wise: bool) -> Generated:
            wanted = kernels and emit == "object"
            return generate(
                mod,
                description.tvm,
                folder,
                registers=_registers(description),
                linker=f"{_PREFIX}ld",
                prefix=prefix,
                version=package_version(),
                emit=emit,
                legalize=self.kernel_passes(logs, spare=not patch_wise, spend_flash=spend_flash) if wanted else [],
                patch_wise=patch_wise,
            )

        with staged(output) as work:
            generated = compiled(work, patch_wise)
            if description.fpu:
                generated = with_float_helpers(generated)
            generated = with_routines(generated)
            arena = generated.arena.plan
            if not soft_float and not description.fpu:
                refuse_floats(description, generated.program)
            if check_memory:
                # Before compiling: a linker's complaint about an overflowing region helps nobody.
                check_fit(description, generated, 0, compiled)
            code = self._compile(generated, output)
            if check_memory:
                check_fit(description, generated, code, compiled)
            identity = library_identity(generated)
            write_project(generated, description, identity)
            info = BuildInfo(
                prefix=prefix,
                inputs=generated.inputs,
                outputs=generated.outputs,
                program=_PROGRAM,
                code_bytes=code,
                constant_bytes=generated.constant_bytes,
                arena_bytes=arena.size,
                arena_lower_bound=arena.lower_bound,
                layers=generated.program.layers(),
                identity=identity,
                workspaces=generated.arena.workspace_bytes(generated.program),
                patches=generated.patches,
                memory=memory_plan(generated.program, generated.arena),
            )
            info.write(work, description)
        return CortexMArtifact(description, output, info)

    def load(self, path: Path) -> CortexMArtifact:
        """The artifact in a folder."""
        return CortexMArtifact(self.description, Path(path), BuildInfo.read(Path(path)))

    def emulator(self) -> CortexMEmulator:
        """The emulated board."""
        return CortexMEmulator(self.description)

    def kernel_passes(
        self, logs: Sequence[TuningLog] = (), *, spare: bool = True, spend_flash: int | None = None, **options: Any
    ) -> list[Any]:
        """The passes that use the core's kernels."""
        tuned = self.tuned(logs)
        if not self.description.dsp:
            from .kernels.scalar_legalize import UseScalarKernels

            return [UseScalarKernels(has_long_products(self.description), spare, tuned)]
        from .kernels.helium_legalize import UseHeliumKernels
        from .kernels.legalize import UseDspKernels

        kernels = UseDspKernels(spare, spend_flash, tuned)
        return [UseHeliumKernels(spare, tuned), kernels] if self.description.helium else [kernels]

    def _compile(self, generated: Generated, output: Path) -> int:
        """Compile, and link for the emulator; bytes of code, those of the C library that it needs included."""
        description = self.description
        sources = write_firmware(generated, description)
        tools = Toolchain(_PREFIX, ["-mthumb", *description.compiler_flags], output / "compiler.log")
        program = generated.folder / _PROGRAM
        if not description.fpu:
            use_arm_names(list(generated.objects))
        with tempfile.TemporaryDirectory() as scratch:
            compiled = tools.compile(generated, sources, Path(scratch))
            script = generated.folder / "firmware" / "emulator.ld"
            tools.link(compiled, ["-nostartfiles", "-specs=nano.specs", "-T", script], program)
            tools.archive(compiled, generated.folder / f"lib{generated.prefix}.a")
            support = sum(tools.flash_bytes(path) for path in compiled.support)
            return tools.flash_bytes(program) - support - generated.constant_bytes


def _registers(description: TargetDescription) -> Registers:
    if description.helium:
        return HELIUM
    return FLOAT_REGISTERS if description.fpu else CORE_REGISTERS
