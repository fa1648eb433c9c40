"""Integer layers on weights of which two of every four are stored: only what is stored is multiplied."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...passes._tvm import relax, te, tirx
from ...passes.graph.module_params import static_shape
from ...passes.integer.conv import accumulator_dtype, te_epilogue, te_pad
from ...passes.integer.registry import is_integer_op
from ...passes.numbers.sparsity_2_4 import GROUP, KEPT


def te_sparse_layer(call: relax.Call, x: Any, values: Any, indices: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
    """A `qconv2d` or `qdense` whose weight is `unpack_2of4` of values and indices, as a tensor expression.

    Args:
        call: The layer.
        x: Its input.
        values, indices: As of `unpack_2of4`.
        bias, multiplier, shift: As of the layer.
    """
    attrs = call.attrs
    zero, kind = int(attrs.input_zero_point), accumulator_dtype(attrs)
    outputs, *window, depth = static_shape(call.args[1])
    strides = [int(np.prod(window[i:])) * depth // GROUP for i in range(len(window) + 1)]
    axes = [te.reduce_axis((0, size), f"window{i}") for i, size in enumerate(window)]
    groups = te.reduce_axis((0, depth // GROUP), "group")
    source = te_pad(x, attrs.padding, zero) if window else x
    if is_integer_op(call, "qconv2d"):
        (sh, sw), (dh, dw) = ((int(v) for v in pair) for pair in (attrs.strides, attrs.dilation))
        per_group = outputs // int(attrs.groups)

    def element(*index: Any) -> Any:
        *position, k = index
        group = k * strides[0] + sum((axis * stride for axis, stride in zip(axes, strides[1:])), groups)
        code = tirx.shift_right(indices[group // 2].astype("int32"), (group % 2).astype("int32") * 4)
        if window:
            n, i, j = position
            position = [n, i * sh + axes[0] * dh, j * sw + axes[1] * dw]
            channel = groups * GROUP if per_group == outputs else k // per_group * depth + groups * GROUP
        else:
            channel = groups * GROUP

        def term(which: int) -> Any:
            place = tirx.bitwise_and(tirx.shift_right(code, tirx.const(2 * which, "int32")), tirx.const(3, "int32"))
            value = source[(*position, channel + place)].astype(kind) - tirx.const(zero, kind)
            return value * values[group * KEPT + which].astype(kind)

        return te.sum(term(0) + term(1), axis=[*axes, groups])

    return te_epilogue(te.compute(static_shape(call), element, name="sparse"), bias, multiplier, shift, attrs)
