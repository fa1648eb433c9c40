"""Integer layers that have no kernel, with their constants rearranged when the model is compiled.

The generic definitions subtract the input's zero point from every element and read weights across output channels with a
stride. Here the zero point goes into the bias,

    sum((x - z) * w) + b  =  sum(x * w) + (b - z * sum(w))

which also holds at the border, since padding is z; and weights lie with the output channels last, next to one another in
the order in which a tile of outputs reads them. What is left is one multiplication of sign-extended bytes, for which
vector units have an instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm.relax.expr_functor import PyExprMutator, mutator

from ...passes._tvm import Constant, relax, te, tvm
from ...passes.graph.module_params import static_shape
from ...passes.integer.conv import te_epilogue, te_window_sums, weight_as_oi
from ...passes.integer.registry import PREFIX
from ...passes.plugins.registry import Registry
from .rewrite import rewrite_main


@tvm.transform.module_pass(opt_level=0, name="LayOutWeights")
class LayOutWeights:
    """Replace `qconv2d`, `qdepthwise` and `qdense` with constant weights; parameters must be bound."""

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        return rewrite_main(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        define = _DEFINITIONS.get(getattr(call.op, "name", ""))
        if define is None or not all(isinstance(arg, Constant) for arg in call.args[1:]):
            return call
        weight, bias, multiplier, shift = (arg.value.numpy() for arg in call.args[1:])
        sums = weight_as_oi(call, weight).astype(np.int64).sum(1)
        folded = bias.astype(np.int64) - int(call.attrs.input_zero_point) * sums
        if np.abs(folded).max(initial=0) >= 1 << 31:
            return call
        laid_out, expression = define(call, weight)
        constants = [laid_out, folded.astype(np.int32), multiplier, shift]
        args = [relax.const(np.ascontiguousarray(value)) for value in constants]
        name = str(call.op.name).removeprefix(PREFIX)
        return self.builder_.call_te(expression, call.args[0], *args, primfunc_name_hint=name)


Expression = Callable[..., Any]

_DEFINITIONS: Registry[Callable[[relax.Call, np.ndarray], tuple[np.ndarray, Expression]]] = Registry(
    "layout of weights", prefix=PREFIX
)
"""For each operator the weights as they lie, and the expression that reads them."""


@_DEFINITIONS.register("qconv2d")
def _convolution(call: relax.Call, weight: np.ndarray) -> tuple[np.ndarray, Expression]:
    return weight.transpose(1, 2, 3, 0), _windows(call, "qconv2d", "conv", weight.shape[1:3], weight.shape[3])


@_DEFINITIONS.register("qdepthwise")
def _depthwise(call: relax.Call, weight: np.ndarray) -> tuple[np.ndarray, Expression]:
    return weight[0], _windows(call, "qdepthwise", "depthwise", weight.shape[1:3], None)


def _windows(call: relax.Call, function: str, name: str, kernel: Sequence[int], depth: int | None) -> Expression:
    """A convolution on weights (KH, KW, depth, O), or (KH, KW, O)."""
    attrs = call.attrs

    def define(x: Any, w: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
        def product(value: Any, k: Any, *place: Any) -> Any:
            return value.astype("int32") * w(*place, k).astype("int32")

        zero = int(attrs.input_zero_point)
        acc = te_window_sums(x, attrs, static_shape(call), kernel, product, name, depth=depth, fill=zero)
        return te_epilogue(acc, bias, multiplier, shift, attrs)

    define.__name__ = function
    return define


@_DEFINITIONS.register("qdense")
def _dense(call: relax.Call, weight: np.ndarray) -> tuple[np.ndarray, Expression]:
    shape = static_shape(call)

    def qdense(x: Any, w: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
        depths = te.reduce_axis((0, weight.shape[1]), "k")

        def element(*index: Any) -> Any:
            value = x(*index[:-1], depths).astype("int32")
            return te.sum(value * w[depths, index[-1]].astype("int32"), axis=depths)

        return te_epilogue(te.compute(shape, element, name="dense"), bias, multiplier, shift, call.attrs)

    return weight.T, qdense
