"""The grid that a quantized constant lies on: its integers, the real step of each, and how far they reach.

Passes that choose integers anew work on grids, and so on whatever form the quantized constant has in the module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .._tvm import Constant, relax
from ..graph.module_params import static_shape
from ..numbers.int4_weights import HIGHEST, LOWEST, spread

# No bias is larger than this as an integer; with the sum of products it stays in 32 bits.
_LARGEST_BIAS = 2**28


@dataclass(frozen=True, eq=False)
class WeightGrid:
    """A quantized constant as its reader sees it: real = integer * step.

    The integers of weights of four bits are the values in [-8, 7], their steps the scale times the multiplier of their group.

    Attributes:
        path: The parameter with the integers as they are stored, and the variables from there to what the reader reads.
        integers: int64, less the zero point.
        steps: float64, broadcastable to `integers`.
        lowest: The smallest integer that can be stored, less the zero point; int64, broadcastable to `integers`.
        highest: The largest.
        zero_points: int64, broadcastable to `integers`.
        order: The axes of the parameter in the order in which the reader sees them.
    """

    path: tuple[relax.Var, ...]
    integers: np.ndarray
    steps: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    zero_points: np.ndarray
    order: tuple[int, ...]

    @property
    def parameter(self) -> relax.Var:
        """The parameter."""
        return self.path[0]

    @property
    def source(self) -> relax.Var:
        """What the reader reads."""
        return self.path[-1]

    def real(self, integers: np.ndarray | None = None) -> np.ndarray:
        """float32: what the reader reads, for these integers or others in their place."""
        chosen = self.integers if integers is None else integers
        return chosen.astype(np.float32) * self.steps.astype(np.float32)

    def nearest(self, real: np.ndarray) -> np.ndarray:
        """int64: the integers nearest to real values."""
        return np.clip(np.rint(real / self.steps), self.lowest, self.highest).astype(np.int64)

    def stored(self, integers: np.ndarray) -> np.ndarray:
        """The value of the parameter that stands for these integers."""
        moved = (integers + self.zero_points).astype(str(self.parameter.ty.dtype))
        return np.array(moved.transpose(np.argsort(self.order)), order="C")


def weight_grid(
    expr: relax.Expr, values: Mapping[relax.Var, relax.Expr], params: Mapping[relax.Var, np.ndarray]
) -> WeightGrid | None:
    """The grid of an operand; None where it is no quantized constant.

    Args:
        expr: The operand.
        values: What the variables of `main` are bound to.
        params: The values of its parameters.
    """
    order: tuple[int, ...] | None = None
    path = [expr]
    call = values.get(expr) if isinstance(expr, relax.Var) else None
    if isinstance(call, relax.Call) and call.op.name == "relax.permute_dims":
        rank = len(call.ty.shape)
        order = tuple(int(axis) for axis in call.attrs.axes) if call.attrs.axes is not None else tuple(range(rank))[::-1]
        path.append(call.args[0])
        call = values.get(call.args[0])
    if not isinstance(call, relax.Call) or call.op.name != "relax.dequantize":
        return None
    path.append(call.args[0])
    multipliers: np.ndarray | None = None
    made = values.get(call.args[0])
    if isinstance(made, relax.Call) and made.op.name == "tvmcompress.int4_weight" and made.args[1] in params:
        multipliers = _multipliers(made, params[made.args[1]])
        path.append(made.args[0])
    if path[-1] not in params:
        return None
    stored = params[path[-1]]
    scale, zero = (_constant(arg, params) for arg in call.args[1:3])
    if scale is None or zero is None or not np.issubdtype(stored.dtype, np.integer):
        return None
    axis = int(call.attrs.axis) % max(stored.ndim, 1)
    steps = _along(scale.astype(np.float64), axis, stored.ndim)
    zero_points = _along(zero.astype(np.int64), axis, stored.ndim)
    integers = stored.astype(np.int64) - zero_points
    ends = _limits(stored, integers, zero_points)
    if multipliers is not None:
        steps = steps * multipliers
        ends = (np.full_like(zero_points, LOWEST), np.full_like(zero_points, HIGHEST))
    seen = order if order is not None else tuple(range(stored.ndim))
    return WeightGrid(
        path=tuple(path[::-1]),
        integers=integers.transpose(seen),
        steps=steps.transpose(seen),
        lowest=ends[0].transpose(seen),
        highest=ends[1].transpose(seen),
        zero_points=zero_points.transpose(seen),
        order=seen,
    )


def _multipliers(call: relax.Call, multipliers: np.ndarray) -> np.ndarray:
    """The multipliers of weights of four bits, broadcastable to the weight."""
    shape = static_shape(call.args[0])
    output, channels = int(call.attrs.output_axis), int(call.attrs.input_axis)
    wide = spread(multipliers.astype(np.int64), shape[channels], int(call.attrs.group_size))
    ordered = wide if output < channels else wide.T
    return ordered.reshape([size if axis in (output, channels) else 1 for axis, size in enumerate(shape)])


def _limits(stored: np.ndarray, integers: np.ndarray, zero_points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far integers less the zero point may reach.

    Those of weights reach no further than the largest of them does: what fewer bits, narrow ranges and exact sums in 16 bits
    ask for stays true.
    """
    if stored.dtype == np.int32:
        return np.full_like(zero_points, -_LARGEST_BIAS), np.full_like(zero_points, _LARGEST_BIAS)
    info = np.iinfo(stored.dtype)
    largest = np.abs(integers).max(initial=0)
    return np.maximum(info.min - zero_points, -largest), np.minimum(info.max - zero_points, largest)


def _constant(expr: relax.Expr, params: Mapping[relax.Var, np.ndarray]) -> np.ndarray | None:
    if isinstance(expr, Constant):
        return expr.value.numpy()
    return params.get(expr) if isinstance(expr, relax.Var) else None


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """One value, or values along an axis, broadcastable to a tensor."""
    return values.reshape([-1 if a == axis and values.size > 1 else 1 for a in range(rank)])
