"""x86-64 as a target: the machine this runs on, or a portable library for others."""

from __future__ import annotations

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...passes._tvm import relax, tvm
from ...passes.errors import UserError
from ...passes.graph.module_params import input_vars, static_shape
from ..artifact_folder import write_artifact
from ..base import Target, TensorSpec
from ..integer_io import is_integer, with_limits
from ..remote.board import Board
from ..staging import staged
from ..tuning_log import LogChoice, chosen_logs
from .artifact import X86Artifact
from .compile import compile_module
from .host import cpu_features, resolve_cpu
from .integer import integer_core, io_specs
from .kernels.intrinsics import best_dot
from .kernels.tiles import FEATURES
from .library import compiler, write_library
from .remote import X86Program, cpu_of
from .schedule import by_logs


class X86Target(Target):
    """Builds shared libraries that the Relax virtual machine runs."""

    remote = True

    def missing_tools(self) -> list[str]:
        """What building or running needs and this machine lacks."""
        missing = []
        if platform.machine() not in ("x86_64", "AMD64"):
            missing.append(f"This machine is {platform.machine()}, not x86-64.")
        if compiler() is None:
            missing.append("A C++ compiler is needed to link the library; install one: apt-get install g++.")
        return missing

    def details(self) -> dict[str, str]:
        """The CPU that is compiled for, its instruction sets, and the product that integer kernels use."""
        cpu = resolve_cpu(self.description.tvm.get("mcpu", "native"))
        features = cpu_features(cpu)
        product = best_dot(features, 16)
        tiles = "; tiles of AMX, 16,384, where a layer fills them" if features >= FEATURES else ""
        return {
            "CPU": cpu,
            "instruction sets": " ".join(sorted(features)),
            "integer product": f"{product.instruction}, {product.lanes * product.group} products at once{tiles}",
        }

    def build(
        self,
        mod: tvm.IRModule,
        output: Path,
        *,
        cpu: str | None = None,
        tuning_log: LogChoice = None,
        threads: int | None = None,
        **options: Any,
    ) -> X86Artifact:
        """Compile a model module into the folder `output`.

        Args:
            mod: Parameters attached; float, or integer as `LowerQDQ` leaves it.
            output: The folder, made if it is missing.
            cpu: `native` (this machine, the default), `portable` (AVX2) or an LLVM name.
            tuning_log: A log's folder, or logs; by default the user's and the packaged one; False for none.
            threads: How many threads schedules may count on; by default all CPUs of this process.
            options: None; names that other targets know are refused.

        Raises:
            UserError: No such CPU, a damaged tuning log, a folder that cannot be written, or an unknown option.
            MissingToolError: There is no C++ compiler.
        """
        if options:
            raise UserError(f"target {self.description.name} has no option {sorted(options)[0]}")
        self.require_tools()
        output = Path(output)
        name = resolve_cpu(cpu or self.description.tvm.get("mcpu", "native"))
        logs = chosen_logs("x86", tuning_log)
        mod = integer_core(mod)
        inputs, outputs = io_specs(mod) if is_integer(mod) else float_specs(mod)
        inputs = with_limits(inputs, mod)
        with staged(output) as work:
            compiled = compile_module(mod, name, by_logs(logs, name), threads)
            library = write_library(compiled.executable, work, tiles=cpu_features(name) >= FEATURES)
            write_artifact(
                work,
                self.description,
                inputs,
                outputs,
                library=library.name,
                cpu=name,
                tuned=compiled.schedules.tuned,
                untuned=[*compiled.schedules.default, *compiled.schedules.unscheduled],
                generic=compiled.schedules.given_up,
                memory=asdict(compiled.memory),
            )
        return X86Artifact(output)

    def load(self, path: Path) -> X86Artifact:
        """The artifact that `build` left in a folder, which this machine can run."""
        artifact = X86Artifact(Path(path))
        artifact.require_features()
        return artifact

    def remote_options(self, board: Board) -> dict[str, Any]:
        """The CPU of the machine that will run it, where the description leaves it open."""
        return {} if self.description.tvm.get("mcpu", "native") != "native" else {"cpu": cpu_of(board)}

    def remote_program(self, path: Path) -> X86Program:
        """The build in a folder, for other machines."""
        return X86Program(X86Artifact(Path(path)))


def float_specs(mod: tvm.IRModule) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of a model module as they are."""
    main = mod["main"]
    inputs = tuple(_spec(var.name, var) for var in input_vars(main))
    ty = main.ret_ty
    types = list(ty.fields) if isinstance(ty, relax.TupleType) else [ty]
    names = ["output"] if len(types) == 1 else [f"output{index}" for index in range(len(types))]
    outputs = tuple(
        TensorSpec(name=name, shape=tuple(int(dim) for dim in field.shape), dtype=str(field.dtype))
        for name, field in zip(names, types)
    )
    return inputs, outputs


def _spec(name: str, var: relax.Var) -> TensorSpec:
    shape = static_shape(var)
    return TensorSpec(name=name, shape=shape, dtype=str(var.ty.dtype), layout="NCHW" if len(shape) == 4 else None)
