"""3x3 convolutions of stride 1 of floats by Winograd's minimal filtering F(4x4, 3x3).

Sixteen outputs of a square are made from the 6x6 inputs d around it by 36 products for each input channel, where the
definition takes 144 (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016): A'[(G g G') * (B' d B)]A. The
points at which polynomials are multiplied are 0, +-3/4, +-3/2 and infinity: all entries of A and B are exact in binary, and
the error is a third of that of the usual 0, +-1, +-2: 1e-6 to 3e-6 of the largest result, where direct sums have 2e-7 to 4e-7.

The operator `tvmcompress.x86_winograd` computes `nn.conv2d` on (N, H, W, C) from transformed weights
(6, 6, O / block, C, block). Its blocks are the padded input, both steps of its transform, 36 matrix products over the tiles
and both steps of the way back; `..winograd` schedules them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....passes._tvm import relax, te, tirx
from ....passes.graph.module_params import static_shape
from ....passes.integer.conv import output_sizes
from ....passes.integer.registry import make_call, register_operator, tensor_type
from .floating import float_annotations

WINOGRAD_ANNOTATION = "x86.winograd"
"""Annotation of the products' block."""

TILE, KERNEL = 4, 3
"""Outputs of a tile, and taps, along one axis."""
PLACES = TILE + KERNEL - 1

MOST_ERROR = 1e-4
"""Of the largest result of a channel; where a sample has more, the convolution is computed as it is defined."""

