"""Integer 3x3 convolutions of stride 1 by Winograd's minimal filtering F(2x2, 3x3), exactly, on products of 16-bit numbers.

Four outputs of a square are made from the 4x4 inputs around it by 16 products for each input channel, where the definition
takes 36. The matrix of the weights is multiplied by two, so that it has no fractions, and sums are four times those of the
definition. Along both axes, inputs without their zero point reach 4 * 255 and weights 9 * 128: both fit 16 bits, of which
vpmaddwd takes as many at a time as of 8-bit numbers without vpdpbusd, since it widens those. So it is used where the machine
has AVX2 alone.

The operator `tvmcompress.x86_qwinograd` computes what `qconv2d` computes, from weights (4, 4, O / 8, C / 2, 8, 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....passes._tvm import relax, te, tirx
from ....passes.graph.module_params import static_shape
from ....passes.integer.conv import output_sizes
from ....passes.integer.registry import register_operator, tensor_type
from .convolution import packed_call
from .intrinsics import DOT_ANNOTATION, MADD8
from .requantize import requantized
from .winograd import KERNEL, WINOGRAD_ANNOTATION, Filtering, filtered

INTEGERS = Filtering(
    back=np.array([[1, 1, 1, 0], [0, 1, -1, 1]]),
    weights=np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]),
    inputs=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]),
)

DOT = MADD8
"""The product."""

_SCALE_BITS = 2
"""Sums are four times too large."""
_LARGEST_INPUT = 4 * 255
_LEAST_CHANNELS = 16
_LEAST_GAIN = 1.6
_MOST_BYTES = 4 << 20


def transform_integers(weight: np.ndarray) -> np.ndarray:
    """int8 (O, 3, 3, C) as int16 (4, 4, O / 8, C / 2, 8, 2)."""
    o, _, _, c = weight.shape
    there = INTEGERS.weights
    transformed = np.einsum("xi,yj,oijc->xyoc", there, there, weight.astype(np.int64), optimize=True)
    blocks = transformed.reshape(*transformed.shape[:2], o // DOT.lanes, DOT.lanes, c // DOT.group, DOT.group)
    return np.ascontiguousarray(blocks.transpose(0, 1, 2, 4, 3, 5).astype(np.int16))


def integers_pay(weight: np.ndarray, result: Sequence[int]) -> bool:
    """Whether it takes less time than the definition, and all its sums fit int32.

    Args:
        weight: int8 (O, KH, KW, C) of a convolution of stride 1 without groups.
        result: (N, H, W, O).
    """
    o, kh, kw, c = weight.shape
    if (kh, kw) != (KERNEL, KERNEL) or min(c, o) < _LEAST_CHANNELS or c % 8 or o % DOT.lanes:
        return False
    places = INTEGERS.places**2
    if INTEGERS.gain(*result[1:3]) < _LEAST_GAIN or 2 * places * c * o > _MOST_BYTES:
        return False
    transformed = np.abs(transform_integers(weight).astype(np.int64)).sum((0, 1, 3, 5))
    # The way back adds up sums of all places, with signs.
    return int(transformed.max()) * _LARGEST_INPUT < 2**31


def x86_qwinograd(operands: list[relax.Expr], attrs: Any, forms: dict[str, bool]) -> relax.Call:
    """The operator.

    Args:
        operands: The input, int8 (N, H, W, C); weights by `transform_integers`; bias, multiplier and shift, int32 (O,).
        attrs: Of the `qconv2d` that it stands for.
        forms: `short_forms`.
    """
    return packed_call(_WINOGRAD, operands, attrs, kernel=(KERNEL, KERNEL), forms=forms, dot=DOT)


def _infer(call: relax.Call) -> relax.TensorType:
    n, *size, _ = static_shape(call.args[0])
    _, _, blocks, _, lanes, _ = static_shape(call.args[1])
    return tensor_type((n, *output_sizes(call, size, (KERNEL, KERNEL)), blocks * lanes), "int8")


def _define(call: relax.Call, x: Any, weight: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
    attrs, shape = call.attrs, _infer(call).shape
    _, _, _, pairs, lanes, group = static_shape(call.args[1])
    zero = tirx.const(int(attrs.input_zero_point), "int16")
    annotations = {WINOGRAD_ANNOTATION: 1, DOT_ANNOTATION: DOT.broadcast}

    def products(tiles: Any) -> Any:
        part, item = te.reduce_axis((0, pairs), "part"), te.reduce_axis((0, group), "item")

        def product(i: Any, j: Any, b: Any, tile: Any, next_tile: Any, k: Any) -> Any:
            value = tiles[i, j, b, tile, next_tile, part * group + item].astype("int32")
            return te.sum(value * weight[i, j, k // lanes, part, k % lanes, item].astype("int32"), axis=[part, item])

        return te.compute((*tiles.shape[:-1], shape[3]), product, name="products", attrs=annotations)

    outputs = filtered(x, INTEGERS, attrs, shape, products, lambda value: value.astype("int16") - zero, "int16")
    exact = te.compute(shape, lambda *i: tirx.shift_right(outputs(*i), tirx.const(_SCALE_BITS, "int32")), name="exact")
    return requantized(exact, shape, bias, multiplier, shift, attrs)


_WINOGRAD = register_operator("x86_qwinograd", 5, "Integer 3x3 convolution by minimal filtering, for x86", _infer, _define)
