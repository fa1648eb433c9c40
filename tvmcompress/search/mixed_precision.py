"""A precision for each layer, chosen under a limit on what quantization may cost.

All layers begin in the precision asked for. While the limit is not met, layers are raised to the next wider one, the most
sensitive first: sensitivity is the error of the output when a layer alone is quantized, and how many are raised is found by
galloping and bisection, so that few versions are tried in full. Choosing by measured sensitivity follows Dong et al., "HAWQ"
(2019), and Wu et al., "Integer Quantization for Deep Learning Inference" (2020, section 5.2: partial quantization).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

from ..data.dataset import Dataset
from ..data.splits import spread, without
from ..errors import LimitError, UserError
from ..evaluation.output_comparison import OutputComparison, fingerprint
from ..model import Model
from ..passes import Range
from ..passes.graph.analysis import param_bytes
from ..passes.quantization.units import QuantizationUnit
from ..recipe.quantize import Precision, QuantizeRecipe
from ..sensitivity.record import AnalysisRecord
from .precision_choice import Limit, PrecisionChoice, Trial
from .precision_trials import free_units, quantized, with_precisions

LADDERS: dict[Precision, tuple[Precision, ...]] = {
    "int4": ("int4", "int8", "int16x8", "float32"),
    "int8": ("int8", "int16x8", "float32"),
    "uint8": ("uint8", "int16x8", "float32"),
    "int16x8": ("int16x8", "float32"),
    "float16": ("float16", "float32"),
}
"""What layers are raised to, in turn, by the precision that they begin in."""

ORDER_SAMPLES = 64
"""Samples on which the sensitivity that orders the layers is measured: errors are told apart on fewer than answers."""

Progress = Callable[[str, int, int], None]


class TrialLog(AnalysisRecord):
    """All versions tried so far: a search that was interrupted goes on with them.

    Attributes:
        trials: In order.
    """

    KIND: ClassVar[str] = "log of a search for precisions"

    trials: tuple[Trial, ...] = ()


def choose_precisions(
    model: Model,
    ranges: Mapping[str, Range],
    data: Dataset,
    options: QuantizeRecipe,
    *,
    calibration: Dataset | None = None,
    save: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
) -> PrecisionChoice:
    """Choose a precision for each layer that the recipe does not name.

    Args:
        model: Float.
        ranges: Of its tensors, for any precision; see `quantization.find_ranges`.
        data: Samples to measure on, none of them calibrated on; labels are used where there are some.
        options: The precision to begin with, the limit (`max_drop`, `min_snr`), and all else.
        calibration: Samples for the repairs that the recipe asks for; only versions tried in full are repaired.
        save: A file that is written after every trial, and gone on with if it is there and fits.
        on_progress: Told what is being done, how much of it, out of how much.

    Raises:
        UserError: There is nothing to choose, or no answers to count.
    """
    if options.precision not in LADDERS:
        raise UserError(f"a search begins with one of {', '.join(LADDERS)}; {options.precision} leaves nothing to choose")
    units = free_units(model, options)
    return _Search(model, ranges, data, options, units, calibration, save, on_progress).run()


class _Search:
    def __init__(
        self,
        model: Model,
        ranges: Mapping[str, Range],
        data: Dataset,
        options: QuantizeRecipe,
        units: Sequence[QuantizationUnit],
        calibration: Dataset | None,
        save: str | os.PathLike[str] | None,
        on_progress: Progress | None,
    ) -> None:
        self.model, self.ranges, self.options, self.units = model, ranges, options, units
        self.ladder = LADDERS[options.precision]
        self.limit = Limit(options.max_drop, options.min_snr)
        self.calibration, self.save, self.on_progress = calibration, save, on_progress
        self.samples = len(data)
        self.full = OutputComparison(model, data)
        self.few = spread(data, ORDER_SAMPLES)
        self._order_comparison: OutputComparison | None = None
        seen = f"{options.model_dump_json(exclude={'max_drop', 'min_snr'})}{sorted(ranges.items())}"
        self.log = TrialLog(fingerprint=fingerprint(model, data, options=seen))
        self.log = TrialLog.earlier(save, self.log.fingerprint) or self.log
        self.steps: list[Trial] = []

    def run(self) -> PrecisionChoice:
        words = self.limit.words(self.full.original)
        chosen = self._solve({unit.name: self.ladder[0] for unit in self.units})
        return PrecisionChoice(
            limit=words,
            max_drop=self.options.max_drop,
            samples=self.samples,
            original=self.full.original,
            precisions=chosen,
            macs={unit.name: unit.macs for unit in self.units},
            steps=tuple(self.steps),
        )

    def _solve(self, start: dict[str, Precision]) -> dict[str, Precision]:
        """Raise layers step by step, then put back those that need not have been raised so far."""
        passed: list[tuple[Precision, Precision]] = []
        found, current = None, start
        for low, high in pairwise(self.ladder):
            found = self._raise_fewest(current, low, high)
            if found is not None:
                break
            passed.append((low, high))
            current = dict.fromkeys(current, high)
        if found is None:
            raise LimitError(
                "the limit cannot be met even with all other layers in float32; "
                "the precisions that the recipe fixes cost too much"
            )
        for low, high in reversed(passed):
            lowered = {name: low if precision == high else precision for name, precision in found.items()}
            found = self._raise_fewest(lowered, low, high) or found
        chosen = self._trial(found)
        self.steps = [*(step for step in self.steps if step != chosen), chosen]
        return found

    def _raise_fewest(self, start: dict[str, Precision], low: Precision, high: Precision) -> dict[str, Precision] | None:
        """`start` with as few layers as possible raised from `low` to `high`; None if all are too few."""

        def version(count: int) -> dict[str, Precision]:
            raised = set(order()[:count]) if count else set()
            return {name: high if name in raised else precision for name, precision in start.items()}

        movable = [name for name, precision in start.items() if precision == low]
        known: list[list[str]] = []

        def order() -> list[str]:
            if not known:
                known.append(self._by_sensitivity(movable, low))
            return known[0]

        def meets(count: int) -> bool:
            trial = self._trial(version(count))
            if trial not in self.steps:
                self.steps.append(trial)
            return self.limit.met(trial.quality, self.full.original)

        count = fewest(len(movable), meets)
        return None if count is None else version(count)

    def _by_sensitivity(self, names: Sequence[str], precision: Precision) -> list[str]:
        """Layers by the error of the output when they alone have a precision, the largest first."""
        errors: dict[str, float] = {}
        for number, name in enumerate(names):
            if self.on_progress is not None:
                self.on_progress(f"sensitivity, {precision}", number, len(names))
            alone: dict[str, Precision] = {unit.name: "float32" for unit in self.units}
            errors[name] = self._trial({**alone, name: precision}, ordering=True).quality.error
        return sorted(names, key=lambda name: -errors[name])

    def _trial(self, precisions: dict[str, Precision], ordering: bool = False) -> Trial:
        samples = len(self.few) if ordering else self.samples
        for trial in self.log.trials:
            if trial.precisions == precisions and trial.samples == samples:
                return trial
        if not ordering and self.on_progress is not None:
            self.on_progress("versions tried", len(self.steps), len(self.steps) + 1)
        repaired = None if ordering else self.calibration
        version = quantized(self.model, self.ranges, self.options, self.units, precisions, repaired)
        trial = Trial(
            precisions=precisions,
            samples=samples,
            quality=self._comparison(ordering)(version),
            weight_bytes=param_bytes(version.module),
        )
        self.log = self.log.model_copy(update={"trials": (*self.log.trials, trial)})
        if self.save is not None:
            self.log.save(self.save)
        return trial

    def _comparison(self, ordering: bool) -> OutputComparison:
        if not ordering or len(self.few) == self.samples:
            return self.full
        if self._order_comparison is None:
            self._order_comparison = OutputComparison(self.model, self.few)
        return self._order_comparison


def search_samples(data: Dataset, calibration: Dataset | None) -> Dataset:
    """The samples that precisions may be chosen on: those that are not calibrated on.

    Raises:
        UserError: There is none.
    """
    left = data if calibration is None else without(data, calibration)
    if len(left) == 0:
        raise UserError(f"all samples of {data.source} are calibrated on; precisions are chosen on others (--search-data)")
    return left


def chosen_recipe(options: QuantizeRecipe, model: Model, choice: PrecisionChoice) -> QuantizeRecipe:
    """The recipe that gives what was chosen without searching."""
    plain = options.model_copy(update={"max_drop": None, "min_snr": None})
    found = with_precisions(plain, free_units(model, options), choice.precisions)
    # What was tried was repaired like this.
    return found if found.repairs == options.repairs else found.model_copy(update={"repair": options.repairs})


def fewest(total: int, enough: Callable[[int], bool]) -> int | None:
    """The smallest of 0 to `total` that is enough, if whatever is above one that is enough is enough too.

    Tries 0, 1, 2, 4, ... and bisects between the last two, so that small answers take few trials. What it returns was
    tried.

    Returns:
        None where not even `total` is enough.
    """
    if enough(0):
        return 0
    low, high = 0, min(1, total)
    while high > low and not enough(high):
        low, high = high, min(2 * high, total)
    if high == low:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high
