"""Integer convolution and dense layer with weights packed for a dot product instruction.

The operator `tvmcompress.x86_qconv2d` computes what `qconv2d` computes, from operands prepared at compile time:

- Activations: the padded input, shifted to unsigned where the instruction wants it so. Where channels fill groups it is
  `(N, H, W, C)`; otherwise rows are flattened to `(N, H, W * C)` and the columns of a kernel are one run of bytes,
  whose last group reaches into the next pixels and meets weights of zero there.
- Weights: `(O / lanes, KH, KW, C / group, lanes, group)`, or flattened `(O / lanes, KH, 1, run / group, lanes, group)`;
  O padded to whole vectors. -
Bias: the zero point of the input and the shift to unsigned are folded in, so that the kernel is one plain dot product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ....passes._tvm import relax, te, tirx, tvm
from ....passes.graph.module_params import static_shape
from ....passes.integer.conv import output_sizes
from ....passes.integer.registry import make_call, register_operator, tensor_type
from ....passes.integer.requantization import requantization_of
from .intrinsics import DOT_ANNOTATION, DOTS, Dot
from .requantize import requantized
from .widths import padded_width

_ROW = 32
"""Elements of which flattened rows have a multiple."""


@dataclass(frozen=True)
class PackedWeights:
    """Operands of a kernel.

    Attributes:
        weight: (O / lanes, KH, KW, groups, lanes, group).
        bias: int32 (O,), zero point folded in.
        flat: Whether the columns of the kernel are one run.
    """

    weight: np.ndarray
    bias: np.ndarray
    flat: bool


def pack_weights(weight: np.ndarray, bias: np.ndarray, zero_point: int, dot: Dot, channels: int) -> PackedWeights:
    """Prepare the operands of a convolution.

    Args:
        weight: int8 (O, KH, KW, C).
        bias: int32 (O,).
        zero_point: Of the input.
        dot: The instruction.
        channels: O padded to whole vectors.
    """
    o, kh, kw, c = weight.shape
    flat = c % dot.group != 0
    rows = weight.reshape(o, kh, 1, kw * c) if flat else weight
    rest = -rows.shape[3] % dot.group
    rows = np.pad(rows, ((0, channels - o), (0, 0), (0, 0), (0, rest)))
    blocks = rows.reshape(channels // dot.lanes, dot.lanes, kh, rows.shape[2], -1, dot.group)
    groups = blocks.transpose(0, 2, 3, 4, 1, 5)
    # int64: the products may leave int32 on the way, their sum modulo 2**32 is what counts.
    folded = bias.astype(np.int64) - (zero_point + dot.offset) * weight.astype(np.int64).sum((1, 2, 3))
    folded = np.pad(folded, (0, channels - o)).astype(np.int32)
    return PackedWeights(np.ascontiguousarray(groups.astype(dot.weight)), folded, flat)


def x86_qconv2d(operands: list[relax.Expr], attrs: Any, *, flat: bool, **options: Any) -> relax.Call:
    """The operator.

    Args:
        operands: The input, int8 (N, H, W, C); `PackedWeights.weight` and `.bias`; multiplier and shift, int32 (O,), padded
            like the bias.
        attrs: Of the `qconv2d` that it stands for.
        flat: `PackedWeights.flat`.
        options: Those of `packed_call`.
    """
    return packed_call(_CONV, operands, attrs, flat=flat, **options)


def packed_call(
    op: tvm.ir.Op,
    operands: list[relax.Expr],
    attrs: Any,
    *,
    kernel: tuple[int, int],
    forms: dict[str, bool],
    dot: Dot | None = None,
    **more: Any,
) -> relax.Call:
    """A call of an operator on packed weights.

    Args:
        op: The operator.
        operands: Input, weights, bias, multiplier, shift.
        attrs: Of the operator that it stands for.
        kernel: Rows, columns.
        forms: `short_forms`.
        dot: The instruction, where the operator is for several.
        more: Attributes of its own.
    """
    return make_call(
        op,
        operands,
        strides=list(attrs.strides),
        padding=list(attrs.padding),
        dilation=list(attrs.dilation),
        kernel=kernel,
        **more,
        **forms,
        input_zero_point=attrs.input_zero_point,
        **requantization_of(attrs),
        max_shift=attrs.max_shift,
        **({} if dot is None else {"dot": DOTS.index(dot)}),
    )


def _infer(call: relax.Call) -> relax.TensorType:
    n, *size, _ = static_shape(call.args[0])
    blocks, *_, lanes, _ = static_shape(call.args[1])
    return tensor_type((n, *output_sizes(call, size, call.attrs.kernel), blocks * lanes), "int8")


def _define(call: relax.Call, x: Any, weight: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
    attrs = call.attrs
    dot = DOTS[int(attrs.dot)]
    shape = _infer(call).shape
    _, _, cols, groups, lanes, group = static_shape(call.args[1])
    kh = int(attrs.kernel[0])
    (sh, sw), (dh, dw) = attrs.strides, attrs.dilation
    c = static_shape(call.args[0])[3]
    flat = bool(attrs.flat)
    # Positions that fill up a tile are computed and not kept.
    n, rows, width, channels = shape
    more = padded_width(width) - width
    padded = padded_input(x, attrs, dot, slack=groups * group if flat else None, more=more * int(sw))
    row, col = te.reduce_axis((0, kh), "kh"), te.reduce_axis((0, cols), "kw")
    part, item = te.reduce_axis((0, groups), "part"), te.reduce_axis((0, group), "item")

    def element(n: Any, i: Any, j: Any, k: Any) -> Any:
        if flat:
            value = padded[n, i * sh + row * dh, j * (int(sw) * c) + part * group + item]
        else:
            value = padded[n, i * sh + row * dh, j * sw + col * dw, part * group + item]
        product = value.astype("int32") * weight[k // lanes, row, col, part, k % lanes, item].astype("int32")
        return te.sum(product, axis=[row, col, part, item])

    acc = te.compute((n, rows, width + more, channels), element, name="dot", attrs={DOT_ANNOTATION: dot.broadcast})
    return requantized(acc, shape, bias, multiplier, shift, attrs)


def padded_input(x: Any, attrs: Any, dot: Dot, slack: int | None = None, more: int = 0) -> Any:
    """The input with its border, as the instruction takes it.

    Args:
        x: int8 (N, H, W, C). attrs: With `padding` and `input_zero_point`. dot: The instruction. slack: None for (N, H,
        W, C); otherwise rows are flattened and a kernel may read so many elements from any pixel on. more: Columns on the
        right beyond the padding.
    """
    n, h, w, c = (int(dim) for dim in x.shape)
    top, left, bottom, right = (int(pad) for pad in attrs.padding)
    right += more
    border = tirx.const(int(attrs.input_zero_point) + dot.offset, dot.activation)

    def shifted(value: Any) -> Any:
        # Flipping the top bit adds 128.
        if dot.offset:
            return tirx.bitwise_xor(value.astype("uint8"), tirx.const(0x80, "uint8"))
        return value.astype(dot.activation)

    if slack is None:

        def pixel(b: Any, i: Any, j: Any, k: Any) -> Any:
            value = shifted(x[b, i - top, j - left, k])
            if not (top or left or bottom or right):
                return value
            inside = tirx.all(i >= top, i < top + h, j >= left, j < left + w)
            return tirx.if_then_else(inside, value, border)

        return te.compute((n, h + top + bottom, w + left + right, c), pixel, name="padded")

    # Whole vectors: elements of a row are otherwise written one by one.
    pitch = -(-((w + left + right) * c + slack) // _ROW) * _ROW

    def run(b: Any, i: Any, j: Any) -> Any:
        inside = tirx.all(i >= top, i < top + h, j >= left * c, j < (left + w) * c)
        place = j - left * c
        return tirx.if_then_else(inside, shifted(x[b, i - top, place // c, place % c]), border)

    return te.compute((n, h + top + bottom, pitch), run, name="padded")


_CONV = register_operator("x86_qconv2d", 5, "Integer convolution, weights packed for x86", _infer, _define)
