"""What a search for precisions tries, and what it chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UserError
from ..evaluation.output_comparison import OutputQuality
from ..passes import Remark
from ..recipe.quantize import Precision
from ..targets.record import Record


class Trial(Record):
    """One version that was tried.

    Attributes:
        precisions: By layer, where it is another than the first of the ladder.
        samples: On how many samples.
        quality: What its outputs are worth.
        weight_bytes: Bytes of its constants.
    """

    precisions: dict[str, Precision]
    samples: int
    quality: OutputQuality
    weight_bytes: int


class PrecisionChoice(Record):
    """What was chosen.

    Attributes:
        limit: What had to hold, in words.
        max_drop: The limit of answers lost; None where there was none.
        samples: Samples that it was measured on.
        original: The quality of the float model on them.
        precisions: By layer, of all layers whose precision was open.
        macs: Multiply-accumulates by layer.
        steps: The versions tried in full, in order; the last is the one chosen.
    """

    limit: str
    max_drop: float | None
    samples: int
    original: OutputQuality
    precisions: dict[str, Precision]
    macs: dict[str, int]
    steps: tuple[Trial, ...]

    def layers_in(self, trial: Trial) -> dict[Precision, int]:
        """How many layers a version has in each precision."""
        return self._sums(trial, dict.fromkeys(self.macs, 1))

    def macs_in(self, trial: Trial) -> dict[Precision, float]:
        """Which share of the multiply-accumulates a version has in each precision."""
        total = max(sum(self.macs.values()), 1)
        return {precision: count / total for precision, count in self._sums(trial, self.macs).items()}

    def summary(self) -> str:
        """Which layers are in which precision, in a few words."""
        chosen = self.steps[-1]
        layers = ", ".join(f"{count} layers {precision}" for precision, count in self.layers_in(chosen).items())
        return f"{layers}: {self.limit}, on {self.samples} samples, {len(self.steps)} versions tried"

    def remarks(self) -> list[Remark]:
        """What to know of how it was chosen."""
        found = []
        one = 100 / self.samples
        if self.max_drop is not None and one > self.max_drop > 0:
            text = f"one of the {self.samples} samples is {one:.2g} points: the limit allows for no other answer; give more"
            found.append(Remark("mixed precision", "limit", text))
        if set(self.precisions.values()) == {"float32"}:
            text = "all layers whose precision was open stay in float: with fewer bits the limit is not met"
            found.append(Remark("mixed precision", "precisions", text))
        return found

    def _sums(self, trial: Trial, of: Mapping[str, int]) -> dict[Precision, int]:
        found: dict[Precision, int] = {}
        for layer, value in of.items():
            precision = trial.precisions[layer]
            found[precision] = found.get(precision, 0) + value
        return found


@dataclass(frozen=True)
class Limit:
    """What quantization may cost.

    Attributes:
        max_drop: Points of accuracy; without labels, percent of answers that are others than the original's.
        min_snr: The least signal-to-noise ratio of the output in dB.
    """

    max_drop: float | None = None
    min_snr: float | None = None

    def met(self, quality: OutputQuality, original: OutputQuality) -> bool:
        """Whether a version keeps to it."""
        return (self.max_drop is None or drop(quality, original) <= self.max_drop + 1e-9) and (
            self.min_snr is None or quality.snr >= self.min_snr
        )

    def words(self, original: OutputQuality) -> str:
        """It as a clause.

        Raises:
            UserError: There are no labels, and the highest output means nothing.
        """
        parts = []
        if self.max_drop is not None:
            if original.accuracy is None and original.agreement is None:
                raise UserError(
                    "max_drop counts answers, and this model gives none that could be compared; "
                    "limit the noise of its output instead (--min-snr 20)"
                )
            labelled = original.accuracy is not None
            what = "accuracy at most {} points lower" if labelled else "at most {} % of the answers others (no labels)"
            parts.append(what.format(f"{self.max_drop:g}"))
        if self.min_snr is not None:
            parts.append(f"signal-to-noise ratio of the output at least {self.min_snr:g} dB")
        return " and ".join(parts)


def drop(quality: OutputQuality, original: OutputQuality) -> float:
    """Points of accuracy lost; without labels, percent of answers that changed."""
    if quality.accuracy is not None and original.accuracy is not None:
        return 100 * (original.accuracy - quality.accuracy)
    return 100 * (1 - (quality.agreement or 0.0))
