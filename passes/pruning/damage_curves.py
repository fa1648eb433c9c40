"""Importance from measured damage: how far the output moves when a group loses a share of its units.

Weight and activation criteria rank the units of one group well, and compare groups by guessing. Where the damage of
pruning each group alone was measured, the ranking within a group is the criterion's and the comparison between groups is
the measurement (Li et al., "Pruning Filters for Efficient ConvNets", 2017, section 3.2, made into an allocation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .._tvm import tvm
from ..channels import Group
from ..errors import UserError
from .importance import Criterion, Prepared, prepare, score

_TILT = 1e-9

Curve = Sequence[tuple[float, float]]
"""Pairs of the fraction of a group's units removed, ascending in (0, 1], and the damage measured, at least 0."""


class DamageCurves:
    """Scores whose sum over the units that leave first is the damage measured.

    Args:
        base: The criterion that ranks the units of a group.
        curves: The damage by group name; damages of different groups must compare.

    Raises:
        UserError: A curve is empty or not ascending, or a damage is not a number of at least 0.
    """

    def __init__(self, base: Criterion | Prepared, curves: Mapping[str, Curve]) -> None:
        for name, curve in curves.items():
            values = np.asarray(curve, np.float64)
            if values.ndim != 2 or values.shape[0] == 0 or not np.isfinite(values).all() or (values[:, 1] < 0).any():
                raise UserError(f"the damage curve of group {name} must be pairs of fraction and damage, at least one")
            if (np.diff(values[:, 0]) <= 0).any() or not values[0, 0] > 0 or values[-1, 0] > 1:
                raise UserError(f"the fractions of the damage curve of group {name} must ascend within (0, 1]")
        self.base = base
        self.curves = dict(curves)

    def prepare(self, mod: tvm.IRModule) -> Criterion:
        """The criterion for this module."""
        ranking = prepare(self.base, mod)

        def scores(group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
            if group.name not in self.curves:
                raise UserError(
                    f"the damage of pruning group {group.name} was not measured; measure the sensitivity of this model"
                )
            order = np.lexsort((-np.arange(group.size), score(ranking, group, params)))
            steps = marginal_damage(self.curves[group.name], group.size)
            found = np.empty(group.size)
            # A little steeper than measured, so that among equal steps the criterion's order stays.
            found[order] = steps + _TILT * max(float(steps.max()), _TILT) * np.arange(group.size)
            return found

        return scores


def marginal_damage(curve: Curve, units: int) -> np.ndarray:
    """What each further unit adds, float64 (units,), never falling from one unit to the next.

    The curve is interpolated linearly from (0, 0); behind its end it goes on as steeply as it ended. Noise that would let a
    later unit cost less than an earlier one is evened out: the steps are those of the curve's lower convex hull.
    """
    points = np.concatenate([[(0.0, 0.0)], np.asarray(curve, np.float64)])
    points[:, 1] = np.maximum.accumulate(points[:, 1])
    if points[-1, 0] < 1:
        (x0, y0), (x1, y1) = points[-2:]
        points = np.concatenate([points, [(1.0, y1 + (y1 - y0) / (x1 - x0) * (1 - x1))]])
    hull: list[np.ndarray] = []
    for point in points:
        while len(hull) > 1 and _turns_down(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    corners = np.array(hull)
    at = np.interp(np.arange(units + 1) / units, corners[:, 0], corners[:, 1])
    return np.diff(at)


def _turns_down(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> bool:
    return bool((b[1] - a[1]) * (c[0] - b[0]) >= (c[1] - b[1]) * (b[0] - a[0]))
