"""Replacing integer operators by kernels: what all families of cores that build ahead of time share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.relax.expr_functor import PyExprMutator, mutator

from ...passes._tvm import Constant, relax, tirx, tvm
from ...passes.graph.module_params import static_shape
from ...passes.graph.rebuild import bindings, users
from ...passes.integer.registry import PREFIX, dtype_of
from ..aot.lower import LLVM_OPTIONS_ATTR
from ..aot.rewrite import rewrite_main
from .decisions import Choice, Decide, Decisions
from .layers import NotRepresentable
from .spare_memory import alive_memory, spare_memory

NO_STRENGTH_REDUCTION = "-disable-lsr:bool=true"
"""Mostly LLVM's loop strength reduction costs registers."""

_CONVOLUTION = f"{PREFIX}qconv2d"


def use_kernels(mod: tvm.IRModule, makers: Makers, spare: bool = True) -> tvm.IRModule:
    """Replace the operators of `main` for which `makers` make a kernel.

    The maker of a convolution takes the bytes of workspace that it may use as its second argument, and as its third one a
    `qadd`, which it may compute as well: the name of its kernel then starts with "conv2d_add".

    Args:
        mod: Parameters are bound.
        makers: By the name of the operator.
        spare: Whether kernels may take workspace for speed alone, see `spare_memory`.
    """
    return rewrite_main(mod, _Rewriter(mod, makers, spare))


@dataclass(frozen=True)
class Site:
    """A place in a model where a kernel's maker decides something.

    Attributes:
        choice: What it decides.
        call: The operator.
        addition: The sum that is computed with it.
        make: The kernel as is decided.
        count: How often the model computes it.
        alive: Bytes of tensors that are alive meanwhile, without an output that may lie where the input lies.
    """

    choice: Choice
    call: relax.Call
    addition: relax.Call | None
    make: Callable[[Decide], Kernel | None]
    count: int = 1
    alive: int = 0


@dataclass(frozen=True)
class Kernel:
    """A function with its constants.

    Attributes:
        name: Starts the function's name.
        func: The function.
        constants: Its constants.
        options: The LLVM options that it is compiled with, separated by spaces.
        repeat: Whether the tensor and the last constant are given a second time, for parameters that are not read.
    """

    name: str
    func: tirx.PrimFunc
    constants: list[np.ndarray]
    options: str = NO_STRENGTH_REDUCTION
    repeat: bool = False


class _Asked(NotRepresentable):
    """What a survey takes in place of a decision."""

    def __init__(self, choice: Choice) -> None:
        super().__init__("nothing is decided yet")
        self.choice = choice


def survey_kernels(mod: tvm.IRModule, makers: Callable[[Decide], Makers], spare: bool = True) -> list[Site]:
    """The sites of `main`, in order; equal ones once.

    Args:
        mod: Parameters are bound.
        makers: Given who decides.
        spare: As of `use_kernels`.
    """

    def ask(call: relax.Call, choice: Choice) -> Decisions:
        raise _Asked(choice)

    asked: list[tuple[relax.Call, tuple[Any, ...], Choice]] = []
    asking = makers(ask)
    rewrite_main(mod, _Rewriter(mod, asking, spare, asked))
    memory = alive_memory(mod["main"])
    calls = [(var, value) for var, value in bindings(mod["main"]) if getattr(getattr(value, "op", None), "name", "") in asking]
    alive = {call_key(call): memory[var] - _bytes_in_place(call) for var, call in calls}
    counts = Counter(call_key(call) for _, call in calls)
    found: dict[tuple, Site] = {}
    for call, extra, choice in asked:
        # What is fused with a sum is asked for once more, as a whole.
        count = counts[call_key(call)]
        addition = next((part for part in extra if isinstance(part, relax.Call)), None)

        def make(decide: Decide, call: relax.Call = call, extra: tuple[Any, ...] = extra) -> Kernel | None:
            return makers(decide)[call.op.name](call, *extra)

        found[call_key(call)] = Site(choice, call, addition, make, count, alive[call_key(call)])
    return list(found.values())


Maker = Callable[..., Kernel | None]
Makers = Mapping[str, Maker]


