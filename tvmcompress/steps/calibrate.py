"""Finding the ranges of activations as a recipe asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..data.dataset import Dataset
from ..model import Model
from ..passes import Range, Scheme, calibrate, get_remarks
from ..passes.numbers.schemes import Precision, Schemes
from ..passes.quantization.plan import plan_quantization
from ..passes.quantization.sampled_masks import MasksFromSamples, has_candidates
from ..passes.quantization.tensor_dtypes import clipped_bits
from ..passes.repair.smooth_scales import FAR_APART, gains_far_apart
from ..recipe.quantize import QuantizeRecipe
from ..recipe.steps import CalibrateRecipe, RepairRecipe
from .base import Context, Need, State, Step
from .compiled import compiled_statistics
from .progress import ProgressReporter
from .repair import Repair

_BATCH = 32


class Calibrate(Step[QuantizeRecipe]):
    """Finds the ranges of the activations of a float model, for what is quantized as its options say."""

    name, activity, Options = "calibrate", "quantization", CalibrateRecipe
    reads = frozenset({"calibration"})
    keeps_ranges = True

    @classmethod
    def planned(cls, options: Any, before: Sequence[Step[Any]], following: str) -> list[Step[Any]]:
        """An entry of its own serves whatever quantization comes behind it."""
        return [cls(options.for_any_precision())]

    @property
    def needs(self) -> frozenset[Need]:
        """Calibration data."""
        return frozenset({"calibration"})

    def key(self, context: Context) -> dict[str, Any]:
        """Observers, which layers stay in float, and where there are few integers: other precisions have the same ranges."""
        options = self.options
        floats = [(pattern, scheme["precision"] in ("float16", "float32")) for pattern, scheme in options.schemes().items()]
        observers = {name: (layer.observer, layer.observer_options) for name, layer in options.layers.items()}
        kept = options.model_dump(mode="json", include={"observer", "observer_options", "exclude"})
        few = [scheme for scheme in options.schemes().items() if scheme[1]["activation_bits"] < 7]
        gains = options.needs_ranges and options.repair is None
        return {**kept, "floats": floats, "few": few, "observers": observers, "any": options.searches, "gains": gains}

    def run(self, state: State, context: Context) -> State:
        """Find the ranges; before, scale that spreads the channels of a normalization is moved into the weights behind it,
        unless the recipe says what is repaired, and what samples show to be masks of attention becomes such."""
        assert context.calibration is not None
        if self.options.needs_ranges and self.options.repair is None and gains_far_apart(state.model.module):
            state = Repair(RepairRecipe(method="smooth", options={"apart": FAR_APART})).run(state, context)
        if self.options.needs_ranges and has_candidates(state.model.module):
            masked = state.model.apply(MasksFromSamples(context.calibration.batches(_BATCH)))
            if len(get_remarks(masked.module)) > len(get_remarks(state.model.module)):
                # What is computed stays the same on samples, so the model before quantization is the one before this.
                state = replace(state, model=masked, ranges={}, chosen=None)
        return replace(state, ranges=find_ranges(state.model, context.calibration, self.options, context.progress))


def find_ranges(
    model: Model, data: Dataset, options: QuantizeRecipe, progress: ProgressReporter | None = None
) -> dict[str, Range]:
    """The ranges of the activations of a float model on samples, by tensor.

    They serve any precision of its layers, and layers that stay in float as the recipe has it.
    """
    if not options.needs_ranges:
        return {}
    progress = progress or ProgressReporter()
    formats = Schemes(schemes(options), options.exclude)
    excluded = formats.stays_float
    whole = plan_quantization(model.module)
    tensors = whole.observed | plan_quantization(model.module, excluded).observed
    if options.searches:
        # Whatever layers stay in float in the end, what is cut are tensors that are cut where none does.
        tensors |= {var.name for var in whole.points}
    with progress.step("calibrate") as describe:
        ranges = calibrate(
            model.module,
            data.batches(_BATCH),
            options.observer,
            options=options.observer_options,
            overrides={
                # A layer's result is called after the layer and what follows it.
                pattern: (layer.observer, layer.observer_options)
                for name, layer in options.layers.items()
                if layer.observer is not None
                for pattern in (name, f"{name}.*")
            },
            tensors=tensors,
            levels={name: 2**bits for name, bits in clipped_bits(model.module, formats).items()},
            on_progress=lambda done: progress.update("calibrate", done, len(data)),
            statistics=compiled_statistics(model.module, tensors, len(data)),
        )
        describe(f"{len(ranges)} tensors on {len(data)} samples, {options.observer}")
    return ranges


def schemes(options: QuantizeRecipe) -> dict[str, Precision | Scheme]:
    """The number formats that a recipe says, by patterns of layers."""
    return {pattern: Scheme(**values) for pattern, values in options.schemes().items()}
