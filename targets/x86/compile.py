"""From a model module to a Relax executable for the virtual machine, with what it will need of memory."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi

from ...passes._tvm import Constant, relax, tvm, vm_codegen, vm_link
from ..objects import Compiler, compile_functions
from .host import cpu_features, resolve_cpu, tvm_target
from .library import link
from .lower import lower
from .schedule import Decide, ScheduleSummary, by_formula, schedule_module
from .sequence import join_calls


@dataclass(frozen=True)
class MemoryPlan:
    """What a compiled model allocates, in bytes, as planned at compile time.

    Attributes:
        activations: Intermediate tensors, after sharing of storage.
        workspace: The most that one function allocates while it runs (padded inputs).
        constants: Weights and other constants.
        io: Inputs and outputs.
    """

    activations: int
    workspace: int
    constants: int
    io: int


@dataclass(frozen=True)
class Compiled:
    """A compiled model.

    Attributes:
        executable: What `relax.VirtualMachine` runs and `export_library` writes.
        schedules: Where the schedule of each function came from.
        memory: What it allocates.
        module: The scheduled module.
    """

    executable: Any
    schedules: ScheduleSummary
    memory: MemoryPlan
    module: tvm.IRModule


def compile_module(
    mod: tvm.IRModule,
    cpu: str = "native",
    decide: Decide = by_formula,
    threads: int | None = None,
    *,
    runs_here: bool = False,
) -> Compiled:
    """Compile a model module, its parameters as constants.

    Args:
        mod: A model module with its parameter values attached: float, or integer operators.
        cpu: `native`, `portable` or an LLVM name.
        decide: Who decides about schedules.
        threads: How many threads schedules may count on.
        runs_here: Whether this process alone runs it, and compiling counts for more than a millisecond of running: then the
            virtual machine calls function by function, since the one that calls all of a deep network takes a second to
            compile, and what is linked and loaded is code without the constants.

    Raises:
        UserError: LLVM knows no such CPU, or the linker refused.
        ValueError: No parameter values are attached.
    """
    target = tvm_target(cpu, threads)
    with target, tempfile.TemporaryDirectory() as folder:
        lowered = lower(mod, cpu_features(resolve_cpu(cpu)))
        scheduled, summary = schedule_module(lowered, decide)
        planned = _plan_memory(scheduled)
        memory = _measure_plan(scheduled, planned)
        final = tvm.transform.Sequential(_FINALIZE)(planned if runs_here else join_calls(planned))
        unscheduled = relax.transform.AttachGlobalSymbol()(lowered)
        generic = {var.name_hint: func for var, func in unscheduled.functions.items()}
        builder = relax.ExecBuilder()
        alternatives = {}
        for var, func in vm_codegen(builder, final, "bytecode").functions.items():
            if isinstance(func, tvm.tirx.PrimFunc):
                plain = generic.get(var.name_hint, func)
                alternatives[var.name_hint] = [func] if plain.same_as(func) else [func, plain]
        objects = {}
        for index, (name, result) in enumerate(compile_functions(alternatives, Compiler.for_runtime(target)).items()):
            if result.reason is not None:
                summary.falls_back(name, result.reason)
            objects[name] = Path(folder) / f"f{index}.o"
            objects[name].write_bytes(result.content)
        if runs_here and objects:
            libraries = [tvm.runtime.load_module(str(link(objects.values(), Path(folder) / "functions.so")))]
        else:
            libraries = [tvm.runtime.load_static_library(str(path), [name]) for name, path in objects.items()]
        executable = vm_link(builder=builder, target=target, tir_mod=None, ext_libs=libraries)
    return Compiled(executable, summary, memory, scheduled)


_FINALIZE = [
    relax.transform.LowerAllocTensor(),
    relax.transform.KillAfterLastUse(),
    relax.transform.LowerRuntimeBuiltin(),
    relax.transform.ComputePrimValue(),
    relax.transform.VMShapeLower(),
    relax.transform.AttachGlobalSymbol(),
]


def _plan_memory(mod: tvm.IRModule) -> tvm.IRModule:
    passes = [
        relax.transform.RewriteDataflowReshape(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
    ]
    return tvm.transform.Sequential(passes)(mod)


def _measure_plan(scheduled: tvm.IRModule, planned: tvm.IRModule) -> MemoryPlan:
    storage = constants = 0
    seen: set[int] = set()

    def visit(expr: relax.Expr) -> None:
        nonlocal storage, constants
        if isinstance(expr, relax.Call) and expr.op == _ALLOC_STORAGE:
            storage += int(np.prod([int(dim) for dim in expr.args[0].values], dtype=np.int64))
        elif isinstance(expr, Constant) and isinstance(expr.value, tvm.runtime.Tensor) and hash(expr) not in seen:
            seen.add(hash(expr))
            constants += expr.value.numpy().nbytes

    relax.analysis.post_order_visit(planned["main"], visit)
    main = scheduled["main"]
    io = sum(_type_bytes(param.ty) for param in main.params) + _type_bytes(main.body.body.ty)
    return MemoryPlan(storage, _workspace(scheduled), constants, io)


_ALLOC_STORAGE = tvm.ir.Op.get("relax.memory.alloc_storage")


def _type_bytes(ty: Any) -> int:
    if isinstance(ty, relax.TupleType):
        return sum(_type_bytes(field) for field in ty.fields)
    shape = [int(dim) for dim in ty.shape]
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(str(ty.dtype)).itemsize


def _workspace(mod: tvm.IRModule) -> int:
    """The most that one function of a module allocates inside, after its buffers were cut to what a tile needs."""
    transform = tvm.s_tir.transform
    functions = tvm.IRModule({var: func for var, func in mod.functions.items() if isinstance(func, tvm.tirx.PrimFunc)})
    passes = [
        transform.LowerInitBlock(),
        transform.PlanAndUpdateBufferAllocationLocation(),
        transform.ConvertBlocksToOpaque(),
        transform.CompactBufferAllocation(),
    ]
    most = 0
    for func in tvm.transform.Sequential(passes)(functions).functions.values():
        total = 0

        def visit(block: tvm.s_tir.SBlock) -> None:
            nonlocal total
            for buffer in block.alloc_buffers:
                size = int(np.prod([int(dim) for dim in buffer.shape], dtype=np.int64))
                total += size * np.dtype(str(buffer.dtype)).itemsize

        tvm_ffi.structural_walk(func, (tvm.s_tir.SBlock, visit))
        most = max(most, total)
    return most
