"""How much each group of channels matters: prune it alone by several ratios, and look at the output.

from tvmcompress.sensitivity.channels import measure_sensitivity

found = measure_sensitivity(model, data, ratios=(0.25, 0.5, 0.75), save="sensitivity.json")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from ..data.dataset import Dataset
from ..errors import UserError
from ..evaluation.noise import decibel
from ..evaluation.output_comparison import OutputComparison, fingerprint
from ..model import Model
from ..passes import groups as channel_groups
from ..passes.channels import ChannelGraph, Group, analyze, remove_units
from ..passes.graph.module_params import get_params
from ..passes.pruning.allocation import Allocation, allocate
from ..passes.pruning.damage_curves import DamageCurves
from ..passes.pruning.importance import get_criterion, prepare, score
from ..targets.record import Record
from .record import AnalysisRecord

DEFAULT_RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)


class SensitivityPoint(Record):
    """What removing a share of one group did.

    Attributes:
        ratio: The share asked for.
        removed: Units removed.
        error: Squared error of the output, relative to the square of the original's.
        accuracy: Share of samples classified right; None without labels.
    """

    ratio: float
    removed: int
    error: float
    accuracy: float | None = None

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio of the output in dB."""
        return decibel(1.0, self.error)


class GroupSensitivity(Record):
    """One group.

    Attributes:
        name: Its name.
        size: Its units.
        points: What was measured, by ascending ratio.
    """

    name: str
    size: int
    points: tuple[SensitivityPoint, ...] = ()


class Sensitivity(AnalysisRecord):
    """Of a whole model.

    Attributes:
        importance: The criterion that chose the units.
        samples: How many samples were looked at.
        ratios: The shares tried.
        accuracy: Of the unpruned model; None without labels.
        groups: What was measured.
    """

    KIND: ClassVar[str] = "sensitivity; measure it with `tvmcompress sensitivity`"

    importance: str
    samples: int
    ratios: tuple[float, ...]
    accuracy: float | None = None
    groups: tuple[GroupSensitivity, ...] = ()

    def importance_of(self, samples: Sequence[np.ndarray] | None) -> DamageCurves:
        """A criterion that ranks as the measurement did and compares groups by what was measured."""
        curves = {
            group.name: [(point.removed / group.size, point.error) for point in _distinct(group.points)]
            for group in self.groups
            if group.points
        }
        return DamageCurves(get_criterion(self.importance, samples), curves)


def measure_sensitivity(
    model: Model,
    data: Dataset,
    *,
    importance: str | None = None,
    ratios: Sequence[float] = DEFAULT_RATIOS,
    save: str | os.PathLike[str] | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Sensitivity:
    """Measure every prunable group.

    Args:
        model: A float model.
        data: Samples; with labels the accuracy is measured, too.
        importance: Criterion that ranks the units of a group; "output_energy" by default.
        ratios: Shares of the units to remove, in (0, 1).
        save: A file that is written after every measurement, and gone on with if it is there and fits.
        on_progress: Told measurements done, out of how many, and the group.

    Raises:
        UserError: Nothing can be pruned, a ratio is out of range, or the data does not fit.
    """
    shares = tuple(sorted({float(ratio) for ratio in ratios}))
    if not shares or not all(0 < share < 1 for share in shares):
        raise UserError("the ratios of a sensitivity analysis lie between 0 and 1, both excluded, at least one")
    if len(data) == 0:
        raise UserError("sensitivity is measured on samples, and there are none")
    name = importance or "output_energy"
    graph = analyze(model.module)
    if not graph.groups:
        reason = next((group.frozen for group in channel_groups(model.module) if group.frozen), "it has no channels")
        raise UserError(f"nothing in the model can be pruned: {reason}")
    whole = OutputComparison(model, data)
    found = Sensitivity(
        fingerprint=fingerprint(model, data, options=name),
        importance=name,
        samples=len(data),
        ratios=shares,
        accuracy=whole.original.accuracy,
    )
    known = _known(Sensitivity.earlier(save, found.fingerprint))
    params = get_params(model.module)
    criterion = prepare(get_criterion(name, data.inputs()), model.module)
    total, done = len(graph.groups) * len(shares), 0
    entries: list[GroupSensitivity] = []
    for group in graph.groups:
        scores = score(criterion, group, params)
        points: list[SensitivityPoint] = []
        for ratio in shares:
            point = known.get((group.name, ratio))
            if point is None:
                point = _point(model, graph, group, scores, ratio, whole)
            points.append(point)
            done += 1
            entry = GroupSensitivity(name=group.name, size=group.size, points=tuple(points))
            found = found.model_copy(update={"groups": (*entries, entry)})
            if save is not None and (group.name, ratio) not in known:
                found.save(save)
            if on_progress is not None:
                on_progress(done, total, group.name)
        entries.append(entry)
    if save is not None:
        found.save(save)
    return found


def _point(
    model: Model, graph: ChannelGraph, group: Group, scores: np.ndarray, ratio: float, measure: OutputComparison
) -> SensitivityPoint:
    units = allocate([group], {group.name: scores}, Allocation(ratio))
    removed = len(units.get(group.name, ()))
    if not removed:
        return SensitivityPoint(ratio=ratio, removed=0, error=0.0, accuracy=measure.original.accuracy)
    pruned = Model(remove_units(model.module, graph, units), model.inputs)
    quality = measure(pruned)
    return SensitivityPoint(ratio=ratio, removed=removed, error=quality.error, accuracy=quality.accuracy)


def _distinct(points: Sequence[SensitivityPoint]) -> list[SensitivityPoint]:
    """One point for each number of units removed; small groups lose the same for several ratios."""
    return list({point.removed: point for point in points if point.removed}.values())


def _known(earlier: Sensitivity | None) -> dict[tuple[str, float], SensitivityPoint]:
    groups = () if earlier is None else earlier.groups
    return {(group.name, point.ratio): point for group in groups for point in group.points}
