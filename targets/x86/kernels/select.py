"""Replace integer operators by those that have a kernel for x86, with their weights packed."""

from __future__ import annotations

import numpy as np

from ....passes._tvm import relax, tvm
from ....passes.integer.registry import is_integer_op
from ....passes.module_params import static_shape
from ....passes.rebuild import Rebuilder, rebuild
from .convolution import pack_weights, x86_qconv2d
from .intrinsics import best_dot


def select_kernels(mod: tvm.IRModule, features: frozenset[str]) -> tvm.IRModule:
    """Use the kernels of this package wherever one fits; other operators keep their generic definition.

    Args:
        mod: A model module with integer operators and its parameter values attached.
        features: The instruction sets to use, as `host.cpu_features` names them.
    """

    def rewrite(rebuilder: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if is_integer_op(value, "qconv2d"):
            return _convolution(rebuilder, var, value, features)
        return None

    return rebuild(mod, rewrite)


def _convolution(
    rebuilder: Rebuilder, var: relax.Var, call: relax.Call, features: frozenset[str]
) -> relax.Expr | None:
    weight, bias, multiplier, shift = (rebuilder.param_value(arg) for arg in call.args[1:])
    if weight is None or bias is None or multiplier is None or shift is None:
        return None
    o, kh, kw, c = weight.shape
    if int(call.attrs.groups) != 1:
        return None
    dot = best_dot(features, o)
    if c % dot.group and int(call.attrs.dilation[1]) != 1:
        # A run of columns has no gaps.
        return None
    channels = -(-o // dot.lanes) * dot.lanes
    packed = pack_weights(weight, bias, int(call.attrs.input_zero_point), dot, channels)
    name = var.name
    new = x86_qconv2d(
        rebuilder.get(call.args[0]),
        rebuilder.param(f"{name}.packed", packed.weight),
        rebuilder.param(f"{name}.folded_bias", packed.bias),
        rebuilder.param(f"{name}.multiplier", _padded(multiplier, channels)),
        rebuilder.param(f"{name}.shift", _padded(shift, channels)),
        call.attrs,
        dot=dot,
        kernel=(kh, kw),
        flat=packed.flat,
    )
    if channels == o:
        return new
    wide = rebuilder.emit(new, f"{name}.wide")
    n, h, w, _ = static_shape(wide)
    return relax.op.strided_slice(wide, [3], [0], [o])


def _padded(values: np.ndarray, channels: int) -> np.ndarray:
    return np.pad(values, (0, channels - values.size))
