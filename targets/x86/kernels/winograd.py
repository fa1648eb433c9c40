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

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....passes._tvm import relax, te, tirx
from ....passes.graph.module_params import static_shape
from ....passes.integer.conv import output_sizes
from ....passes.integer.registry import make_call, register_operator, tensor_type
from .floating import float_annotations

WINOGRAD_ANNOTATION = "x86.winograd"
"""Annotation of the products' block."""

KERNEL = 3
"""Taps along one axis."""

MOST_ERROR = 1e-4
"""Of the largest result of a channel; where a sample has more, the convolution is computed as it is defined."""

_LEAST_CHANNELS = 16
_LEAST_GAIN = 2.0
_MOST_BYTES = 16 << 20
"""Of transformed weights: four times those of the others, and read anew for every image."""
_SECOND_CACHE, _LEAST_TILES = 1 << 20, 9
"""Weights that stay in no second-level cache need so many tiles to be multiplied with."""
_SAMPLE = 4
_LEAST_NUMBER = 1e-30


@dataclass(frozen=True)
class Filtering:
    """One of Winograd's algorithms F(tile x tile, 3 x 3), by its matrices along one axis.

    Attributes:
        back: A', (tile, places).
        weights: G, (places, 3).
        inputs: B', (places, places).
    """

    back: np.ndarray
    weights: np.ndarray
    inputs: np.ndarray

    @property
    def tile(self) -> int:
        """Outputs of a tile along one axis."""
        return int(self.back.shape[0])

    @property
    def places(self) -> int:
        """Inputs of a tile along one axis."""
        return int(self.back.shape[1])

    def tiles(self, rows: int, columns: int) -> tuple[int, int]:
        """Tiles down and across that cover a result."""
        return -(-rows // self.tile), -(-columns // self.tile)

    def gain(self, rows: int, columns: int) -> float:
        """Products of the definition for each one here; tiles that reach over the border do needless ones."""
        return rows * columns * KERNEL**2 / (math.prod(self.tiles(rows, columns)) * self.places**2)


def _by_points(points: Sequence[float]) -> Filtering:
    """By Toom and Cook, of infinity and these points."""
    tile, places = len(points) + 2 - KERNEL, len(points) + 1
    values = np.array(points)
    back = np.array([[*values**row, float(row == tile - 1)] for row in range(tile)])
    weights, inputs = np.zeros((places, KERNEL)), np.zeros((places, places))
    for index, point in enumerate(values):
        others = np.delete(values, index)
        weights[index] = point ** np.arange(KERNEL) / np.prod(point - others)
        inputs[index, :-1] = np.poly(others)[::-1]
    weights[-1, -1] = 1.0
    inputs[-1] = np.poly(values)[::-1]
    return Filtering(back, weights, inputs)


FLOATS = _by_points((0.0, 0.75, -0.75, 1.5, -1.5))


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
    tiles = math.prod(FLOATS.tiles(rows, columns))
    size = FLOATS.places**2 * c * o * weight.itemsize
    if FLOATS.gain(rows, columns) < _LEAST_GAIN or size > _MOST_BYTES or (size > _SECOND_CACHE and tiles < _LEAST_TILES):
        return False
    return bool(sample_error(weight) <= MOST_ERROR)


def transform_weights(weight: np.ndarray, block: int) -> np.ndarray:
    """float32 (3, 3, C, O), O a multiple of `block`, as (6, 6, O / block, C, block)."""
    o = weight.shape[3]
    there = FLOATS.weights
    transformed = np.einsum("xi,yj,ijco->xyco", there, there, weight.astype(np.float64), optimize=True)
    blocks = transformed.reshape(*transformed.shape[:3], o // block, block).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(blocks.astype(np.float32))


def sample_error(weight: np.ndarray) -> float:
    """The largest error of a result on some random tiles, in float32, as a share of its channel's largest result.

    Half of the tiles are normally distributed, half lie between 0 and 1, where channels that take differences lose most.

    Args:
        weight: float32 (3, 3, C, O).
    """
    *_, c, o = weight.shape
    random = np.random.default_rng(0)
    tile, places = FLOATS.tile, FLOATS.places
    shape = (places, places, _SAMPLE // 2, c)
    x = np.concatenate([random.standard_normal(shape), random.random(shape)], axis=2).astype(np.float32)
    exact = np.zeros((tile, tile, _SAMPLE, o))
    for i in range(KERNEL):
        for j in range(KERNEL):
            exact += x[i : i + tile, j : j + tile].astype(np.float64) @ weight[i, j].astype(np.float64)
    u = transform_weights(weight, o).reshape(places, places, c, o)
    there, back = FLOATS.inputs.astype(np.float32), FLOATS.back.astype(np.float32)
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
    c, block = static_shape(call.args[0])[3], static_shape(call.args[1])[-1]
    o = int(_infer(call).shape[3])
    attrs = {WINOGRAD_ANNOTATION: 1, **float_annotations(call, block)}

    def products(tiles: Any) -> Any:
        depth = te.reduce_axis((0, c), "ic")

        def product(i: Any, j: Any, b: Any, tile: Any, next_tile: Any, k: Any) -> Any:
            factor = weight[i, j, k // block, depth, k % block]
            return te.sum(tiles[i, j, b, tile, next_tile, depth] * factor, axis=[depth])

        return te.compute((*tiles.shape[:-1], o), product, name="products", attrs=attrs)

    return filtered(x, FLOATS, call.attrs, _infer(call).shape, products, lambda value: value, "float32")


def filtered(
    x: Any,
    filtering: Filtering,
    attrs: Any,
    result: Sequence[Any],
    products: Callable[[Any], Any],
    activation: Callable[[Any], Any],
    dtype: str,
) -> Any:
    """The blocks of a convolution by minimal filtering.

    Args:
        x: (N, H, W, C).
        filtering: The algorithm.
        attrs: With `padding`.
        result: (N, OH, OW, O).
        products: Of transformed tiles (places, places, N, tiles down, across, C), with O in the place of C.
        activation: Of an element of x, what is transformed; the border is 0.
        dtype: Of that.
    """
    _, h, w, c = (int(dim) for dim in x.shape)
    n, rows, columns, o = (int(dim) for dim in result)
    down, across = filtering.tiles(rows, columns)
    step, places = filtering.tile, filtering.places
    top, left, _, _ = (int(pad) for pad in attrs.padding)

    def pixel(b: Any, i: Any, j: Any, k: Any) -> Any:
        inside = tirx.all(i >= top, i < top + h, j >= left, j < left + w)
        value = activation(x[b, i - top, j - left, k])
        return tirx.if_then_else(inside, value, tirx.const(0, dtype))

    padded = te.compute((n, down * step + KERNEL - 1, across * step + KERNEL - 1, c), pixel, name="padded")

    def of_columns(b: Any, tile: Any, next_tile: Any, place: Any, j: Any, k: Any) -> Any:
        pixels = [padded[b, tile * step + i, next_tile * step + j, k] for i in range(places)]
        return _sum_by(filtering.inputs, place, pixels, dtype)

    half = te.compute((n, down, across, places, places, c), of_columns, name="half_transformed")

    def of_rows(i: Any, place: Any, b: Any, tile: Any, next_tile: Any, k: Any) -> Any:
        return _sum_by(filtering.inputs, place, [half[b, tile, next_tile, i, j, k] for j in range(places)], dtype)

    sums = products(te.compute((places, places, n, down, across, c), of_rows, name="transformed"))

    wide = str(sums.dtype)

    def back(b: Any, tile: Any, next_tile: Any, row: Any, j: Any, k: Any) -> Any:
        return _sum_by(filtering.back, row, [sums[i, j, b, tile, next_tile, k] for i in range(places)], wide)

    half_back = te.compute((n, down, across, step, places, o), back, name="half_back")

    def output(b: Any, row: Any, column: Any, k: Any) -> Any:
        values = [half_back[b, row // step, column // step, row % step, j, k] for j in range(places)]
        return _sum_by(filtering.back, column % step, values, wide)

    return te.compute((n, rows, columns, o), output, name="outputs")


def _sum_by(matrix: np.ndarray, row: Any, values: list[Any], dtype: str) -> Any:
    """The values times one row of a matrix; which one is known when the loop over it is unrolled."""
    sums = _sums_by(matrix, values, dtype)
    chosen = sums[-1]
    for index in range(len(sums) - 2, -1, -1):
        chosen = tirx.Select(row == index, sums[index], chosen)
    return chosen


def _sums_by(matrix: np.ndarray, values: list[Any], dtype: str) -> list[Any]:
    """The values times every row, in expressions that share what they can.

    Points +-p make two columns, or two rows, that differ in signs alone: such values are added and subtracted first, or sums of
    what such rows have in common and of what they have not come out of both of them.
    """
    size = np.abs(matrix)
    for first, second in itertools.combinations(range(matrix.shape[1]), 2):
        if (size[:, first] == size[:, second]).all() and size[:, first].sum() > 1:
            alike = matrix[:, first] == matrix[:, second]
            rest = [place for place in range(matrix.shape[1]) if place not in (first, second)]
            columns = [matrix[:, first] * alike, matrix[:, first] * ~alike, *matrix[:, rest].T]
            halves = [values[first] + values[second], values[first] - values[second]]
            return _sums_by(np.stack(columns, 1), [*halves, *(values[place] for place in rest)], dtype)
    partner = {
        row: other
        for row, other in itertools.permutations(range(len(matrix)), 2)
        if (size[row] == size[other]).all() and np.count_nonzero(matrix[row]) > 2
    }
    return [_combined(factors, values, matrix[partner.get(row, row)], dtype) for row, factors in enumerate(matrix)]


def _combined(factors: np.ndarray, values: list[Any], partner: np.ndarray, dtype: str) -> Any:
    """A sum: of the values whose factors a partner has, too, and of those of which it has the negatives."""
    parts = []
    for chosen in (factors == partner, factors != partner):
        places = [place for place in np.flatnonzero(factors) if chosen[place]]
        if places:
            # Up to its sign the same in both rows; a sum of one part begins with what is positive.
            sign = 1 if factors[places[-1]] > 0 or (factors == partner).all() else -1
            part = None
            for place in sorted(places, key=lambda place: bool(sign * factors[place] < 0)):
                part = _plus(part, values[place], sign * factors[place], dtype)
            parts.append((sign, part))
    total = None
    for sign, part in sorted(parts, key=lambda pair: -pair[0]):
        total = _plus(total, part, sign, dtype)
    return total


def _plus(total: Any, value: Any, factor: Any, dtype: str) -> Any:
    """total + value * factor."""
    assert total is not None or factor > 0, "a sum begins with a positive factor"
    size = abs(factor)
    term = value if size == 1 else value * tirx.const(np.asarray(size).item(), dtype)
    return term if total is None else total + term if factor > 0 else total - term


_WINOGRAD = register_operator("x86_winograd", 2, "Float 3x3 convolution by minimal filtering, for x86", _infer, _define)
