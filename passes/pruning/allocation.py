"""From scores to units: which to remove, given a ratio and what a user wants kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from ..channels import Group, stem
from ..channels.atoms import Role
from ..errors import UserError

SCOPES = ("local", "global", "isomorphic")


NORMALIZATIONS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda scores: float(scores.mean()),
    "max": lambda scores: float(scores.max()),
    "sum": lambda scores: float(scores.sum()),
    "norm": lambda scores: float(np.linalg.norm(scores)),
    "none": lambda scores: 1.0,
}


@dataclass(frozen=True)
class Allocation:
    """How the removal is spread over the groups.

    Attributes:
        ratio: Fraction of the units to remove, in (0, 1).
        scope: "local" removes that fraction of every group; "global" ranks the units of all groups together;
            "isomorphic" ranks together the units of groups that are built alike, with the same kinds of members and
            kernels (Fang et al., "Isomorphic Pruning for Vision Models", 2024).
        normalization: What a group's scores are divided by before they are ranked with others: their "mean" (as
            DepGraph does, so that groups of other scale compare), "max", "sum", Euclidean "norm", or "none".
        threshold: Remove the units whose score, undivided, lies below this, in the place of a ratio.
        round_to: The number of channels a group keeps is a multiple of this where the group is large enough: the
            nearest multiple, at a tie the larger one, at least one.
        min_channels: Channels that every group keeps at least.
        exclude: Patterns (`*`, `?`, `[...]`) of groups to leave alone.
        ratios: Ratio by pattern, in [0, 1), for groups that shall have their own; the first match counts.
        min_units: Units that every group keeps at least, however many channels they hold.

    A pattern means the outputs of layers, as in Torch-Pruning's and NNCF's lists of ignored layers: it matches a group by its
    name, by the name of an activation it runs through, or by the name of a parameter that holds its units as outputs, factors
    or offsets, with or without the suffix that says what it is (`conv1.weight`, `conv1`). What a layer reads belongs to the
    layers that make it: to keep a layer's inputs, too, name those. A pattern that matches readers only is allowed, and changes
    nothing.
    """

    ratio: float
    scope: str = "local"
    normalization: str = "mean"
    threshold: float | None = None
    round_to: int = 1
    min_channels: int = 1
    exclude: Sequence[str] = ()
    ratios: Mapping[str, float] = field(default_factory=dict)
    min_units: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise UserError(f"the pruning ratio must lie between 0 and 1, both excluded; {self.ratio} does not")
        if self.scope not in SCOPES:
            raise UserError(f"there is no pruning scope {self.scope!r}; choose one of {', '.join(SCOPES)}")
        if self.normalization not in NORMALIZATIONS:
            names = ", ".join(NORMALIZATIONS)
            raise UserError(f"there is no normalization {self.normalization!r}; choose one of {names}")
        for name, value in (("round_to", self.round_to), ("min_channels", self.min_channels), ("min_units", self.min_units)):
            if value != int(value) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1; {value} is not")
        for pattern, ratio in self.ratios.items():
            if not 0 <= ratio < 1:
                raise UserError(f"the pruning ratio of {pattern!r} must be at least 0 and below 1; {ratio} is not")


def matches(group: Group, pattern: str) -> bool:
    """Whether a pattern means a group; see `Allocation`."""
    made = [name for name, axis in group.members if group.roles.get((name, axis)) != Role.INPUT]
    return _names(pattern, (group.name, *group.tensors, *made))


def check_patterns(groups: Sequence[Group], patterns: Iterable[str]) -> None:
    """Refuse patterns that mean nothing.

    Raises:
        UserError: A pattern names neither a group nor a layer that reads one.
    """
    for pattern in patterns:
        if not any(matches(group, pattern) or _names(pattern, [name for name, _ in group.members]) for group in groups):
            names = ", ".join(group.name for group in groups)
            raise UserError(f"the pattern {pattern!r} matches no prunable group; there are {names or 'none'}")


def _names(pattern: str, names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in (*names, *map(stem, names)))


def allocate(groups: Sequence[Group], scores: Mapping[str, np.ndarray], allocation: Allocation) -> dict[str, np.ndarray]:
    """The units to remove of each group, ascending, int64; groups that lose none are left out.

    Among equal scores the later unit goes first.

    Args:
        groups: The prunable groups.
        scores: Importance of the units, float (units,), by group name.
        allocation: What is wanted.

    Raises:
        UserError: A pattern matches no group.
    """
    check_patterns(groups, (*allocation.exclude, *allocation.ratios))
    excluded = {group.name for group in groups if any(matches(group, pattern) for pattern in allocation.exclude)}
    own = {group.name: _own_ratio(group, allocation) for group in groups if group.name not in excluded}
    common = [group for group in groups if group.name in own and own[group.name] is None]
    wanted = {group.name: ratio * group.size for group in groups if (ratio := own.get(group.name)) is not None}
    if allocation.threshold is not None:
        wanted |= {group.name: float((scores[group.name] < allocation.threshold).sum()) for group in common}
    elif allocation.scope == "local":
        wanted |= {group.name: allocation.ratio * group.size for group in common}
    else:
        for cluster in _clusters(common, allocation.scope):
            wanted |= _rank_together(cluster, scores, allocation)
    removed = {}
    for group in groups:
        count = group.size - units_kept(group, group.size - wanted.get(group.name, 0.0), allocation)
        if count:
            removed[group.name] = lowest(scores[group.name], count)
    return removed


def lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` units of lowest score, ascending; among equal scores the later ones."""
    order = np.lexsort((-np.arange(len(scores)), scores))
    return np.sort(order[:count])


