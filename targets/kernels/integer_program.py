"""One point for each of some groups, of the least cost under the flash that all take together, as an integer program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

_SECONDS = 20.0


@dataclass(frozen=True)
class Item:
    """A point that a group may take.

    Attributes:
        cost: What shall be least.
        flash: Bytes of its own.
        shared: Bytes by name that points of any groups have in common.
        spent: Bytes that count against what may be spent, whatever else is saved.
    """

    cost: float
    flash: float
    shared: Mapping[str, int] = field(default_factory=dict)
    spent: float = 0.0


def least_cost(groups: Sequence[Sequence[Item]], most_flash: float, most_spent: float | None = None) -> list[int]:
    """Of each group the number of the point to take; the first ones where no others are found in time.

    Args:
        groups: The points of each.
        most_flash: Bytes that own and shared ones may take together.
        most_spent: Bytes that may be spent; any number where not given.
    """
    if not groups:
        return []
    points = [point for group in groups for point in group]
    rows = [row for row, group in enumerate(groups) for _ in group]
    sizes = {name: size for point in points for name, size in point.shared.items()}
    calls = [(at, list(sizes).index(name)) for at, point in enumerate(points) for name in point.shared]
    none = [0.0] * len(sizes)
    one_each = np.zeros((len(groups), len(points) + len(sizes)))
    one_each[rows, np.arange(len(points))] = 1
    called = np.zeros((len(calls), len(points) + len(sizes)))
    for row, (at, name) in enumerate(calls):
        called[row, at], called[row, len(points) + name] = 1, -1
    constraints = [
        LinearConstraint(one_each, 1, 1),
        LinearConstraint(np.array([[*(point.flash for point in points), *sizes.values()]]), -np.inf, most_flash),
        *([LinearConstraint(called, -np.inf, 0)] if calls else []),
    ]
    if most_spent is not None:
        constraints.append(LinearConstraint(np.array([[*(point.spent for point in points), *none]]), -np.inf, most_spent))
    result = milp(
        np.array([*(point.cost for point in points), *none]),
        integrality=np.ones(len(points) + len(sizes)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"time_limit": _SECONDS},
    )
    if result.x is None:
        return [0] * len(groups)
    found, at = [], 0
    for group in groups:
        found.append(int(np.argmax(result.x[at : at + len(group)])))
        at += len(group)
    return found
