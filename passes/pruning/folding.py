"""Folding: units leave by being merged into units that stay, instead of being cut off.

Similar units of a group become one that makes their mean, and the weights that read them are added up for it, so that units
that do the same are told apart by nothing afterwards: a network with copies computes what it did (Wang et al., "Forget the
Data and Fine-Tuning! Just Fold the Network to Compress", 2025; Wang et al., "Cut Less, Fold More", 2025). A group has as many
units afterwards as by removal; `Reconstruct` then aims at the means.

Which operators let a merged unit through is not listed: for each group it is tried. With the units of every cluster made
equal the network before and after must agree. Where they do not, as in the width of queries and keys, whose product is summed
over, the group's units are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .._tvm import tvm
from ..channels import ChannelGraph, Group, remove_units
from ..channels.atoms import Role
from ..graph.interpreter import Interpreter
from ..graph.module_params import attach_params, detach_params, get_params, input_vars, static_shape
from ..plugins.registry import Registry
from .activation_criteria import weight_readers
from .importance import unit_values
from .reconstruction_criterion import channel_covariances

_AGREES = 1e-3
"""A merge is one if it leaves at most this share of what removal would change."""

_ROUNDING = 1e-5
"""The relative error of a run in float32."""


@dataclass(frozen=True)
class Clusters:
    """The units of one group, sorted into those that stay.

    Attributes:
        into: For each unit the one that it goes into, int64 (units,); those that stay go into themselves.
        weights: The share of each unit in the mean that it goes into, float64 (units,).
    """

    into: np.ndarray
    weights: np.ndarray

    @property
    def removed(self) -> np.ndarray:
        """The units that leave, ascending, int64."""
        return np.flatnonzero(self.into != np.arange(len(self.into)))

    def several(self) -> list[np.ndarray]:
        """The units of each cluster of more than one; the one that stays comes first."""
        found = [np.flatnonzero(self.into == unit) for unit in np.unique(self.into)]
        return [np.r_[self.into[units[0]], units[units != self.into[units[0]]]] for units in found if len(units) > 1]


class Selector(Protocol):
    """Decides how units leave."""

    def __call__(
        self, mod: tvm.IRModule, graph: ChannelGraph, units: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Clusters], dict[str, str]]:
        """Which groups are folded.

        Args:
            mod: The module, parameters attached.
            graph: Its analysis.
            units: The units that would be removed of each group, by its name.

        Returns:
            Clusters of as many units by group, for those that are folded; and for others why they are not.
        """
        ...


SelectorFactory = Callable[["Sequence[np.ndarray] | None"], Selector]

SELECTIONS: Registry[SelectorFactory] = Registry(
    "way for units to leave",
    # Trying both needs the repair, which comes behind the pruning.
    lazy={"best": "tvmcompress.passes.repair.best_selection:BestSelection"},
)
"""How units leave, by name, beside "remove"."""


def get_selector(selection: str, samples: Sequence[np.ndarray] | None) -> Selector | None:
    """The selector of a name; None for "remove".

    Args:
        selection: "remove", or a name of `SELECTIONS`.
        samples: Calibration samples, one array an input, axis 0 the samples.

    Raises:
        UserError: There is no such name, or it needs samples and there are none.
    """
    return None if selection == "remove" else SELECTIONS[selection](samples)


@SELECTIONS.register("fold")
class Fold:
    """Similar units are merged.

    Args:
        samples: Similar is what is so on these; without them, what has similar weights.
    """

    def __init__(self, samples: Sequence[np.ndarray] | None = None) -> None:
        self.samples = samples

    def __call__(
        self, mod: tvm.IRModule, graph: ChannelGraph, units: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Clusters], dict[str, str]]:
        chosen = [group for group in graph.groups if len(units.get(group.name, ()))]
        likeness = _likeness(mod, chosen, self.samples)
        clusters = {group.name: cluster(*likeness[group.name], group.size - len(units[group.name])) for group in chosen}
        passing = lets_through(mod, graph, clusters, self.samples)
        refused = "its units cannot be merged, since something sums over them or tells them apart; they are removed"
        return (
            {name: found for name, found in clusters.items() if name in passing},
            {name: refused for name in clusters if name not in passing},
        )


def cluster(products: np.ndarray, sizes: np.ndarray, count: int) -> Clusters:
    """Merge units pairwise, each time the two whose mean differs least from them (Ward, 1963), until `count` are left.

    Args:
        products: What the units are like: inner products of their values, float64 (units, units).
        sizes: How much an error of each counts, float64 (units,), at least 0.
        count: Clusters, at least one.

    Returns:
        The clusters; of each the unit that counts most stays, among equals the first.
    """
    units = len(sizes)
    weights = np.maximum(np.asarray(sizes, np.float64), 1e-12 * max(float(np.max(sizes)), 1e-12))
    gram, mass = np.array(products, np.float64), weights.copy()
    label = np.arange(units)
    alive = np.ones(units, bool)

    def costs(row: int) -> np.ndarray:
        distance = np.maximum(gram[row, row] + np.diag(gram) - 2 * gram[row], 0)
        found = mass[row] * mass / (mass[row] + mass) * distance
        found[~alive] = np.inf
        found[row] = np.inf
        return np.asarray(found)

    table = np.array([costs(unit) for unit in range(units)])
    for _ in range(units - count):
        first, second = np.unravel_index(int(np.argmin(table)), table.shape)
        one, other = sorted((int(first), int(second)))
        share = mass[one] / (mass[one] + mass[other])
        gram[one] = share * gram[one] + (1 - share) * gram[other]
        gram[:, one] = share * gram[:, one] + (1 - share) * gram[:, other]
        mass[one] += mass[other]
        alive[other] = False
        label[label == other] = one
        table[other] = table[:, other] = np.inf
        table[one] = table[:, one] = costs(one)
    into, shares = np.empty(units, np.int64), np.empty(units)
    for name in np.unique(label):
        members = np.flatnonzero(label == name)
        into[members] = members[int(np.argmax(weights[members]))]
        shares[members] = weights[members] / weights[members].sum()
    return Clusters(into, shares)


def merged_params(
    groups: Sequence[Group], clusters: Mapping[str, Clusters], params: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Parameters in which the units that stay have taken over those that leave, which are still there: what makes a unit is
    the mean of its cluster, what reads it the sum."""
    found = {name: value.copy() for name, value in params.items()}
    for group in groups:
        if group.name not in clusters:
            continue
        for key, index in group.members.items():
            for units in clusters[group.name].several():
                rows = np.moveaxis(found[key[0]], key[1], 0)
                # (units, positions a unit, ...)
                values = rows[index[units]].astype(np.float64)
                shares = np.ones(len(units)) if _reads(group, key) else clusters[group.name].weights[units]
                rows[index[units[0]]] = np.tensordot(shares, values, 1).astype(rows.dtype)
    return found


