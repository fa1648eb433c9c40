"""Trying one point: from the cheapest question to the dearest, so that hopeless points cost little.

First the model is pruned, which is cheap, and its weights are counted: flash cannot be less. Then it is made, and its answers
on few samples are compared: a point that loses clearly too much is left there. Then come all samples, and only what keeps to
the accuracy is built and measured on the target.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compression import CompressionResult, compress
from ..data.dataset import Dataset
from ..data.splits import spread
from ..errors import DiskFullError, MissingToolError, UserError
from ..evaluation.output_comparison import OutputComparison, OutputQuality
from ..measuring.benchmarking import benchmark
from ..measuring.record import BuildRecord
from ..model import Model
from ..passes.graph.analysis import count_macs
from ..passes.pruning.cost_model import CostModel
from ..targets.registry import get_target
from ..targets.remote.boards import BoardPool
from ..targets.remote.energy import here
from .goal import Goal, doubt, lost, no_energy
from .record import SearchPoint
from .space import Point

FEW = 64
"""Samples of the first look at a model's answers."""

_ROUNDING = 1e-9

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Samples:
    """What a search works on.

    Attributes:
        calibration, training: As for `compress`; None where not given.
        search: On which points are compared; none of them calibrated on.
    """

    calibration: Dataset | None
    training: Dataset | None
    search: Dataset


def require_energy(goal: Goal, boards: BoardPool | None) -> None:
    """Refuse a goal of little energy where nothing reports any; boards are known only when they are asked.

    Raises:
        UserError: The target runs under an emulator, or on this machine, which reports none.
    """
    if goal.minimize != "energy" or boards is not None:
        return
    if get_target(goal.target).description.source == "qemu" or here() is None:
        raise UserError(no_energy(goal.target))


class Attempts:
    """Tries points of one model.

    Args:
        model: Float.
        samples: What to work on.
        goal: What is wanted.
        folder: Where results of steps are kept, which later points use again.
        options: Of every build, by family.
        boards: Where models run, of families that a TVM RPC server serves.
        on_progress: Told what is being done, how much of it, out of how much.

    Attributes:
        original: The quality of the original on the samples of the search.
        unit: Of costs; known behind the first measurement.

    Raises:
        UserError: Energy is to be made small, and the target reports none.
    """

    def __init__(
        self,
        model: Model,
        samples: Samples,
        goal: Goal,
        folder: Path,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        boards: BoardPool | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.model, self.samples, self.goal, self.folder = model, samples, goal, folder
        self._cache, self._boards, self._progress = folder / "cache", boards, on_progress
        require_energy(goal, boards)
        self._options = {family: dict(given) for family, given in (options or {}).items()}
        self._family = get_target(goal.target).description.family
        self._all = OutputComparison(model, samples.search)
        few = spread(samples.search, FEW)
        self._few = (OutputComparison(model, few), len(few)) if len(few) < len(samples.search) else None
        self.original = self._all.original
        self.unit = ""

    def compressed(self, point: Point) -> CompressionResult:
        """The model of a point."""
        if not point.recipe.entries():
            return CompressionResult.untouched(self.model)
        return compress(
            self.model,
            self.samples.calibration,
            recipe=point.recipe,
            train_data=self.samples.training if point.recipe.has("finetune") else None,
            target=self.goal.target,
            cache=self._cache,
            on_progress=self._progress,
        )

    def build_options(self, point: Point) -> dict[str, dict[str, Any]]:
        """Those of every build, and the point's own."""
        return {**self._options, self._family: {**self._options.get(self._family, {}), **point.build}}

    def try_point(self, number: int, point: Point) -> SearchPoint:
        """Try a point as far as it is worth.

        Raises:
            MissingToolError: A tool is missing; no other point could be tried either.
            UserError: Energy is to be made small, and the board reports none.
            DiskFullError: There is no room for results.
        """
        begun = time.perf_counter()
        words, recipe, build = point.words(), point.recipe, point.build
        found = self._tried(SearchPoint(number=number, words=words, recipe=recipe, build=build, stage="bounds"))
        return found.model_copy(update={"seconds": round(time.perf_counter() - begun, 2)})

    def _tried(self, record: SearchPoint) -> SearchPoint:
        point = Point(record.recipe, record.build)
        try:
            too_large = self._bounds(point)
            if too_large is not None:
                return record.model_copy(update={"reason": too_large})
            result = self.compressed(point)
            model, removed = result.model, _removed(result)
        except (MissingToolError, DiskFullError):
            raise
        except UserError as error:
            return record.model_copy(update={"reason": str(error)})
        record = record.model_copy(update={"macs": count_macs(model.module), "removed": removed})
        if self._few is not None:
            comparison, count = self._few
            record, lost_so_far, quality = self._judged(record, "few samples", comparison(model))
            if lost_so_far - doubt(quality, count) > self.goal.max_drop:
                return record.model_copy(update={"reason": f"on {count} samples it loses {lost_so_far:.1f} already"})
        record, lost_in_all, _ = self._judged(record, "samples", self._all(model))
        if lost_in_all > self.goal.max_drop + _ROUNDING:
            return record.model_copy(update={"reason": f"it loses {lost_in_all:.2f}, and {self.goal.max_drop:g} are allowed"})
        return self._measured(record, model, point)

    def _judged(self, record: SearchPoint, stage: str, quality: OutputQuality) -> tuple[SearchPoint, float, OutputQuality]:
        loss = lost(quality, self.original)
        return record.model_copy(update={"stage": stage, "quality": quality, "lost": loss}), loss, quality

    def _bounds(self, point: Point) -> str | None:
        """Why the pruned model cannot keep to a limit, whatever is done with it further."""
        limit, quantize = self.goal.max_flash, point.recipe.quantize
        if limit is None or quantize is None or quantize.layers or quantize.precision == "int4":
            return None
        pruning = point.recipe.only(lambda name: name == "prune")
        pruned = self.model
        if pruning.entries():
            pruned = compress(
                self.model, self.samples.calibration, recipe=pruning, target=self.goal.target, cache=self._cache
            ).model
        constants = int(CostModel(pruned.module, [], "int8").whole["constants"])
        return None if constants <= limit else f"its weights take {constants:,} bytes, and {limit:,} bytes of flash are allowed"

    def _measured(self, record: SearchPoint, model: Model, point: Point) -> SearchPoint:
        if self._progress is not None:
            self._progress("build and measure", 0, 1)
        (build,) = self.built({"point": model}, point)
        measured = build.measurement
        if measured is None:
            return record.model_copy(update={"stage": "build", "reason": build.problem})
        self.unit = self.goal.unit(measured)
        over = self.goal.exceeded(measured)
        figures = {"cost": self.goal.cost(measured), "flash_bytes": measured.flash_bytes, "ram_bytes": measured.ram_bytes}
        reason = None if over is None else f"it takes {over}, which is more than allowed"
        return record.model_copy(update={**figures, "stage": "measured", "reason": reason, "feasible": over is None})

    def built(self, models: Mapping[str, Model], point: Point, output: Path | None = None) -> list[BuildRecord]:
        """Models built for the target as a point has it, checked and measured."""
        return benchmark(
            models,
            [self.goal.target],
            samples=self.samples.search,
            output=output,
            build_options=self.build_options(point),
            boards=self._boards,
        )


def _removed(result: CompressionResult) -> dict[str, float]:
    """By group, the fraction of its channels that is gone."""
    if result.surgery is None:
        return {}
    return {group.name: len(group.removed) / group.size for group in result.surgery.groups}
