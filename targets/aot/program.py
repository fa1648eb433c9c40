"""A model as a list of calls of plain functions on numbered tensors: what the planner and the driver work on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tvm_ffi

from ...passes._tvm import Constant, relax, tirx, tvm
from ...passes.errors import UserError
from ...passes.graph.module_params import detach_params, input_vars
from ...passes.graph.peak_memory import VIEWS
from ...passes.graph.rebuild import bindings
from ...passes.patching.patch_execution import PATCH
from ..legalize import LEGALIZE
from .inplace import inplace_argument
from .lower import is_parallel
from .permutations import PermutationsToReshapes
from .plain_names import with_plain_names
from .schedule import Registers, schedule
from .slices import JOIN, PART, SlicesToViews
from .stored_weights import FuseStoredWeights
from .walk import find
from .weight_layout import LayOutWeights

INPLACE_ATTR = "tvmcompress.inplace"
"""PrimFunc attribute: the argument whose memory the output may take (element i of the output is written after element i
of that argument was last read)."""

_IN_PARALLEL = {"relax.scatter_elements", "relax.scatter_nd"}
"""Operators whose definitions TVM compiles for threads alone."""

Legalize = Callable[[tvm.IRModule], tvm.IRModule]
_UNNAMED = re.compile(r"(lv|gv)\d*")
_PATCH = re.compile(re.escape(PATCH) + r"\d+$")


@dataclass(frozen=True)
class Tensor:
    """A tensor in memory.

    Attributes:
        name: A C identifier.
        shape: Its shape.
        dtype: Its dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Its size."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        function: The function's name.
        arguments: Names of tensors or constants.
        results: Names of the tensors that it writes.
        layer: The variable of the model that the result belongs to, for reports.
        inplace: The argument whose memory the result may take, or None.
    """

    function: str
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    layer: str
    inplace: str | None = None


@dataclass
class Program:
    """The whole model.

    Attributes:
        inputs: Names of the tensors that the caller fills.
        outputs: Names of the tensors that the caller reads.
        tensors: All tensors by name; several names may be views of one memory, see `views`.
        views: For a tensor that lies in another one's memory (reshaped, a slice of it, a part it is joined of) that tensor,
            and the bytes from its start.
        constants: Values by name; equal values appear once.
        steps: The calls in order.
        functions: The functions by name; equal functions appear once.
    """

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    views: dict[str, tuple[str, int]] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    functions: dict[str, tirx.PrimFunc] = field(default_factory=dict)

    def layers(self) -> dict[str, tuple[str, ...]]:
        """For each function the layers of the model that it computes, in order."""
        found: dict[str, tuple[str, ...]] = {}
        for step in self.steps:
            found[step.function] = (*found.get(step.function, ()), step.layer)
        return found

    def memory(self, name: str) -> str:
        """The tensor in whose memory `name` lies."""
        return self.place(name)[0]

    def place(self, name: str) -> tuple[str, int]:
        """The tensor in whose memory `name` lies, and at which byte."""
        offset = 0
        while name in self.views:
            name, more = self.views[name]
            offset += more
        return name, offset

    def is_whole(self, name: str) -> bool:
        """Whether a tensor takes all of the memory that it lies in."""
        memory, _ = self.place(name)
        return self.tensors[name].nbytes == self.tensors[memory].nbytes


def make_program(
    mod: tvm.IRModule, prefix: str, registers: Registers, legalize: Sequence[Legalize] = (), *, threads: bool = False
) -> Program:
    """Lower a model module to a program.

    Args:
        mod: A model module, parameters attached.
        prefix: Starts the name of every function.
        registers: Of the core, for scheduling what has no kernel.
        legalize: Passes of the target that replace operators by its own kernels; what they leave gets its generic definition.
        threads: Whether functions may run on several threads.

    Raises:
        UserError: An operator has no definition that can be compiled.
    """
    bare, params = detach_params(mod)
    tensors = {name: tvm.runtime.tensor(value) for name, value in params.items()}
    bound, originals = with_plain_names(relax.transform.BindParams("main", tensors)(bare))
    passes = [
        *legalize,
        FuseStoredWeights(),
        LayOutWeights(),
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.FoldConstant(),
        PermutationsToReshapes(),
        SlicesToViews(),
        relax.transform.LegalizeOps(LEGALIZE, skip_ops=sorted({*VIEWS, *_IN_PARALLEL})),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
    ]
    with tvm.transform.PassContext(opt_level=3):
        grouped = tvm.transform.Sequential(passes)(bound)
        lowered = relax.transform.FuseTIR()(grouped)
        lowered = relax.transform.DeadCodeElimination(["main"])(lowered)
    return _Builder(lowered, prefix, registers, _layer_names(grouped), originals, threads).build()


def _layer_names(mod: tvm.IRModule) -> dict[str, str]:
    """For each group of fused operators the variable of the last one; FuseTIR loses it."""
    names = {}
    for var, func in mod.functions.items():
        if isinstance(func, relax.Function) and var.name_hint != "main":
            named = [bound.name for bound, _ in bindings(func) if not _UNNAMED.fullmatch(bound.name)]
            if named:
                names[var.name_hint] = named[-1]
    return names


class _Builder:
    def __init__(
        self,
        mod: tvm.IRModule,
        prefix: str,
        registers: Registers,
        layers: Mapping[str, str],
        originals: Mapping[str, str],
        threads: bool,
    ) -> None:
        self._mod = mod
        self._threads = threads
        self._registers = registers
        self._layers = layers
        self._originals = originals
        self._unscheduled: dict[str, tirx.PrimFunc] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._main: relax.Function = mod["main"]
        self._prefix = prefix
        self._program = Program()
        self._names: dict[relax.Var, str | tuple[str, ...]] = {}
        self._function_names: dict[tvm.ir.GlobalVar, str] = {}

    def build(self) -> Program:
        program = self._program
        for var in input_vars(self._main):
            name = self._tensor(f"input{len(program.inputs)}", var.ty)
            program.inputs.append(name)
            self._names[var] = name
        for var, value in bindings(self._main):
            self._names[var] = self._bind(var, value)
        result = self._value(self._main.body.body)
        outputs = [result] if isinstance(result, str) else list(result)
        for name in outputs:
            program.outputs.append(self._own(name))
        return program

    def _own(self, name: str) -> str:
        """An output that is a tensor of its own: not a constant, not an input, not returned twice."""
        program = self._program
        memory = program.memory(name)
        taken = [program.memory(known) for known in [*program.outputs, *program.inputs]]
        if name in program.constants or memory in taken:
            raise UserError("an output of the model is a constant, an input or another output; remove it from the model")
        return name

    def _bind(self, var: relax.Var, value: relax.Expr) -> str | tuple[str, ...]:
        if not isinstance(value, relax.Call):
            return self._value(value)
        op = getattr(value.op, "name", "")
        if op in VIEWS:
            source = self._value(value.args[0])
            assert isinstance(source, str)
            name = self._tensor(f"t{len(self._program.tensors)}", var.ty)
            self._program.views[name] = (source, 0)
            self._name_layer(source, var.name)
            return name
        if op == PART:
            source = self._value(value.args[0])
            assert isinstance(source, str)
            name = self._tensor(f"t{len(self._program.tensors)}", var.ty)
            self._program.views[name] = (source, int(value.attrs.offset))
            return name
        if op == JOIN:
            return self._join(var, value)
        if op != "relax.call_tir":
            raise UserError(f"operator {op or value.op} at '{var.name}' cannot be compiled ahead of time")
        function = value.args[0]
        arguments: list[str] = []
        for arg in value.args[1].fields:
            argument = self._value(arg)
            assert isinstance(argument, str)
            arguments.append(argument)
        types = list(var.ty.fields) if isinstance(var.ty, relax.TupleType) else [var.ty]
        results = tuple(self._tensor(f"t{len(self._program.tensors)}", ty) for ty in types)
        called = self._function(function)
        index = self._inplace(called)
        self._program.steps.append(
            Step(
                function=called,
                arguments=tuple(arguments),
                results=results,
                layer=self._layer(self._layers.get(function.name_hint, var.name)),
                inplace=arguments[index] if index is not None else None,
            )
        )
        return results[0] if not isinstance(var.ty, relax.TupleType) else results

    def _join(self, var: relax.Var, value: relax.Call) -> str:
        """A tensor that is nothing but the memory that its parts were written to."""
        name, offset = self._tensor(f"t{len(self._program.tensors)}", var.ty), 0
        for field_ in value.args[0].fields:
            part = self._value(field_)
            assert isinstance(part, str)
            self._program.views[self._program.memory(part)] = (name, offset)
            offset += self._program.tensors[part].nbytes
        return name

    def _value(self, expr: relax.Expr) -> str | tuple[str, ...]:
        if isinstance(expr, relax.Var):
            return self._names[expr]
        if isinstance(expr, Constant):
            return self._constant(expr.value.numpy())
        if isinstance(expr, relax.Tuple):
            return tuple(str(self._value(part)) for part in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self._value(expr.tuple_value)[int(expr.index)]
        raise UserError(f"{type(expr).__name__} {expr} cannot be compiled ahead of time")

    def _tensor(self, name: str, ty: relax.Type) -> str:
        if not isinstance(ty, relax.TensorType):
            raise UserError(f"a value of type {ty} cannot be compiled ahead of time")
        shape = tuple(int(dim) for dim in ty.shape)
        self._program.tensors[name] = Tensor(name, shape, str(ty.dtype))
        return name

    def _constant(self, value: np.ndarray) -> str:
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant{len(self._constants)}"
            self._program.constants[self._constants[key]] = value
        return self._constants[key]

    def _function(self, var: tvm.ir.GlobalVar) -> str:
        if var in self._function_names:
            return self._function_names[var]
        func = self._mod[var].without_attr("global_symbol")
        for name, known in self._unscheduled.items():
            if tvm_ffi.structural_equal(known, func, map_free_vars=True):
                self._function_names[var] = name
                return name
        name = f"{self._prefix}_{var.name_hint}"
        self._function_names[var] = name
        self._unscheduled[name] = func
        self._program.functions[name] = schedule(func, self._registers)
        return name

    def _inplace(self, name: str) -> int | None:
        func = self._program.functions[name]
        if self._threads and any(map(is_parallel, find(func.body, tirx.For))):
            # One thread may read what another one has overwritten, where their rounds overlap.
            return None
        if func.attrs is not None and INPLACE_ATTR in func.attrs:
            return int(func.attrs[INPLACE_ATTR])
        return inplace_argument(func)

    def _name_layer(self, source: str, name: str) -> None:
        """Kernels compute flat tensors; it is the view of the result that bears the layer's name."""
        steps = self._program.steps
        if steps and source in steps[-1].results and _UNNAMED.fullmatch(steps[-1].layer):
            steps[-1] = replace(steps[-1], layer=self._layer(name))

    def _layer(self, name: str) -> str:
        """The layer of a variable, as the model calls it; of a patch that which it belongs to."""
        return _PATCH.sub("", self._originals.get(name, name))