def merged_positions(group: Group, clusters: Clusters) -> dict[str, list[tuple[int, list[int], list[float]]]]:
    """The record of a fold, see `GroupSurgery.merged`."""
    found: dict[str, list[tuple[int, list[int], list[float]]]] = {}
    for (name, axis), index in group.members.items():
        if _reads(group, (name, axis)):
            continue
        found[f"{name}:{axis}"] = [
            (int(index[units[0], place]), index[units, place].tolist(), clusters.weights[units].tolist())
            for units in clusters.several()
            for place in range(index.shape[1])
        ]
    return found


def lets_through(
    mod: tvm.IRModule,
    graph: ChannelGraph,
    clusters: Mapping[str, Clusters],
    samples: Sequence[np.ndarray] | None = None,
) -> set[str]:
    """The groups whose units can be merged: with those of each cluster made equal the folded network gives what it gave.

    Args:
        mod: The module.
        graph: Its analysis.
        clusters: What is to be folded, by group.
        samples: The first is what the networks are run on; without any, random values are.
    """
    trial = _trial_inputs(mod, samples)
    if not clusters or _agrees(mod, graph, clusters, trial):
        return set(clusters)
    return {name for name, found in clusters.items() if _agrees(mod, graph, {name: found}, trial)}


def folded(mod: tvm.IRModule, graph: ChannelGraph, clusters: Mapping[str, Clusters]) -> tvm.IRModule:
    """The module with clusters merged in its parameters; the units that leave are still there, see `remove_units`."""
    bare, params = detach_params(mod)
    return attach_params(bare, merged_params(graph.groups, clusters, params)) if clusters else mod