def units_kept(group: Group, wanted: float, allocation: Allocation) -> int:
    """The number of units that a group keeps, given how many it would without rounding and minimum."""
    # A unit may hold several channels (whole groups of a grouped convolution), which count as such.
    step = allocation.round_to // math.gcd(allocation.round_to, group.width)
    least = min(group.size, max(allocation.min_units, -(-allocation.min_channels // group.width)))
    if wanted >= group.size or step > group.size:
        return group.size
    kept = max(step, step * math.floor(wanted / step + 0.5))
    while kept < least:
        kept += step
    return kept - step if kept > group.size and kept - step >= least else min(kept, group.size)


def _own_ratio(group: Group, allocation: Allocation) -> float | None:
    return next((ratio for pattern, ratio in allocation.ratios.items() if matches(group, pattern)), None)


def _rank_together(groups: Sequence[Group], scores: Mapping[str, np.ndarray], allocation: Allocation) -> dict[str, float]:
    """How many units each group loses when all are ranked together."""
    normalized = [normalize(scores[group.name], allocation.normalization) for group in groups]
    owner = np.repeat(np.arange(len(groups)), [group.size for group in groups])
    gone = lowest(np.concatenate(normalized), round(allocation.ratio * len(owner)))
    lost = np.bincount(owner[gone], minlength=len(groups))
    return {group.name: float(count) for group, count in zip(groups, lost)}


def normalize(scores: np.ndarray, by: str = "mean") -> np.ndarray:
    """Scores divided by what the normalization says; unchanged where that is not positive."""
    divisor = NORMALIZATIONS[by](scores)
    return scores / divisor if divisor > 0 else scores


def _clusters(groups: Sequence[Group], scope: str) -> list[list[Group]]:
    """The groups that are ranked together."""
    clusters: dict[object, list[Group]] = {}
    for group in groups:
        alike = _build(group) if scope == "isomorphic" else None
        clusters.setdefault(alike, []).append(group)
    return list(clusters.values())


def _build(group: Group) -> object:
    """How a group is built: for each kind of member, by role, axis and positions a unit, how often it occurs."""
    kinds = [(group.roles.get(key, 0), key[1], index.shape[1]) for key, index in group.members.items()]
    return tuple(sorted(Counter(kinds).items()))
