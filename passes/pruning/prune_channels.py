"""Structured pruning: whole channels leave the network, with everything that depends on them.

The network gets smaller tensors, not zeros, so that every kernel gets faster. What goes together is found by following
each channel through every operator (`tvmcompress.passes.channels`), as DepGraph (Fang et al., 2023) does on PyTorch
modules; on the compiler's IR it holds for every front end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .._tvm import tvm
from ..channels import ChannelGraph, Group, analyze, remove_units
from ..graph.adopt_module import model_pass
from ..graph.analysis import count_macs, count_params
from ..graph.module_params import get_params
from ..graph.remarks import Remark, add_remarks
from ..graph.surgery import GroupSurgery, SurgeryReport, add_surgery
from . import (
    activation_criteria,  # noqa: F401  (they register themselves)
    reconstruction_criterion,  # noqa: F401  (they register themselves)
    weight_criteria,  # noqa: F401  (they register themselves)
)
from .allocation import Allocation, allocate
from .folding import Clusters, Selector, folded, get_selector, merged_positions
from .importance import Criterion, Prepared, criterion_name, get_criterion, prepare, score


@model_pass("PruneChannels")
class PruneChannels:
    """Remove the channels that matter least.

    The pruned module computes what the module would compute with the same channels' parameters zeroed. What was removed
    is recorded, see `get_surgery`; groups that could not be pruned are named in the remarks, see `get_remarks`.

    Args:
        ratio: Fraction of the channels to remove, in (0, 1).
        importance: The name of a criterion (see `importance.CRITERIA`), or a function from a group
            and the parameter values to one score a unit, larger is more important.
        scope: "local" removes the fraction from every group, "global" from all groups together, "isomorphic" from all
            groups that are built alike.
        normalization: What scores are divided by before they are ranked with those of other groups, see `Allocation`.
        threshold: Remove the channels whose score lies below this, in the place of a ratio.
        samples: Calibration samples for criteria that run the network, one array an input, axis 0 the samples.
        round_to: The number of channels kept is a multiple of this where a group is large enough.
        exclude: Patterns of layers, groups or parameters to leave alone.
        ratios: Ratio by pattern, in [0, 1), where it shall differ.
        min_channels: Channels that every group keeps at least.
        selection: How units leave: "remove" cuts off those that matter least, "fold" merges as many into those that are
            alike, "best" does for each group what costs less behind a repair, on samples held back.

    Raises:
        UserError: An option is out of range, a pattern matches nothing, or a score is not finite.
    """

    def __init__(
        self,
        ratio: float = 0.5,
        *,
        importance: str | Criterion | Prepared = "l2",
        scope: str = "local",
        normalization: str = "mean",
        threshold: float | None = None,
        samples: Sequence[np.ndarray] | None = None,
        round_to: int = 1,
        exclude: Sequence[str] = (),
        ratios: Mapping[str, float] | None = None,
        min_channels: int = 1,
        selection: str = "remove",
    ) -> None:
        self.name = criterion_name(importance)
        self.selector = get_selector(selection, samples)
        self.criterion = get_criterion(importance, samples)
        self.allocation = Allocation(
            ratio,
            scope=scope,
            normalization=normalization,
            threshold=threshold,
            round_to=round_to,
            min_channels=min_channels,
            exclude=tuple(exclude),
            ratios=dict(ratios or {}),
        )

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the smaller module."""
        graph = analyze(mod)
        params = get_params(mod)
        criterion = prepare(self.criterion, mod)
        scores = {group.name: score(criterion, group, params) for group in graph.groups}
        units = allocate(graph.groups, scores, self.allocation)
        reason = f"lowest importance ({self.name}, {self.allocation.scope})"
        return prune(mod, graph, units, reason, selector=self.selector)


def prune(
    mod: tvm.IRModule,
    graph: ChannelGraph,
    units: Mapping[str, np.ndarray],
    reason: str,
    pass_name: str = "PruneChannels",
    selector: Selector | None = None,
) -> tvm.IRModule:
    """Remove units, and record what went and what could not be considered.

    Args:
        mod: A module, parameter values attached.
        graph: Its analysis.
        units: The units to remove by group name, at least one staying in each group.
        reason: How they were chosen, for the record.
        pass_name: Whose remarks they are.
        selector: Folds what it says, as many units as would be removed.
    """
    clusters: dict[str, Clusters] = {}
    whole = mod
    if selector is not None and units:
        clusters, refused = selector(mod, graph, units)
        whole = add_remarks(folded(mod, graph, clusters), [Remark(pass_name, *entry) for entry in refused.items()])
        units = {**units, **{name: found.removed for name, found in clusters.items()}}
    pruned = remove_units(whole, graph, units)
    pruned = add_remarks(pruned, [Remark(pass_name, group.name, _refusal(group)) for group in graph.frozen])
    if pruned is mod or not units:
        return pruned
    return add_surgery(pruned, record(mod, pruned, graph.groups, units, reason, clusters))


def record(
    before: tvm.IRModule,
    after: tvm.IRModule,
    groups: Sequence[Group],
    units: Mapping[str, np.ndarray],
    reason: str,
    clusters: Mapping[str, Clusters],
) -> SurgeryReport:
    """The report of one removal, in part by folding."""
    shapes = {name: list(value.shape) for name, value in get_params(before).items()}
    entries = []
    cut: set[str] = set()
    for group in groups:
        if group.name not in units:
            continue
        gone = np.asarray(units[group.name], np.int64)
        members = {
            f"{name}:{axis}": np.sort(positions[gone].ravel()).tolist() for (name, axis), positions in group.members.items()
        }
        cut.update(name for name, _ in group.members)
        kept = np.setdiff1d(np.arange(group.size), gone)
        merged = merged_positions(group, clusters[group.name]) if group.name in clusters else {}
        why = f"{reason}; merged into those kept" if merged else reason
        entries.append(GroupSurgery(group.name, group.size, gone.tolist(), kept.tolist(), members, why, merged))
    return SurgeryReport(
        entries,
        {name: shape for name, shape in shapes.items() if name in cut},
        count_macs(before),
        count_macs(after),
        count_params(before),
        count_params(after),
    )


def _refusal(group: Group) -> str:
    return f"its {group.size} channels stay: {group.frozen}"