def _agrees(mod: tvm.IRModule, graph: ChannelGraph, clusters: Mapping[str, Clusters], inputs: Sequence[np.ndarray]) -> bool:
    bare, params = detach_params(mod)
    equal = {name: value.copy() for name, value in params.items()}
    for group in graph.groups:
        for key, index in group.members.items() if group.name in clusters else ():
            for units in clusters[group.name].several():
                if not _reads(group, key):
                    rows = np.moveaxis(equal[key[0]], key[1], 0)
                    rows[index[units[1:]]] = rows[index[units[:1]]]
    whole = attach_params(bare, equal)
    gone = {name: found.removed for name, found in clusters.items()}
    # On a copy: the values of parameters belong to the module that they are attached to.
    merged = remove_units(folded(whole, graph, clusters), graph, gone)
    cut = remove_units(whole, graph, gone)
    wanted, found, without = (Interpreter(one)(inputs) for one in (whole, merged, cut))
    for target, value, other in zip(wanted, found, without):
        if target.dtype.kind != "f":
            if not np.array_equal(target, value):
                return False
            continue
        error, change = (float(np.linalg.norm((one - target).astype(np.float64))) for one in (value, other))
        if not error <= _AGREES * change + _ROUNDING * float(np.linalg.norm(target.astype(np.float64))):
            return False
    return True


def _trial_inputs(mod: tvm.IRModule, samples: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    variables = input_vars(mod["main"])
    if samples:
        return [np.asarray(array[: static_shape(var)[0]]) for var, array in zip(variables, samples)]
    rng = np.random.default_rng(0)
    shapes = [(static_shape(var), np.dtype(str(var.ty.dtype))) for var in variables]
    return [
        rng.standard_normal(shape).astype(dtype) if dtype.kind == "f" else np.zeros(shape, dtype) for shape, dtype in shapes
    ]


def _reads(group: Group, key: tuple[str, int]) -> bool:
    """Whether a member reads the units; all others make them."""
    return group.roles.get(key) == Role.INPUT


def _likeness(
    mod: tvm.IRModule, groups: Sequence[Group], samples: Sequence[np.ndarray] | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Arguments of `cluster` for each group: from what its readers see on the samples, else from the weights that make it."""
    params = get_params(mod)
    # Only those that tell units apart by their place in the tensor; depthwise convolutions do not read a group, they go on it.
    readers = {
        group.name: [
            (reader, group.places[reader.tensor, reader.axis])
            for key in group.members
            if _reads(group, key)
            for reader in all_readers.get(key, ())
            if (reader.tensor, reader.axis) in group.places
        ]
        for all_readers in [weight_readers(mod) if samples else {}]
        for group in groups
    }
    wanted = {(reader.tensor, reader.axis) for found in readers.values() for reader, _ in found}
    covariances = channel_covariances(mod, samples, wanted) if samples and wanted else {}
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for group in groups:
        products, sizes = np.zeros((group.size, group.size)), np.zeros(group.size)
        for reader, index in readers[group.name]:
            covariance = covariances[reader.tensor, reader.axis]
            part = sum(covariance[np.ix_(positions, positions)] for positions in index.T)
            products += part / max(float(np.trace(part)), np.finfo(np.float64).tiny)
        made = [key for key in group.members if not _reads(group, key)]
        if not readers[group.name] or not products.any():
            for key in made:
                values = unit_values(group, params, key)
                part = values @ values.T
                products += part / max(float(np.trace(part)), np.finfo(np.float64).tiny)
        for key in group.members:
            if _reads(group, key):
                energy = np.square(unit_values(group, params, key)).sum(axis=1)
                sizes += energy / max(float(energy.sum()), np.finfo(np.float64).tiny)
        found[group.name] = (products, sizes if sizes.any() else np.ones(group.size))
    return found
