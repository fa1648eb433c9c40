"""Importance from the weights alone.

A group couples several parameters; each gives a score a unit, and a reduction makes one of them: "sum", "mean", "max",
"product" or "first" (only the parameter that comes first, as a rule the layer that produces the channels).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np

from ..channels import Group
from ..channels.atoms import Role
from ..errors import UserError
from .importance import criterion, unit_values, weight_members

REDUCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sum": lambda scores: scores.sum(axis=0),
    "mean": lambda scores: scores.mean(axis=0),
    "max": lambda scores: scores.max(axis=0),
    "product": lambda scores: scores.prod(axis=0),
    "first": lambda scores: scores[0],
}


def reduction(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """From the scores of each member, (members, units), to one score a unit.

    Raises:
        UserError: The name is unknown.
    """
    if name not in REDUCTIONS:
        raise UserError(f"there is no reduction {name!r}; choose one of {', '.join(REDUCTIONS)}")
    return REDUCTIONS[name]


class WeightNorm:
    """The norm of all weights of a unit.

    L1 is Li et al., "Pruning Filters for Efficient ConvNets" (2017); over the whole coupled group as in DepGraph (Fang
    et al., 2023): reduced by "sum" the score is the norm of the unit's weights in all members together.

    Args:
        order: 1, 2 or infinity.
        by: The reduction over the members.
    """

    def __init__(self, order: float = 2, by: str = "sum") -> None:
        if order not in (1, 2, np.inf):
            raise UserError(f"the order of a weight norm is 1, 2 or infinity, not {order}")
        self.order = order
        self.reduce = reduction(by)

    def __call__(self, group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
        magnitudes = [np.abs(unit_values(group, params, key)) for key in weight_members(group)]
        if self.order == np.inf:
            return self.reduce(np.stack([values.max(axis=1) for values in magnitudes]))
        powers = np.stack([(values**self.order).sum(axis=1) for values in magnitudes])
        return self.reduce(powers) ** (1 / self.order)


class BatchNormScale:
    """The magnitude of the batch normalization's factors (Liu et al., "Learning Efficient Convolutional Networks
    through Network Slimming", 2017).

    Args:
        by: The reduction over the normalizations that a group runs through.

    Raises:
        UserError: When called on a group that runs through none.
    """

    def __init__(self, by: str = "mean") -> None:
        self.reduce = reduction(by)

    def __call__(self, group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
        factors = [key for key in group.members if group.roles.get(key) == Role.SCALE]
        if not factors:
            raise UserError(
                f"group {group.name} runs through no batch normalization (it may be folded into the convolution); "
                "exclude it or choose another importance, such as l2"
            )
        return self.reduce(np.stack([np.abs(unit_values(group, params, key)).mean(axis=1) for key in factors]))


class GeometricMedian:
    """The distance to the other units: what lies near the geometric median can be expressed by the others (He et al.,
    "Filter Pruning via Geometric Median", 2019).

    Args:
        by: The reduction over the weights that produce the group.
    """

    def __init__(self, by: str = "sum") -> None:
        self.reduce = reduction(by)

    def __call__(self, group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
        producers = [key for key in group.members if group.roles.get(key) == Role.OUTPUT] or weight_members(group)
        return self.reduce(np.stack([_summed_distances(unit_values(group, params, key)) for key in producers]))


def _summed_distances(rows: np.ndarray) -> np.ndarray:
    squares = np.square(rows).sum(axis=1)
    distances = squares[:, None] + squares[None, :] - 2 * rows @ rows.T
    return np.sqrt(np.maximum(distances, 0)).sum(axis=1)


class RandomScore:
    """Random scores, the same for the same seed and group name: what any criterion must beat."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.random.default_rng([self.seed, zlib.crc32(group.name.encode())]).random(group.size)


criterion("l1")(WeightNorm(1))
criterion("l2")(WeightNorm(2))
criterion("linf")(WeightNorm(np.inf, "max"))
criterion("bn_scale")(BatchNormScale())
criterion("fpgm")(GeometricMedian())
criterion("random")(RandomScore())
