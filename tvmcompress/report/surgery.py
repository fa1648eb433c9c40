"""What pruning removed, group by group."""

from __future__ import annotations

import numpy as np

from ..compression import CompressionResult
from ..passes.channels import analyze
from ..passes.pruning.cost_model import CostModel
from ..targets.record import Record


class PrunedGroup(Record):
    """What one group lost.

    Attributes:
        name: The group.
        before, after: Its channels (units).
        removed: The units that went, in the unpruned model.
        macs, params: Multiply-accumulates and parameters that this removal alone saves; None for a group that the unpruned
            model does not have in this form.
        reason: How the units were chosen.
    """

    name: str
    before: int
    after: int
    removed: tuple[int, ...]
    macs: int | None
    params: int | None
    reason: str


class SurgeryRecord(Record):
    """What pruning removed from a model.

    Attributes:
        macs_before, macs_after: Multiply-accumulates of an inference.
        params_before, params_after: Parameters.
        blocks: Results of the blocks that were left out.
        groups: Each group that lost channels.
    """

    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    blocks: tuple[str, ...]
    groups: tuple[PrunedGroup, ...]


def surgery_record(result: CompressionResult) -> SurgeryRecord | None:
    """The record of a compression; None where nothing was pruned."""
    surgery = result.surgery
    if surgery is None:
        return None
    model = CostModel(result.original.module, analyze(result.original.module).groups)
    place = {(group.name, group.size): index for index, group in enumerate(model.groups)}
    records = []
    for group in surgery.groups:
        macs = params = None
        index = place.get((group.name, group.size))
        if index is not None:
            alone = np.zeros(len(model.groups))
            alone[index] = len(group.removed)
            cost = model.cost(alone)
            macs, params = (round(model.whole[name] - cost[name]) for name in ("macs", "params"))
        records.append(
            PrunedGroup(
                name=group.name,
                before=group.size,
                after=len(group.kept),
                removed=tuple(group.removed),
                macs=macs,
                params=params,
                reason=group.reason,
            )
        )
    return SurgeryRecord(
        macs_before=surgery.macs_before,
        macs_after=surgery.macs_after,
        params_before=surgery.params_before,
        params_after=surgery.params_after,
        blocks=tuple(surgery.blocks),
        groups=tuple(records),
    )
