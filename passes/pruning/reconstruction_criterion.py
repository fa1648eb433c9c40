"""Importance as what the other channels cannot express.

The units of a group leave one by one, each time the one whose loss the layers that read the group can make good best:
by the closed form of Optimal Brain Surgeon (Hassibi and Stork, 1993), with the covariance of the channels in the place of
the Hessian and the weights that read a channel in the place of one weight. A unit's score is the damage that its leaving
added, as a share of the variance of what the readers compute. Covariances are those of channels at the same position:
what neighbouring positions tell of each other is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import linalg

from .._tvm import tvm
from ..channels import Group
from .activation_criteria import channel_means, weight_readers
from .importance import CRITERIA, Criterion, SampledCriterion, weight_shares

_RIDGE = 1e-3


class ReconstructionError(SampledCriterion):
    """What leaves less behind that the other units cannot make good by least squares matters less."""

    def prepare(self, mod: tvm.IRModule) -> Criterion:
        """Run the samples and return the criterion for this module."""
        readers = {key: [reader for reader in found if reader.groups == 1] for key, found in weight_readers(mod).items()}
        wanted = {(reader.tensor, reader.axis) for found in readers.values() for reader in found}
        covariances = channel_covariances(mod, self.samples, wanted, self.batch)

        def score(group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
            systems = []
            for key, index in group.members.items():
                for reader in readers.get(key, ()):
                    weight = np.moveaxis(params[reader.weight].astype(np.float64), reader.weight_axis, 0)
                    systems.append((covariances[reader.tensor, reader.axis], weight.reshape(len(weight), -1), index))
            return removal_damages(systems, group.size) if systems else weight_shares(group, params)

        return score


def removal_damages(systems: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], units: int) -> np.ndarray:
    """Remove units greedily, and tell what each removal costs.

    Args:
        systems: For each reader the covariance of its input channels (C, C), its weights (C, outputs), and the channels of
            each unit (units, channels a unit).
        units: The number of units.

    Returns:
        The damage that each unit's removal adds, float64 (units,), in the order of removal never falling: shares of the
        readers' output variance, summed over readers. The last unit to stay has the largest.
    """
    damages = np.zeros(units)
    states = [_State(*system) for system in systems]
    if not states:
        return damages
    left = np.ones(units, bool)
    highest = 0.0
    for _ in range(units):
        costs = np.sum([state.costs(left) for state in states], axis=0)
        costs[~left] = np.inf
        # Among equals the last goes first, as everywhere.
        unit = units - 1 - int(np.argmin(costs[::-1]))
        highest = max(highest, float(costs[unit]))
        damages[unit] = highest
        left[unit] = False
        for state in states:
            state.remove(unit)
    return damages


class _State:
    """One reader while units leave: the inverse covariance of the channels left and the weights that make good."""

    def __init__(self, covariance: np.ndarray, weight: np.ndarray, index: np.ndarray) -> None:
        size = len(covariance)
        scale = max(np.trace(covariance) / size, np.finfo(np.float64).tiny)
        regular = covariance + _RIDGE * scale * np.eye(size)
        self.inverse = linalg.inv(regular)
        self.weight = weight.copy()
        self.index = index
        self.total = max(float(np.einsum("io,ij,jo->", weight, regular, weight)), np.finfo(np.float64).tiny)

    def costs(self, left: np.ndarray) -> np.ndarray:
        """What removing each unit would add now, float64 (units,); what is gone costs nothing."""
        costs = np.zeros(len(self.index))
        if self.index.shape[1] == 1:
            channel = self.index[left, 0]
            costs[left] = np.square(self.weight[channel]).sum(1) / np.diag(self.inverse)[channel]
        else:
            for unit in np.flatnonzero(left):
                rows = self.index[unit]
                part = self.weight[rows]
                costs[unit] = np.sum(part * linalg.solve(self.inverse[np.ix_(rows, rows)], part, assume_a="pos"))
        return costs / self.total

    def remove(self, unit: int) -> None:
        """Take a unit's channels out; the weights left take over what they can."""
        rows = self.index[unit]
        columns = self.inverse[:, rows]
        gain = linalg.solve(self.inverse[np.ix_(rows, rows)], columns.T, assume_a="pos").T
        self.weight -= gain @ self.weight[rows]
        self.inverse -= gain @ columns.T
        self.weight[rows] = 0
        # Numbers left over from rounding would be taken for channels that still tell something.
        self.inverse[rows] = self.inverse[:, rows] = 0


def channel_covariances(
    mod: tvm.IRModule, samples: Sequence[np.ndarray], wanted: set[tuple[str, int]], batch: int = 32
) -> dict[tuple[str, int], np.ndarray]:
    """The covariance of the channels of each (tensor, axis) over all samples and positions, float64 (C, C)."""

    def moments(value: np.ndarray, axis: int) -> np.ndarray:
        rows = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis]).astype(np.float64)
        return np.vstack([rows.T @ rows, rows.sum(0)])

    means = channel_means(mod, samples, wanted, moments, batch)
    return {key: product - np.outer(mean, mean) for key, (*product, mean) in means.items()}


CRITERIA["reconstruction"] = ReconstructionError
