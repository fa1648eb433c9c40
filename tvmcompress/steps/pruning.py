"""The first half of the road: remove blocks, heads and channels as a recipe asks, and repair what stays."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..errors import LimitError, ToolError, UserError
from ..model import Model
from ..passes import (
    PruneBlocks,
    PruneChannels,
    PruneHeads,
    PruneToBudget,
    Reconstruct,
    Sparsify,
    get_remarks,
    get_surgery,
)
from ..passes._tvm import tvm
from ..passes.graph.analysis import count_macs, count_params, layers
from ..passes.graph.peak_memory import peak_activations
from ..passes.graph.remarks import Remark, add_remarks
from ..passes.pruning.cost_model import CostModel, Precision
from ..passes.pruning.importance import Prepared
from ..passes.pruning.sparsify import get_masks
from ..recipe.recipe import PruneRecipe, SparsifyRecipe
from ..sensitivity.channels import Sensitivity
from ..targets.emulators.artifact import EmulatedArtifact
from ..targets.registry import get_target
from ..training import GRADIENT_CRITERIA
from .progress import Road

CRITERION_SAMPLES = 200
"""Samples on which criteria that run the network look at activations; more hardly change a ranking."""

_ROUNDS_UNREPAIRED = 2
"""Rounds in which a budget is reached where nothing repairs the weights; after repair one is better."""

_REPAIR_BYTES = 1 << 28
"""The largest tensor of a repair, which runs on all its samples at once, takes at most this."""

_FITTING_ROUNDS = 6
_FITTED = 0.98
"""A measured limit counts as met from this share of it on."""

_ENOUGH = 0.5
"""A multiple of channels that nobody asked for stays where at least this share of what was asked to go goes."""

Finish = Callable[[Model], Model]


def default_importance(data: Dataset | None) -> str:
    """The criterion where none is named."""
    return "l2" if data is None else "output_energy"


def prune(
    road: Road,
    original: Model,
    data: Dataset | None,
    options: PruneRecipe,
    *,
    target: str | None = None,
    multiple: int = 1,
    precision: Precision = "float32",
    finish: Finish | None = None,
) -> Model:
    """Prune and repair.

    Args:
        road: Keeps the time.
        original: The float model.
        data: Calibration samples; without them nothing is repaired and criteria see the weights alone.
        options: What is wanted.
        target: What the model is compressed for, whose flash and RAM the limits mean.
        multiple: Channels kept are a multiple of this where the options do not say; a smaller one where it keeps most of what
            was asked to go.
        precision: What the model will be in.
        finish: What is done to the pruned model before it is built, for measuring it on the target.

    Raises:
        UserError: Nothing can be removed, a budget cannot be met, or calibration data is missing.
    """
    with road.step("prune") as say:
        pruned = _remove_blocks(road, original, data, options)
        pruned = _remove_heads(pruned, data, options)
        if options.channels:
            pruned = _Channels(original, data, options, multiple, precision, target, finish).remove(pruned)
        if get_surgery(pruned.module) is None:
            raise UserError(_nothing_removed(pruned, options))
        say(
            f"{count_macs(original.module):,} to {count_macs(pruned.module):,} multiply-accumulates, "
            f"{count_params(original.module):,} to {count_params(pruned.module):,} parameters"
        )
    return repair(road, pruned, original, data) if options.reconstruct else pruned


def repair(road: Road, model: Model, original: Model, data: Dataset | None) -> Model:
    """Solve for the weights that stay, where there is calibration data."""
    with road.step("repair") as say:
        if data is None:
            say("left out: it needs calibration data")
            return model
        samples = data.first(repair_samples(original))
        reconstruct = Reconstruct(
            original.module, samples.inputs(), on_progress=lambda done, total, _: road.tell("repair", done, total)
        )
        repaired = model.apply(reconstruct, note=f"weights repaired by least squares on {len(samples)} samples")
        say(f"by least squares on {len(samples)} samples")
    return repaired


def sparsify(road: Road, model: Model, original: Model, data: Dataset | None, options: SparsifyRecipe) -> Model:
    """Zero single weights, and repair the others where there is calibration data."""
    with road.step("sparsify") as say:
        removal = Sparsify(
            options.sparsity,
            method=options.method,
            scope=options.scope,
            threshold=options.threshold,
            pattern=options.kept_of,
            exclude=options.exclude,
        )
        sparse = model.apply(removal, note=f"sparsified: {options.describe()}, {options.scope}")
        masks = get_masks(sparse.module).values()
        zeros, weights = (sum(count(mask) for mask in masks) for count in (lambda mask: int((~mask).sum()), np.size))
        say(f"{options.describe()}: {zeros:,} of {weights:,} weights are zero")
    return repair(road, sparse, original, data) if options.reconstruct and data is not None else sparse


def _remove_blocks(road: Road, model: Model, data: Dataset | None, options: PruneRecipe) -> Model:
    if not options.blocks:
        return model
    if data is None:
        raise UserError("blocks are ranked on calibration data; give samples of what the model will see (--calib data.npz)")
    removal = PruneBlocks(
        data.first(CRITERION_SAMPLES).inputs(),
        options.blocks,
        exclude=options.exclude,
        on_progress=lambda done, total, _: road.tell("rank blocks", done, total),
    )
    return model.apply(removal, note=f"pruned: up to {options.blocks} blocks")


def _remove_heads(model: Model, data: Dataset | None, options: PruneRecipe) -> Model:
    if options.heads is None:
        return model
    removal = PruneHeads(
        options.heads,
        importance=_criterion(options.importance or default_importance(data), data),
        scope=options.scope,
        samples=_samples(data),
    )
    return model.apply(removal, note=f"pruned: {options.heads:g} of the attention heads")


class _Channels:
    """The removal of channels; where the target's flash or RAM is limited, until the built model fits it."""

    def __init__(
        self,
        original: Model,
        data: Dataset | None,
        options: PruneRecipe,
        multiple: int,
        precision: Precision,
        target: str | None,
        finish: Finish | None,
    ) -> None:
        self._original = original
        self._options = options
        self._precision: Precision = precision
        self._target = target
        self._finish = finish
        self._name = options.importance or default_importance(data)
        self._normalization = options.normalization
        # Measured damages are those of the whole network: they do not rank what a first round has left.
        anew = options.sensitivity is None and (data is None or not options.reconstruct)
        self._rounds = options.rounds or (_ROUNDS_UNREPAIRED if anew else 1)
        importance = _criterion(self._name, data)
        if options.sensitivity is not None:
            found = Sensitivity.load(options.sensitivity)
            self._name, importance = f"sensitivity, {found.importance}", found.importance_of(_samples(data))
            # Damages compare between groups as they are.
            self._normalization = options.normalization or "none"
        self._common: dict[str, Any] = {
            "importance": importance,
            "samples": _samples(data),
            "round_to": options.round_to or multiple,
            "min_channels": options.min_channels,
            "exclude": options.exclude,
        }

    def remove(self, model: Model) -> Model:
        """The model with fewer channels."""
        multiple: int = self._common["round_to"]
        if self._options.round_to is not None or multiple == 1:
            return self._removed(model)
        wanted: int | None = None
        for smaller in (step for step in range(multiple, 0, -1) if multiple % step == 0):
            self._common["round_to"] = smaller
            try:
                pruned = self._removed(model)
            except LimitError:  # not met so
                if smaller == 1:
                    raise
                continue
            gone = count_macs(model.module) - count_macs(pruned.module)
            if wanted is None and not self._plenty(model, gone):
                self._common["round_to"] = 1
                wanted = count_macs(model.module) - count_macs(self._removed(model).module)
            if gone >= _ENOUGH * (wanted or 0):
                return pruned if smaller == multiple else _said(pruned, multiple, smaller)
        return pruned

    def _plenty(self, model: Model, gone: int) -> bool:
        """Whether what is gone is enough without a look at what would be without a multiple."""
        if self._options.budgets:
            return True
        return self._options.ratio is not None and gone >= _ENOUGH * self._options.ratio * count_macs(model.module)

    def _removed(self, model: Model) -> Model:
        options = self._options
        limited = options.max_flash is not None or options.max_ram is not None
        if limited and self._target is not None:
            return self._fit(model)
        if options.budgets:
            return self._within(model, options.max_ram, options.max_flash)
        removal = PruneChannels(
            options.ratio or 0.5,
            scope=options.scope,
            normalization=self._normalization or "mean",
            threshold=options.threshold,
            ratios=options.ratios,
            **self._common,
        )
        return self._apply(model, removal)

    def _apply(self, model: Model, removal: tvm.transform.Pass) -> Model:
        return model.apply(removal, note=f"pruned: {self._options.describe()}, {self._name}")

    def _within(self, model: Model, ram: float | None, constants: float | None) -> Model:
        """Prune to the budgets as far as they can be told without building; blocks and heads gone count for them."""
        options = self._options
        macs, params = (
            _share_left(fraction, count(self._original.module), count(model.module))
            for fraction, count in ((options.target_macs, count_macs), (options.target_params, count_params))
        )
        if (macs, params, ram, constants) == (None, None, None, None):
            return model
        removal = PruneToBudget(
            macs,
            params,
            max_ram=ram,
            max_constants=constants,
            precision=self._precision,
            normalization=self._normalization,
            rounds=self._rounds,
            **self._common,
        )
        return self._apply(model, removal)

    def _fit(self, model: Model) -> Model:
        """Prune, build, and correct the limits by what was built, until it fits closely."""
        max_ram, max_flash = self._options.max_ram, self._options.max_flash
        ram: float | None = max_ram
        constants: float | None = max_flash
        fitting: Model | None = None
        flash = arena = 0
        for _ in range(_FITTING_ROUNDS):
            trial = self._within(model, ram, constants)
            flash, arena = self._built(trial)
            predicted = CostModel(trial.module, [], self._precision).whole
            if (max_flash is None or flash <= max_flash) and (max_ram is None or arena <= max_ram):
                fitting = trial
                flash_used = flash >= _FITTED * (max_flash or math.inf)
                if flash_used or arena >= _FITTED * (max_ram or math.inf) or get_surgery(trial.module) is None:
                    return trial
            if max_flash is not None:
                constants = max_flash - (flash - predicted["constants"])
            if max_ram is not None:
                ram = max_ram - (arena - peak_activations(trial.module) * (1 if self._precision == "int8" else 4))
            if min(constants or 1, ram or 1) <= 0:
                break
        if fitting is None:
            raise LimitError(
                f"the model does not fit: built for {self._target} it still takes {flash:,} bytes of flash and "
                f"{arena:,} bytes of RAM for activations; allow more, exclude fewer layers, or choose another model"
            )
        return fitting

    def _built(self, model: Model) -> tuple[int, int]:
        """Bytes of flash and of the arena of a model built for the target."""
        assert self._target is not None
        target = get_target(self._target)
        finished = model if self._finish is None else self._finish(model)
        with tempfile.TemporaryDirectory(prefix="tvmcompress-") as scratch:
            # What does not fit the board yet is pruned further.
            try:
                artifact = target.build(finished.module, Path(scratch) / "build", check_memory=False)
            except ToolError as error:
                raise ToolError(error.sentence) from error  # the log goes with the folder
            assert isinstance(artifact, EmulatedArtifact)
            info = artifact.info
            return info.code_bytes + info.constant_bytes, info.arena_bytes