@mutator
class _Rewriter(PyExprMutator):
    def __init__(
        self,
        mod: tvm.IRModule,
        makers: Makers,
        spare: bool,
        asked: list[tuple[relax.Call, tuple[Any, ...], Choice]] | None = None,
    ) -> None:
        super().__init__(mod)
        self._makers = makers
        self._asked = asked
        main = mod["main"]
        self._values = dict(bindings(main))
        self._readers = users(main)
        self._order = {var: index for index, var in enumerate(self._values)}
        self._spare = spare_memory(main) if spare else dict.fromkeys(self._values, 0)
        self._made: dict[tuple, Kernel | None] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        name = getattr(call.op, "name", "")
        if name in self._makers and not is_covered(call):
            return self.visit_expr_post_order(call)
        if name == f"{PREFIX}qadd":
            fused = self._convolution_and_sum(call)
            if fused is not None:
                return fused
        extra = [self._spare_at(call)] if name == _CONVOLUTION else []
        call = self.visit_expr_post_order(call)
        if name not in self._makers:
            return call
        kernel = self._kernel(call, *extra)
        if kernel is None:
            return call
        tensors = [self._flat(arg) for arg in call.args if not isinstance(arg, Constant)]
        constants = [relax.const(value) for value in kernel.constants]
        args = [*tensors, *constants]
        if kernel.repeat:
            args += [tensors[0], constants[-1]]
        return self._call(kernel, args, static_shape(call))

    def _convolution_and_sum(self, call: relax.Call) -> relax.Expr | None:
        """A sum fused into the convolution that makes one of its operands, for no one else, after the other one."""
        for index in (1, 0):
            own, other = call.args[index], call.args[1 - index]
            conv = self._values.get(own)
            made_last = self._order.get(other, -1) < self._order.get(own, -1)
            if not (isinstance(conv, relax.Call) and getattr(conv.op, "name", "") == _CONVOLUTION and made_last):
                continue
            if not is_covered(conv):
                continue
            if len(self._readers[own]) != 1 or own.same_as(other):
                continue
            kernel = self._kernel(conv, self._spare[own], _swapped(call) if index == 1 else call)
            if kernel is None or not kernel.name.startswith("conv2d_add"):
                continue
            *own_constants, table = (relax.const(value) for value in kernel.constants)
            x, skip = self._flat(self.visit_expr(conv.args[0])), self._flat(self.visit_expr(other))
            return self._call(kernel, [x, *own_constants, skip, table], static_shape(call))
        return None

    def _kernel(self, call: relax.Call, *extra: int | relax.Call) -> Kernel | None:
        """The kernel of a call, given what else its maker takes; equal calls on the same constants share one."""
        key = tuple(call_key(part) if isinstance(part, relax.Call) else part for part in (call, *extra))
        if key not in self._made:
            try:
                self._made[key] = self._makers[call.op.name](call, *extra)
            except NotRepresentable as error:
                self._made[key] = None
                if isinstance(error, _Asked) and self._asked is not None:
                    self._asked.append((call, extra, error.choice))
        return self._made[key]

    def _spare_at(self, call: relax.Call) -> int:
        return next((self._spare[var] for var, value in self._values.items() if value.same_as(call)), 0)

    def _flat(self, tensor: relax.Expr) -> relax.Expr:
        return self.builder_.emit(relax.op.reshape(tensor, (int(np.prod(static_shape(tensor))),)))

    def _call(self, kernel: Kernel, args: list[relax.Expr], shape: tuple[int, ...]) -> relax.Expr:
        func = kernel.func.with_attr(LLVM_OPTIONS_ATTR, kernel.options) if kernel.options else kernel.func
        # Opaque to fusion: the body is a loop nest of its own, not a block.
        function = self.builder_.add_func(func.with_attr("op_pattern", 8), kernel.name)
        out_type = relax.TensorType((int(np.prod(shape)),), "int8")
        result = self.builder_.emit(relax.call_tir(function, relax.Tuple(args), out_ty=out_type))
        return relax.op.reshape(result, shape)


def call_key(call: relax.Call) -> tuple:
    """What a kernel depends on."""
    constants = (arg for arg in call.args if isinstance(arg, Constant))
    return call.op.name, *map(static_shape, call.args), str(call.attrs), *constants


def is_covered(call: relax.Call) -> bool:
    """Whether a call has batch 1 and int8 tensors."""
    tensors = [call, *(arg for arg in call.args if not isinstance(arg, Constant))]
    return static_shape(call)[:1] == (1,) and all(dtype_of(tensor) == "int8" for tensor in tensors)


def _bytes_in_place(call: relax.Call) -> int:
    """Bytes of an output that kernels write where the input lies: each pixel is read once, or kept aside."""
    name = getattr(call.op, "name", "")
    pointwise = name == _CONVOLUTION and static_shape(call.args[1])[1:3] == (1, 1)
    if not (pointwise or name == f"{PREFIX}qdepthwise") or static_shape(call) != static_shape(call.args[0]):
        return 0
    return int(np.prod(static_shape(call)))


def _swapped(call: relax.Call) -> relax.Call:
    """The same sum with its operands exchanged."""
    attrs = {str(key): value for key, value in call.attrs.items()}
    for name in ("zero_point", "multiplier", "shift"):
        one, two = f"input1_{name}", f"input2_{name}"
        attrs[one], attrs[two] = attrs[two], attrs[one]
    return relax.Call(call.op, [call.args[1], call.args[0]], tvm.ir.make_node("ir.DictAttrs", **attrs))
