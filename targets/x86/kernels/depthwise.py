"""Integer depthwise convolution with the rows of the kernel packed for a dot product instruction.

The operator `tvmcompress.x86_qdepthwise` computes what `qdepthwise` computes. Channels do not mix, so every lane needs
activations of its own: up to `group` rows of the input are packed into the bytes or halves of one int32 per pixel and
channel, once for each row of the output, and one instruction then multiplies a whole column of the kernel. A 3x3 kernel
takes three instructions for 8 or 16 channels with vpdpbusd, six with vpmaddwd.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ....passes._tvm import relax, te, tirx
from ....passes.graph.module_params import static_shape
from ....passes.integer.conv import output_sizes
from ....passes.integer.registry import register_operator, tensor_type
from .convolution import packed_call
from .intrinsics import DOT_ANNOTATION, DOTS, Dot, packed_product
from .requantize import requantized


def pack_depthwise(weight: np.ndarray, bias: np.ndarray, zero_point: int, dot: Dot) -> tuple[np.ndarray, np.ndarray]:
    """Prepare the operands.

    Args:
        weight: int8 (1, KH, KW, C).
        bias: int32 (C,).
        zero_point: Of the input.
        dot: The instruction.

    Returns:
        Weights (row groups, KW, C, group) and the bias with the zero point folded in.
    """
    _, kh, kw, c = weight.shape
    rows = np.pad(weight[0], ((0, -kh % dot.group), (0, 0), (0, 0)))
    packed = rows.reshape(-1, dot.group, kw, c).transpose(0, 2, 3, 1)
    folded = bias.astype(np.int64) - (zero_point + dot.offset) * weight.astype(np.int64).sum((0, 1, 2))
    return np.ascontiguousarray(packed.astype(dot.weight)), folded.astype(np.int32)


def x86_qdepthwise(operands: list[relax.Expr], attrs: Any, **options: Any) -> relax.Call:
    """The operator.

    Args:
        operands: The input, int8 (N, H, W, C); both from `pack_depthwise`; multiplier and shift, int32 (C,).
        attrs: Of the `qdepthwise` that it stands for.
        options: Those of `packed_call`.
    """
    return packed_call(_DEPTHWISE, operands, attrs, **options)


def _infer(call: relax.Call) -> relax.TensorType:
    n, *size, channels = static_shape(call.args[0])
    return tensor_type((n, *output_sizes(call, size, call.attrs.kernel), channels), "int8")


def _define(call: relax.Call, x: Any, weight: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
    attrs = call.attrs
    dot = DOTS[int(attrs.dot)]
    shape = _infer(call).shape
    n, h, w, c = static_shape(call.args[0])
    groups, kw, _, group = static_shape(call.args[1])
    kh = int(attrs.kernel[0])
    (sh, sw), (dh, dw) = attrs.strides, attrs.dilation
    top, left, _, right = (int(pad) for pad in attrs.padding)
    bits = 32 // group
    mask = (1 << bits) - 1
    border = int(attrs.input_zero_point) & mask
    # Flipping the top bit of a byte adds 128; of all bytes at a time, once they are together.
    flips = sum(dot.offset << (bits * index) for index in range(min(group, kh) if groups == 1 else group))

    def activation(b: Any, row: Any, j: Any, k: Any, place: int) -> Any:
        inside = tirx.all(row >= top, row < top + h, j >= left, j < left + w)
        value = x[b, row - top, j - left, k].astype("int32")
        placed = tirx.shift_left(tirx.bitwise_and(value, tirx.const(mask, "int32")), tirx.const(place, "int32"))
        # Shifted here: the simplifier refuses a constant whose shift reaches the sign.
        return tirx.if_then_else(inside, placed, tirx.const(_as_int32(border << place), "int32"))

    def word(b: Any, i: Any, q: Any, j: Any, k: Any) -> Any:
        # Rows beyond the kernel meet weights of zero and are left out.
        total = tirx.const(0, "int32")
        for index in range(group):
            row = i * sh + (q * group + index) * dh
            part = activation(b, row, j, k, bits * index)
            if groups == 1 and index >= kh:
                continue
            if groups * group > kh:
                part = tirx.if_then_else(q * group + index < kh, part, tirx.const(0, "int32"))
            total = tirx.bitwise_or(total, part)
        return tirx.bitwise_xor(total, tirx.const(_as_int32(flips), "int32")) if flips else total

    packed = te.compute((n, shape[1], groups, w + left + right, c), word, name="packed_rows")
    part, col = te.reduce_axis((0, groups), "part"), te.reduce_axis((0, kw), "kw")

    def element(b: Any, i: Any, j: Any, k: Any) -> Any:
        weights = [weight[part, col, k, index] for index in range(group)]
        return te.sum(packed_product(packed[b, i, part, j * sw + col * dw, k], weights, dot), axis=[part, col])

    acc = te.compute(shape, element, name="dot", attrs={DOT_ANNOTATION: dot.packed})
    return requantized(acc, shape, bias, multiplier, shift, attrs)


def _as_int32(bits: int) -> int:
    """The signed number of 32 bits."""
    return int(np.uint32(bits).astype(np.int32))


_DEPTHWISE = register_operator("x86_qdepthwise", 5, "Integer depthwise convolution, rows packed for x86", _infer, _define)
