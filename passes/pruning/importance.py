"""How much each unit of a channel group matters: one score a unit, over everything that goes with it.

A criterion is a function of a group and the parameter values. New ones register under a name, and any callable of the
same form can be given in their place. A criterion that needs to see the network or samples has a method `prepare`,
which is called once before any group is scored. The criteria themselves are in `weight_criteria` and
`activation_criteria`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from .._tvm import tvm
from ..channels import Group
from ..channels.atoms import Role
from ..errors import UserError
from ..plugins.registry import Registry

Criterion = Callable[[Group, Mapping[str, np.ndarray]], np.ndarray]
"""Scores of a group's units, float (units,), larger is more important; given the group and all parameter values."""

Factory = Callable[["Sequence[np.ndarray] | None"], "Criterion | Prepared"]
"""Makes a criterion, given calibration samples if there are any."""


@runtime_checkable
class Prepared(Protocol):
    """A criterion that looks at the network first."""

    def prepare(self, mod: tvm.IRModule) -> Criterion:
        """The criterion for this module."""
        ...


CRITERIA: Registry[Factory] = Registry(
    "importance criterion",
    "tvmcompress.criteria",
    # What needs more than the passes do.
    lazy={
        "taylor": "tvmcompress.training.criteria:TaylorImportance",
        "fisher": "tvmcompress.training.criteria:FisherImportance",
        "repaired": "tvmcompress.passes.repair.repaired_damage:RepairedDamage",
    },
)
"""What makes each criterion."""


class SampledCriterion(ABC):
    """Base of the criteria that look at the network and at samples before they score.

    Args:
        samples: Calibration samples, one array an input of the model, axis 0 the samples.
        batch: Samples run at a time, which bounds the memory.

    Raises:
        UserError: There are no samples.
    """

    def __init__(self, samples: Sequence[np.ndarray] | None, batch: int = 32) -> None:
        if not samples or len(samples[0]) == 0:
            raise UserError("this importance criterion needs calibration samples, and none were given")
        self.samples = list(samples)
        self.batch = batch

    @abstractmethod
    def prepare(self, mod: tvm.IRModule) -> Criterion:
        """Run the samples and return the criterion for this module."""


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Register the decorated function, which needs no samples, as the criterion `name`."""

    def register(function: Criterion) -> Criterion:
        def factory(samples: Sequence[np.ndarray] | None) -> Criterion:
            return function

        factory.__doc__ = function.__doc__
        CRITERIA[name] = factory
        return function

    return register


def get_criterion(importance: str | Criterion | Prepared, samples: Sequence[np.ndarray] | None = None) -> Criterion | Prepared:
    """The criterion of a name; anything else is returned as it is.

    Args:
        importance: A name or a criterion.
        samples: Calibration samples for criteria that need them, one array an input, axis 0 the samples.

    Raises:
        UserError: The name is unknown, or the criterion needs samples and there are none.
        MissingToolError: The criterion needs a package that is not installed.
    """
    if not isinstance(importance, str):
        return importance
    return CRITERIA[importance](samples)


def criterion_name(importance: str | Criterion | Prepared) -> str:
    """What a criterion is called in reports."""
    return importance if isinstance(importance, str) else str(getattr(importance, "name", type(importance).__name__))


def prepare(importance: Criterion | Prepared, mod: tvm.IRModule) -> Criterion:
    """The criterion, ready for the groups of a module."""
    return importance.prepare(mod) if isinstance(importance, Prepared) else importance


def score(function: Criterion, group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
    """The checked scores of a group, float64 (units,).

    Raises:
        UserError: What the criterion returns is not one finite number a unit.
    """
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


def weight_shares(group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
    """The share that each unit has in the squared norm of its group's weights, float64 (units,), summing to one.

    What criteria that look at the readers of a channel say of groups that no layer reads through weights, such as the
    queries and keys of an attention.
    """
    energy = np.sum([np.square(unit_values(group, params, key)).sum(axis=1) for key in weight_members(group)], axis=0)
    return np.asarray(energy / max(energy.sum(), np.finfo(np.float64).tiny))
