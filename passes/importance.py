"""How much each unit of a channel group matters: one score a unit, summed over everything that goes with it.

A criterion is a function of a group and the parameter values. New ones register under a name, and any callable of the
same form can be given in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .channels import Group
from .channels.atoms import Role
from .errors import UserError

Criterion = Callable[[Group, Mapping[str, np.ndarray]], np.ndarray]
"""Scores of a group's units, float64 (units,), larger is more important; given the group and all parameter values."""

_CRITERIA: dict[str, Criterion] = {}


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Register the decorated function as the criterion `name`."""

    def register(function: Criterion) -> Criterion:
        _CRITERIA[name] = function
        return function

    return register


def criteria() -> list[str]:
    """The names of the registered criteria, sorted."""
    return sorted(_CRITERIA)


def get_criterion(importance: str | Criterion) -> Criterion:
    """The criterion of a name; a callable is returned as it is.

    Raises:
        UserError: The name is unknown.
    """
    if callable(importance):
        return importance
    if importance not in _CRITERIA:
        raise UserError(f"there is no importance criterion {importance!r}; choose one of {', '.join(criteria())}")
    return _CRITERIA[importance]


def score(importance: str | Criterion, group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
    """The checked scores of a group, float64 (units,).

    Raises:
        UserError: The criterion is unknown, or what it returns is not one finite number a unit.
    """
    function = get_criterion(importance)
    scores = np.asarray(function(group, params), np.float64)
    if scores.shape != (group.size,):
        raise UserError(
            f"the importance of group {group.name} must be {group.size} numbers, one a unit; "
            f"the criterion returned shape {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise UserError(f"the importance of group {group.name} is not finite; look for NaN in the model's weights")
    return scores


def unit_values(group: Group, params: Mapping[str, np.ndarray], key: tuple[str, int]) -> np.ndarray:
    """What the units hold of one member, float64 (units, values a unit)."""
    name, axis = key
    index = group.members[key]
    rows = np.moveaxis(params[name], axis, 0)[index.ravel()]
    return rows.reshape(group.size, -1).astype(np.float64)


def weight_members(group: Group) -> list[tuple[str, int]]:
    """The members that are weights of convolutions and dense layers; all members where there are none."""
    weights = [key for key in group.members if group.roles.get(key) in (Role.OUTPUT, Role.INPUT)]
    return weights or list(group.members)


@criterion("l1")
def l1(group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum of the magnitudes of all weights of a unit (Li et al., Pruning Filters for Efficient ConvNets, 2017), over
    the whole coupled group as in DepGraph (Fang et al., 2023)."""
    return _sum_over_members(group, params, lambda values: np.abs(values).sum(axis=1))


@criterion("l2")
def l2(group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
    """Euclidean norm of all weights of a unit, over the whole coupled group as in DepGraph (Fang et al., 2023)."""
    return np.sqrt(_sum_over_members(group, params, lambda values: np.square(values).sum(axis=1)))


def _sum_over_members(
    group: Group, params: Mapping[str, np.ndarray], of: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    total = np.zeros(group.size)
    for key in weight_members(group):
        total += of(unit_values(group, params, key))
    return total