_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
_LEAST_CHANNELS = 16
_LEAST_GAIN = 2.0
"""Products of the definition for each one here; tiles that reach over the border do needless ones."""
_MOST_BYTES = 16 << 20
"""Of transformed weights: four times those of the others, and read anew for every image."""
_SECOND_CACHE, _LEAST_TILES = 1 << 20, 9
"""Weights that stay in no second-level cache need so many tiles to be multiplied with."""
_SAMPLE = 4
_LEAST_NUMBER = 1e-30


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A' (4, 6), G (6, 3) and B' (6, 6) by Toom and Cook."""
    points = np.array(_POINTS)
    back = np.array([[*points**row, float(row == TILE - 1)] for row in range(TILE)])
    weights, inputs = np.zeros((PLACES, KERNEL)), np.zeros((PLACES, PLACES))
    for index, point in enumerate(points):
        others = np.delete(points, index)
        weights[index] = point ** np.arange(KERNEL) / np.prod(point - others)
        inputs[index, :-1] = np.poly(others)[::-1]
    weights[-1, -1] = 1.0
    inputs[-1] = np.poly(points)[::-1]
    return back, weights, inputs


BACK, WEIGHTS, INPUTS = _matrices()


def tiles_of(rows: int, columns: int) -> tuple[int, int]:
    """Tiles down and across that cover a result."""
    return -(-rows // TILE), -(-columns // TILE)


def winograd_pays(weight: np.ndarray, result: Sequence[int]) -> bool:
    """Whether it takes less time than the definition, and its error is small enough.

    Args:
        weight: float32 (KH, KW, C, O) of a convolution of stride 1 without groups.
        result: (N, H, W, O).
    """
    kh, kw, c, o = weight.shape
    if (kh, kw) != (KERNEL, KERNEL) or min(c, o) < _LEAST_CHANNELS or c % 8 or o % 8:
        return False
    rows, columns = result[1:3]
    tiles = math.prod(tiles_of(rows, columns))
    size = PLACES**2 * c * o * weight.itemsize
    gain = rows * columns * KERNEL**2 / (tiles * PLACES**2)
    if gain < _LEAST_GAIN or size > _MOST_BYTES or (size > _SECOND_CACHE and tiles < _LEAST_TILES):
        return False
    return bool(sample_error(weight) <= MOST_ERROR)


def transform_weights(weight: np.ndarray, block: int) -> np.ndarray:
    """float32 (3, 3, C, O), O a multiple of `block`, as (6, 6, O / block, C, block)."""
    *_, c, o = weight.shape
    transformed = np.einsum("xi,yj,ijco->xyco", WEIGHTS, WEIGHTS, weight.astype(np.float64), optimize=True)
    blocks = transformed.reshape(PLACES, PLACES, c, o // block, block).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(blocks.astype(np.float32))


def sample_error(weight: np.ndarray) -> float:
    """The largest error of a result on some random tiles, in float32, as a share of its channel's largest result.

    Half of the tiles are normally distributed, half lie between 0 and 1, where channels that take differences lose most.

    Args:
        weight: float32 (3, 3, C, O).
    """
    *_, c, o = weight.shape
    random = np.random.default_rng(0)
    shape = (PLACES, PLACES, _SAMPLE // 2, c)
    x = np.concatenate([random.standard_normal(shape), random.random(shape)], axis=2).astype(np.float32)
    exact = np.zeros((TILE, TILE, _SAMPLE, o))
    for i in range(KERNEL):
        for j in range(KERNEL):
            exact += x[i : i + TILE, j : j + TILE].astype(np.float64) @ weight[i, j].astype(np.float64)
    u = transform_weights(weight, o).reshape(PLACES, PLACES, c, o)
    there, back = INPUTS.astype(np.float32), BACK.astype(np.float32)
    v = np.einsum("yj,xjtc->xytc", there, np.einsum("xi,ijtc->xjtc", there, x))
    found = np.einsum("bj,ajto->abto", back, np.einsum("ai,ijto->ajto", back, v @ u))
    largest = np.maximum(np.abs(exact).max((0, 1, 2)), _LEAST_NUMBER)
    return float((np.abs(found - exact).max((0, 1, 2)) / largest).max())


def x86_winograd(x: relax.Expr, transformed: relax.Expr, attrs: Any, lanes: int) -> relax.Call:
    """The convolution.

    Args:
        x: float32 (N, H, W, C).
        transformed: From `transform_weights`.
        attrs: Of the `nn.conv2d` that it stands for.
        lanes: `lanes_of` what is compiled for.
    """
    return make_call(_WINOGRAD, [x, transformed], padding=list(attrs.padding), strides=[1, 1], dilation=[1, 1], lanes=lanes)


def _infer(call: relax.Call) -> relax.TensorType:
    n, *size, _ = static_shape(call.args[0])
    *_, blocks, _, block = static_shape(call.args[1])
    return tensor_type((n, *output_sizes(call, size, (KERNEL, KERNEL)), blocks * block), "float32")


def _define(call: relax.Call, x: Any, weight: Any) -> Any:
    _, h, w, c = static_shape(call.args[0])
    *_, block = static_shape(call.args[1])
    n, rows, columns, o = (int(dim) for dim in _infer(call).shape)
    down, across = tiles_of(rows, columns)
    top, left, _, _ = (int(pad) for pad in call.attrs.padding)

    def pixel(b: Any, i: Any, j: Any, k: Any) -> Any:
        inside = tirx.all(i >= top, i < top + h, j >= left, j < left + w)
        return tirx.if_then_else(inside, x[b, i - top, j - left, k], tirx.const(0.0, "float32"))

    sizes = (n, down * TILE + KERNEL - 1, across * TILE + KERNEL - 1, c)
    padded = te.compute(sizes, pixel, name="padded")

    def of_columns(b: Any, tile: Any, next_tile: Any, place: Any, j: Any, k: Any) -> Any:
        pixels = [padded[b, tile * TILE + i, next_tile * TILE + j, k] for i in range(PLACES)]
        return _sum_by(INPUTS, place, pixels)

    half = te.compute((n, down, across, PLACES, PLACES, c), of_columns, name="half_transformed")

    def of_rows(i: Any, place: Any, b: Any, tile: Any, next_tile: Any, k: Any) -> Any:
        return _sum_by(INPUTS, place, [half[b, tile, next_tile, i, j, k] for j in range(PLACES)])

    tiles = te.compute((PLACES, PLACES, n, down, across, c), of_rows, name="transformed")
    depth = te.reduce_axis((0, c), "ic")

    def product(i: Any, j: Any, b: Any, tile: Any, next_tile: Any, k: Any) -> Any:
        factor = weight[i, j, k // block, depth, k % block]
        return te.sum(tiles[i, j, b, tile, next_tile, depth] * factor, axis=[depth])

    attrs = {WINOGRAD_ANNOTATION: 1, **float_annotations(call, block)}
    products = te.compute((PLACES, PLACES, n, down, across, o), product, name="products", attrs=attrs)

    def back(b: Any, tile: Any, next_tile: Any, row: Any, j: Any, k: Any) -> Any:
        return _sum_by(BACK, row, [products[i, j, b, tile, next_tile, k] for i in range(PLACES)])

    half_back = te.compute((n, down, across, TILE, PLACES, o), back, name="half_back")

    def output(b: Any, row: Any, column: Any, k: Any) -> Any:
        values = [half_back[b, row // TILE, column // TILE, row % TILE, j, k] for j in range(PLACES)]
        return _sum_by(BACK, column % TILE, values)

    return te.compute((n, rows, columns, o), output, name="outputs")


def _sum_by(matrix: np.ndarray, row: Any, values: list[Any]) -> Any:
    """The values times one row of a matrix; which one is known when the loop over it is unrolled."""
    sums = [_combined(factors, values) for factors in matrix]
    chosen = sums[-1]
    for index in range(len(sums) - 2, -1, -1):
        chosen = tirx.Select(row == index, sums[index], chosen)
    return chosen


def _combined(factors: np.ndarray, values: list[Any]) -> Any:
    total = None
    for factor, value in zip(factors, values, strict=True):
        if factor:
            term = value if factor == 1 else value * tirx.const(float(factor), "float32")
            total = term if total is None else total + term
    return total


_WINOGRAD = register_operator("x86_winograd", 2, "Float 3x3 convolution by minimal filtering, for x86", _infer, _define)