def _said(model: Model, multiple: int, smaller: int) -> Model:
    """The model with a remark that a smaller multiple was taken."""
    kept = f"multiples of {smaller} are" if smaller > 1 else "any number is"
    sentence = f"{kept} kept, not multiples of {multiple} as suits the targets, which would keep most of what shall go"
    return replace(model, module=add_remarks(model.module, [Remark("PruneChannels", "channels", sentence)]))


def _samples(data: Dataset | None) -> list[np.ndarray] | None:
    return None if data is None else data.first(CRITERION_SAMPLES).inputs()


def _criterion(name: str, data: Dataset | None) -> str | Prepared:
    """The criterion of a name; one that can use labels gets those that the data has."""
    if name not in GRADIENT_CRITERIA or data is None or data.labels is None:
        return name
    few = data.first(CRITERION_SAMPLES)
    return GRADIENT_CRITERIA[name](few.inputs(), data.labels[: len(few)])


def _share_left(fraction: float | None, whole: int, now: int) -> float | None:
    """A fraction of the whole as a fraction of what there is now; None where that is little enough already."""
    if fraction is None or now <= fraction * whole:
        return None
    return fraction * whole / now


def _nothing_removed(model: Model, options: PruneRecipe) -> str:
    reasons = [f"{remark.subject}: {remark.message}" for remark in get_remarks(model.module)]
    hint = "the model is within the budget already" if options.budgets else "ask for a larger ratio"
    return "no channel could be removed" + (f" ({reasons[0]})" if reasons and not options.budgets else f"; {hint}")


def repair_samples(model: Model) -> int:
    """How many samples a repair may use."""
    largest = max(math.prod(layer.output_shape) for layer in layers(model.module)) * np.dtype(np.float32).itemsize
    return max(1, _REPAIR_BYTES // largest) * model.inputs[0].shape[0]
