"""What pruning has removed: the record that travels with the module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .._tvm import tvm
from .module_params import attach_params, get_params

SURGERY_ATTR = "tvmcompress.surgery"


@dataclass(frozen=True)
class GroupSurgery:
    """What one group lost.

    Attributes:
        name: The group, named after the layer that produces it.
        size: Units before.
        removed: The units removed, ascending.
        kept: The units kept, ascending.
        members: For each parameter and axis ("conv1.weight:0") the positions removed, in the unpruned model.
        reason: How the units were chosen.
        merged: For parameters and axes that make units, the position kept of each that others were folded into: the positions
            that it is a mean of and their weights, which add up to one.
    """

    name: str
    size: int
    removed: list[int]
    kept: list[int]
    members: dict[str, list[int]]
    reason: str = ""
    merged: dict[str, list[tuple[int, list[int], list[float]]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Channels:
    """The channels that are left of a tensor, in terms of the unpruned model's.

    Attributes:
        positions: Where they stood, ascending, int64.
        means: By position, those that were folded: the channels that each is the mean of, and their weights.
    """

    positions: np.ndarray
    means: Mapping[int, Mapping[int, float]] = field(default_factory=dict)

    def matrix(self, size: int) -> np.ndarray:
        """Of `size` channels of the unpruned model the combinations that are left, float32 (channels left, size)."""
        found = np.zeros((len(self.positions), size), np.float32)
        for row, position in enumerate(self.positions.tolist()):
            for origin, weight in self.means.get(position, {position: 1.0}).items():
                found[row, origin] = weight
        return found

    def of(self, value: np.ndarray, axis: int) -> np.ndarray:
        """A tensor of the unpruned model as it is wanted from the pruned one."""
        taken = value.take(self.positions, axis)
        for row, position in enumerate(self.positions.tolist()):
            if position in self.means:
                origins, weights = zip(*self.means[position].items())
                mean = np.tensordot(np.asarray(weights, value.dtype), value.take(origins, axis), (0, axis))
                np.moveaxis(taken, axis, 0)[row] = mean
        return taken


@dataclass(frozen=True)
class SurgeryReport:
    """What was removed from a model, over all pruning passes so far.

    Attributes:
        groups: Each group that lost units, in order; a group pruned twice is there twice.
        shapes: The shapes of the unpruned model's parameters by name, for those that were cut.
        macs_before: Multiply-accumulates an inference of the unpruned model.
        macs_after: The same of the pruned model.
        params_before: Parameters of the unpruned model.
        params_after: The same of the pruned model.
        blocks: The results of the blocks that were left out as a whole.
    """

    groups: list[GroupSurgery]
    shapes: dict[str, list[int]] = field(default_factory=dict)
    macs_before: int = 0
    macs_after: int = 0
    params_before: int = 0
    params_after: int = 0
    blocks: list[str] = field(default_factory=list)

    def removed_positions(self) -> dict[tuple[str, int], np.ndarray]:
        """For each (parameter, axis) the positions of the unpruned model that are gone, ascending, int64."""
        found: dict[tuple[str, int], list[int]] = {}
        for group in self.groups:
            for member, positions in group.members.items():
                name, _, axis = member.rpartition(":")
                found.setdefault((name, int(axis)), []).extend(positions)
        return {key: np.unique(np.asarray(positions, np.int64)) for key, positions in found.items()}

    def kept_positions(self) -> dict[tuple[str, int], np.ndarray]:
        """For each (parameter, axis) that was cut the positions of the unpruned model left, ascending, int64."""
        return {
            (name, axis): np.setdiff1d(np.arange(self.shapes[name][axis]), positions)
            for (name, axis), positions in self.removed_positions().items()
        }

    def means(self) -> dict[tuple[str, int], dict[int, dict[int, float]]]:
        """What was folded, for each (parameter, axis) of those that make units: for positions of the unpruned model that are
        left and are no longer themselves, the positions that they are the mean of, and their weights."""
        found: dict[tuple[str, int], dict[int, dict[int, float]]] = {}
        for group in self.groups:
            for member, entries in group.merged.items():
                name, _, axis = member.rpartition(":")
                known = found.setdefault((name, int(axis)), {})
                for kept, positions, weights in entries:
                    whole: dict[int, float] = {}
                    for position, weight in zip(positions, weights):
                        for origin, share in known.get(position, {position: 1.0}).items():
                            whole[origin] = whole.get(origin, 0.0) + weight * share
                    known[kept] = whole
        return found

    def to_json(self) -> dict[str, Any]:
        """The report in JSON's own types."""
        # `dataclasses.asdict` copies every list element by element, which is slow for long lists of positions.
        return {**vars(self), "groups": [dict(vars(group)) for group in self.groups]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> SurgeryReport:
        """The report that `to_json` has written."""
        groups = [GroupSurgery(**group) for group in data["groups"]]
        # JSON has lists alone.
        groups = [replace(g, merged={key: [(*entry,) for entry in made] for key, made in g.merged.items()}) for g in groups]
        return SurgeryReport(**{**data, "groups": groups})

    def then(self, later: SurgeryReport) -> SurgeryReport:
        """This report followed by one on what this one left, told as one in terms of the unpruned model."""
        kept = self.kept_positions()

        def translate(member: str, positions: list[int]) -> list[int]:
            name, _, axis = member.rpartition(":")
            index = kept.get((name, int(axis)))
            return positions if index is None else [int(value) for value in index[positions]]

        groups = [
            GroupSurgery(
                group.name,
                group.size,
                group.removed,
                group.kept,
                {member: translate(member, positions) for member, positions in group.members.items()},
                group.reason,
                {
                    member: [(translate(member, [kept])[0], translate(member, of), shares) for kept, of, shares in made]
                    for member, made in group.merged.items()
                },
            )
            for group in later.groups
        ]
        return SurgeryReport(
            [*self.groups, *groups],
            {**later.shapes, **self.shapes},
            self.macs_before,
            later.macs_after,
            self.params_before,
            later.params_after,
            [*self.blocks, *later.blocks],
        )


def get_surgery(mod: tvm.IRModule) -> SurgeryReport | None:
    """What has been pruned away from a module; None where nothing was recorded."""
    if mod.attrs is None or SURGERY_ATTR not in mod.attrs:
        return None
    return SurgeryReport.from_json(json.loads(str(mod.attrs[SURGERY_ATTR])))


def add_surgery(mod: tvm.IRModule, report: SurgeryReport) -> tvm.IRModule:
    """Record `report`, on what the module was before, behind what is recorded already."""
    before = get_surgery(mod)
    whole = report if before is None else before.then(report)
    return mod.with_attr(SURGERY_ATTR, json.dumps(whole.to_json()))


def zero_channels(mod: tvm.IRModule, report: SurgeryReport) -> tvm.IRModule:
    """The unpruned module with everything zeroed that `report` says was removed; its output is the pruned module's.

    Args:
        mod: The module before any pruning.
        report: What was removed from it; blocks that were left out whole have no channels to zero.
    """
    params = {name: value.copy() for name, value in get_params(mod).items()}
    for (name, axis), positions in report.removed_positions().items():
        np.moveaxis(params[name], axis, 0)[positions] = 0
    return attach_params(mod, params)
