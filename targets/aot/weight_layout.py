"""Integer layers that have no kernel, with their constants rearranged when the model is compiled.

The generic definitions subtract the input's zero point from every element and read weights across output channels with a
stride. Here the zero point goes into the bias,

    sum((x - z) * w) + b  =  sum(x * w) + (b - z * sum(w))

which also holds at the border, since padding is z; and weights lie with the output channels last, next to one another in
the order in which a tile of outputs reads them. What is left is one multiplication of sign-extended bytes, for which
vector units have an instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.relax.expr_functor import PyExprMutator, mutator

from ...passes._tvm import Constant, relax, te, tvm
from ...passes.graph.module_params import static_shape
from ...passes.integer.conv import te_epilogue, te_pad, weight_as_oi
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
    attrs = call.attrs
    shape = static_shape(call)
    outputs, kh, kw, depth = weight.shape
    per_group = outputs // int(attrs.groups)
    (sh, sw), (dh, dw) = attrs.strides, attrs.dilation

    def qconv2d(x: Any, w: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
        padded = te_pad(x, [int(pad) for pad in attrs.padding], int(attrs.input_zero_point))
        rows, cols = te.reduce_axis((0, kh), "kh"), te.reduce_axis((0, kw), "kw")
        depths = te.reduce_axis((0, depth), "ic")

        def element(n: Any, i: Any, j: Any, k: Any) -> Any:
            channel = depths if int(attrs.groups) == 1 else (k // per_group) * depth + depths
            value = padded[n, i * sh + rows * dh, j * sw + cols * dw, channel].astype("int32")
            return te.sum(value * w[rows, cols, depths, k].astype("int32"), axis=[rows, cols, depths])

        return te_epilogue(te.compute(shape, element, name="conv"), bias, multiplier, shift, attrs)

    return weight.transpose(1, 2, 3, 0), qconv2d


@_DEFINITIONS.register("qdepthwise")
def _depthwise(call: relax.Call, weight: np.ndarray) -> tuple[np.ndarray, Expression]:
    attrs = call.attrs
    shape = static_shape(call)
    _, kh, kw, outputs = weight.shape
    factor = outputs // static_shape(call.args[0])[3]
    (sh, sw), (dh, dw) = attrs.strides, attrs.dilation

    def qdepthwise(x: Any, w: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
        padded = te_pad(x, [int(pad) for pad in attrs.padding], int(attrs.input_zero_point))
        rows, cols = te.reduce_axis((0, kh), "kh"), te.reduce_axis((0, kw), "kw")

        def element(n: Any, i: Any, j: Any, k: Any) -> Any:
            channel = k if factor == 1 else k // factor
            value = padded[n, i * sh + rows * dh, j * sw + cols * dw, channel].astype("int32")
            return te.sum(value * w[rows, cols, k].astype("int32"), axis=[rows, cols])

        return te_epilogue(te.compute(shape, element, name="depthwise"), bias, multiplier, shift, attrs)

    return weight[0], qdepthwise


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
