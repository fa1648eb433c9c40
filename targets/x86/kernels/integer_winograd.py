"""Integer 3x3 convolutions of stride 1 by Winograd's minimal filtering, exactly, on products of 16-bit numbers.

F(2x2, 3x3) makes four outputs of a square from the 4x4 inputs around it by 16 products for each input channel, where the
definition takes 36; F(4x4, 3x3) sixteen from 6x6 by 36 instead of 144, on the points 0, +-1, +-2. The matrices have no
fractions: those of the weights and of the way back are multiplied by numbers that make sums four times, or 576 times, those
of the definition. Inputs without their zero point reach 255, both ways along an axis 4 * 255 or 100 * 255, and weights 9 * 128
or 49 * 128: all fit 16 bits, of which vpmaddwd takes as many at a time as of 8-bit numbers without vpdpbusd, since it widens
those. vpdpbusd takes twice as many bytes as vpdpwssd takes 16-bit numbers, so that beside it only the larger tile pays, where
there are channels enough to make up for the transforms.

Products summed over channels fit int32. The way back of F(4x4, 3x3) is computed modulo 2**32: 576 * y times the inverse of 9
is 64 * y, which fits and is shifted. TVM promises LLVM that no addition overflows; nothing here compares such numbers
or widens them before they are shifted, so that the promise lets LLVM do nothing else, and tests go to the extremes.

The operator `tvmcompress.x86_qwinograd` computes what `qconv2d` computes, from weights (4, 4, O / 8, C / 2, 8, 2) or
(6, 6, ...), or with sixteen in the place of eight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....passes._tvm import relax, te, tirx
from ....passes.graph.module_params import static_shape
from ....passes.integer.conv import output_sizes
from ....passes.integer.registry import register_operator, tensor_type
from .convolution import packed_call
from .intrinsics import DOT_ANNOTATION, DOTS, MADD8, MADD16, WORDS8, WORDS16, Dot
from .requantize import requantized
from .winograd import KERNEL, WINOGRAD_ANNOTATION, Filtering, filtered

INTEGERS = Filtering(
    back=np.array([[1, 1, 1, 0], [0, 1, -1, 1]]),
    weights=np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]),
    inputs=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]),
)
"""F(2x2, 3x3)."""
LARGE_INTEGERS = Filtering(
    back=np.array([[6, 4, 4, 1, 1, 0], [0, 4, -4, 2, -2, 0], [0, 4, 4, 4, 4, 0], [0, 4, -4, 8, -8, 24]]),
    weights=np.array([[1, 0, 0], [-1, -1, -1], [-1, 1, -1], [1, 2, 4], [1, -2, 4], [0, 0, 1]]),
    inputs=np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    ),
)
"""F(4x4, 3x3)."""

PRODUCTS = (MADD8, MADD16, WORDS8, WORDS16)
"""That it can be computed with."""
_TWICE = (WORDS8, WORDS16)
"""Those beside which the definition takes twice as many products at a time."""


@dataclass(frozen=True)
class _Exact:
    """A filtering without fractions. Its sums are too large: by 2**bits times an odd number.

    Attributes:
        filtering: It.
        bits: Of the power of two.
        inverse: Of the odd number, modulo 2**32.
        gain: The least `Filtering.gain` that is worth the transforms.
    """

    filtering: Filtering
    bits: int
    inverse: int
    gain: float


_EXACT = {6: _Exact(LARGE_INTEGERS, 6, pow(9, -1, 1 << 32), 2.4), 4: _Exact(INTEGERS, 2, 1, 1.6)}
"""By places, the best first."""
_TO_PLACES, _BACK = 125, 500
"""Instructions of both transforms that a lane of a tile takes at F(4x4, 3x3), requantization included, a half of them where two
numbers share a lane."""
_LARGEST_PIXEL = 255
_LEAST_CHANNELS = 16
_MOST_BYTES = 4 << 20


def transform_integers(weight: np.ndarray, filtering: Filtering, dot: Dot) -> np.ndarray:
    """int8 (O, 3, 3, C) as int16 (places, places, O / lanes, C / 2, lanes, 2)."""
    o, _, _, c = weight.shape
    there = filtering.weights
    transformed = np.einsum("xi,yj,oijc->xyoc", there, there, weight.astype(np.int64), optimize=True)
    blocks = transformed.reshape(*transformed.shape[:2], o // dot.lanes, dot.lanes, c // dot.group, dot.group)
    return np.ascontiguousarray(blocks.transpose(0, 1, 2, 4, 3, 5).astype(np.int16))


def filtering_of(weight: np.ndarray, result: Sequence[int], dot: Dot) -> Filtering | None:
    """The filtering that takes least time, None where that is the definition.

    Args:
        weight: int8 (O, KH, KW, C) of a convolution of stride 1 without groups.
        result: (N, H, W, O).
        dot: The product, one of `PRODUCTS`.
    """
    o, kh, kw, c = weight.shape
    if (kh, kw) != (KERNEL, KERNEL) or min(c, o) < _LEAST_CHANNELS or c % 8 or o % dot.lanes:
        return None
    for places, exact in _EXACT.items():
        gain = exact.filtering.gain(*result[1:3])
        if dot in _TWICE:
            # What products by the definition take more than these, against the transforms, which all other channels share.
            pays = places**2 * (gain / 4 - 1 / 2) > _TO_PLACES / o + _BACK / c
        else:
            pays = gain >= exact.gain
        if pays and 2 * places**2 * c * o <= _MOST_BYTES and _sums_fit(weight, exact, dot):
            return exact.filtering
    return None


def _sums_fit(weight: np.ndarray, exact: _Exact, dot: Dot) -> bool:
    """Whether the products of all channels, summed, fit int32, and so does what is shifted in the end."""
    filtering = exact.filtering
    transformed = np.abs(transform_integers(weight, filtering, dot).astype(np.int64)).sum((3, 5))
    along, back = np.abs(filtering.inputs).sum(1), np.abs(filtering.back)
    sums = transformed * np.outer(along, along)[..., None, None] * _LARGEST_PIXEL
    if exact.inverse == 1:  # not modulo 2**32
        sums = np.einsum("ax,by,xyoc->aboc", back, back, sums)
    shifted = np.abs(weight.astype(np.int64)).sum((1, 2, 3)).max() * _LARGEST_PIXEL << exact.bits
    return max(int(sums.max()), int(shifted)) < 2**31


def x86_qwinograd(operands: list[relax.Expr], attrs: Any, forms: dict[str, bool], dot: Dot) -> relax.Call:
    """The operator.

    Args:
        operands: The input, int8 (N, H, W, C); weights by `transform_integers`; bias, multiplier and shift, int32 (O,).
        attrs: Of the `qconv2d` that it stands for.
        forms: `short_forms`.
        dot: The product.
    """
    return packed_call(_WINOGRAD, operands, attrs, kernel=(KERNEL, KERNEL), forms=forms, dot=dot)


def _infer(call: relax.Call) -> relax.TensorType:
    n, *size, _ = static_shape(call.args[0])
    _, _, blocks, _, lanes, _ = static_shape(call.args[1])
    return tensor_type((n, *output_sizes(call, size, (KERNEL, KERNEL)), blocks * lanes), "int8")


def _define(call: relax.Call, x: Any, weight: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
    attrs, shape = call.attrs, _infer(call).shape
    places, _, _, pairs, lanes, group = static_shape(call.args[1])
    by = _EXACT[places]
    zero = tirx.const(int(attrs.input_zero_point), "int16")
    annotations = {WINOGRAD_ANNOTATION: 1, DOT_ANNOTATION: DOTS[int(attrs.dot)].broadcast}

    def products(tiles: Any) -> Any:
        part, item = te.reduce_axis((0, pairs), "part"), te.reduce_axis((0, group), "item")

        def product(i: Any, j: Any, b: Any, tile: Any, next_tile: Any, k: Any) -> Any:
            value = tiles[i, j, b, tile, next_tile, part * group + item].astype("int32")
            return te.sum(value * weight[i, j, k // lanes, part, k % lanes, item].astype("int32"), axis=[part, item])

        return te.compute((*tiles.shape[:-1], shape[3]), product, name="products", attrs=annotations)

    outputs = filtered(x, by.filtering, attrs, shape, products, lambda value: value.astype("int16") - zero, "int16")

    def exact(*i: Any) -> Any:
        inverse = tirx.const(np.uint32(by.inverse).astype(np.int32).item(), "int32")
        total = outputs(*i) if by.inverse == 1 else outputs(*i) * inverse
        return tirx.shift_right(total, tirx.const(by.bits, "int32"))

    exact_sums = te.compute(shape, exact, name="exact")
    return requantized(exact_sums, shape, bias, multiplier, shift, attrs)


_WINOGRAD = register_operator("x86_qwinograd", 5, "Integer 3x3 convolution by minimal filtering, for x86", _infer, _define)
