"""Removing blocks, heads and channels as a recipe asks."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..errors import LimitError, ToolError, UserError
from ..model import Model
from ..passes import PruneBlocks, PruneChannels, PruneHeads, PruneToBudget, get_remarks, get_surgery
from ..passes._tvm import tvm
from ..passes.channels.graph import analyze
from ..passes.graph.analysis import count_macs, count_params
from ..passes.graph.peak_memory import peak_activations
from ..passes.graph.remarks import Remark, add_remarks
from ..passes.pruning.allocation import matches
from ..passes.pruning.cost_model import CostModel, Precision
from ..passes.pruning.importance import Prepared
from ..recipe.prune import PruneRecipe
from ..recipe.quantize import QuantizeRecipe
from ..recipe.steps import RepairRecipe
from ..sensitivity.channels import Sensitivity
from ..targets.emulators.artifact import EmulatedArtifact
from ..targets.registry import get_target
from ..training.criteria import gradient_criterion
from .base import Context, Need, State, Step
from .calibrate import find_ranges
from .progress import ProgressReporter
from .quantize import quantize_model
from .repair import Repair

CRITERION_SAMPLES = 200
"""Samples on which criteria that run the network look at activations; more hardly change a ranking."""

_ROUNDS_UNREPAIRED = 2
"""Rounds in which a budget is reached where nothing repairs the weights; after repair one is better."""

_FITTING_ROUNDS = 8
_FITTED = 0.98
"""A measured limit counts as met from this share of it on."""

_ENOUGH = 0.5
"""A multiple of channels that nobody asked for stays where at least this share of what was asked to go goes."""

_DRAFT_SAMPLES = 32
"""Calibration samples of a model that is built for its size, which hardly depends on the ranges."""

_Finish = Callable[[Model], Model]


def default_importance(data: Dataset | None) -> str:
    """The criterion where none is named."""
    return "l2" if data is None else "output_energy"


class Prune(Step[PruneRecipe]):
    """Removes blocks, heads and channels."""

    name, activity, Options = "prune", "pruning", PruneRecipe
    reads = frozenset({"calibration"})

    @classmethod
    def planned(cls, options: PruneRecipe, before: Sequence[Step[Any]], following: str) -> list[Step[Any]]:
        """What is left is repaired, unless a step behind it does."""
        trained = [Repair(RepairRecipe(method="distill"))] if options.distill else []
        return [cls(options), *Repair.of_the_rest(options.reconstruct, following, options.solve_blocks), *trained]

    @property
    def needs(self) -> frozenset[Need]:
        """Calibration data to rank blocks and for gradients, and for these PyTorch."""
        gradients = self.options.sensitivity is None and gradient_criterion(self.options.importance) is not None
        compared = self.options.selection == "best"
        needed: set[Need] = {"calibration"} if self.options.blocks or gradients or compared else set()
        return frozenset(needed | {"torch"} if gradients else needed)

    def key(self, context: Context) -> dict[str, Any]:
        """The options, what was measured before, and what the model is to become where it is fitted to a target."""
        path, quantize = self.options.sensitivity, _quantization_ahead(context)
        measured = None if path is None else Sensitivity.load(path).model_dump(mode="json")
        draft = None if context.target is None or quantize is None else quantize.model_dump(mode="json")
        found = {"measured": measured, "integers": quantize is not None, "target": context.target, "draft": draft}
        return {**super().key(context), **found, "multiple": context.multiple}

    def run(self, state: State, context: Context) -> State:
        """Prune the model.

        Raises:
            UserError: Nothing can be removed, or a budget cannot be met.
        """
        options, data = self.options, context.calibration
        with context.progress.step("prune") as describe:
            pruned = _remove_blocks(state.model, data, options, context.progress)
            pruned = _remove_heads(pruned, data, options)
            if options.channels:
                pruned = _Channels(state.original, options, context).remove(pruned)
            if _removals(pruned) == _removals(state.model):
                raise UserError(_nothing_removed(pruned, options))
            describe(
                f"{count_macs(state.model.module):,} to {count_macs(pruned.module):,} multiply-accumulates, "
                f"{count_params(state.model.module):,} to {count_params(pruned.module):,} parameters"
            )
        return state.with_model(pruned)


def _quantization_ahead(context: Context) -> QuantizeRecipe | None:
    """How the model will be quantized; None where it will not."""
    return next((step.options for step in context.ahead if step.name in ("choose_precisions", "quantize")), None)


def _removals(model: Model) -> int:
    """How many groups and blocks have lost something so far."""
    surgery = get_surgery(model.module)
    return 0 if surgery is None else len(surgery.groups) + len(surgery.blocks)


def _remove_blocks(model: Model, data: Dataset | None, options: PruneRecipe, progress: ProgressReporter) -> Model:
    if not options.blocks:
        return model
    assert data is not None
    removal = PruneBlocks(
        data.first(CRITERION_SAMPLES).inputs(),
        options.blocks,
        exclude=options.exclude,
        on_progress=progress.counter("rank blocks"),
    )
    return model.apply(removal, note=f"pruned: up to {options.blocks} blocks")


def _remove_heads(model: Model, data: Dataset | None, options: PruneRecipe) -> Model:
    if options.heads is None:
        return model
    removal = PruneHeads(
        options.heads,
        importance=_criterion(options.importance or default_importance(data), data),
        selection=options.selection,
        scope=options.scope,
        samples=_samples(data),
    )
    return model.apply(removal, note=f"pruned: {options.heads:g} of the attention heads")


class _Channels:
    """The removal of channels; where the target's flash or RAM is limited, until the built model fits it."""

    def __init__(self, original: Model, options: PruneRecipe, context: Context) -> None:
        self._original, self._options, self._target = original, options, context.target
        data, quantize = context.calibration, _quantization_ahead(context)
        self._precision: Precision = "float32" if quantize is None else "int8"
        self._finish: _Finish | None = None if quantize is None or data is None else _draft(data, quantize)
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
            "round_to": options.round_to or context.multiple,
            "min_channels": options.min_channels,
            "selection": options.selection,
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
                return pruned if smaller == multiple else _with_remark(pruned, multiple, smaller)
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
        """Prune to the budgets as far as they can be estimated without building; blocks and heads gone count for them."""
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
        flash = arena = fitted = 0
        # Kernels are chosen by shape, so that a smaller model may take more code: what is tried next lies between what fitted
        # and what did not.
        least, most = 0.0, float(max_flash or 0)
        for _ in range(_FITTING_ROUNDS):
            trial = self._within(model, ram, constants)
            flash, arena = self._built(trial)
            predicted = CostModel(trial.module, [], self._precision).whole
            if (max_flash is None or flash <= max_flash) and (max_ram is None or arena <= max_ram):
                if flash >= fitted:
                    fitting, fitted = trial, flash
                flash_used = flash >= _FITTED * (max_flash or math.inf)
                if flash_used or arena >= _FITTED * (max_ram or math.inf) or _removals(trial) == _removals(model):
                    return trial
                least = max(least, constants or 0.0)
            else:
                most = min(most, constants or most)
            if max_flash is not None:
                constants = max_flash - (flash - predicted["constants"])
                if fitting is not None and max_ram is None and not least < constants < most:
                    constants = (least + most) / 2
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


def _with_remark(model: Model, multiple: int, smaller: int) -> Model:
    """The model with a remark that a smaller multiple was taken."""
    kept = f"multiples of {smaller} are" if smaller > 1 else "any number is"
    sentence = f"{kept} kept, not multiples of {multiple} as suits the targets, which would keep most of what shall go"
    return replace(model, module=add_remarks(model.module, [Remark("PruneChannels", "channels", sentence)]))


def _samples(data: Dataset | None) -> list[np.ndarray] | None:
    return None if data is None else data.first(CRITERION_SAMPLES).inputs()


def _criterion(name: str, data: Dataset | None) -> str | Prepared:
    """The criterion of a name; one that can use labels gets those that the data has."""
    made = gradient_criterion(name)
    if made is None or data is None or data.labels is None:
        return name
    few = data.first(CRITERION_SAMPLES)
    return made(few.inputs(), data.labels[: len(few)])


def _share_left(fraction: float | None, whole: int, now: int) -> float | None:
    """A fraction of the whole as a fraction of what there is now; None where that is little enough already."""
    if fraction is None or now <= fraction * whole:
        return None
    return fraction * whole / now


def _nothing_removed(model: Model, options: PruneRecipe) -> str:
    return f"no channel could be removed: {_why_nothing(model, options)}"


def _why_nothing(model: Model, options: PruneRecipe) -> str:
    """The cause; a multiple of channels that only suits the targets is none, since smaller ones are tried."""
    if options.budgets:
        return "the model is within the budget already"
    if not options.channels:
        reasons = [f"{remark.subject}: {remark.message}" for remark in get_remarks(model.module)]
        return reasons[-1] if reasons else "there are no attention heads or blocks to remove"
    graph = analyze(model.module)
    if not graph.groups:
        names: dict[str, list[str]] = {}
        for group in graph.frozen:
            names.setdefault(str(group.frozen), []).append(group.name)
        most = sorted(names.items(), key=lambda entry: -len(entry[1]))[:3]
        named = (f"{found[0]}{f' and {len(found) - 1} more' * (len(found) > 1)} ({reason})" for reason, found in most)
        return f"all groups of channels stay, above all {', '.join(named)}" if most else "the model has no layers with channels"
    sizes = [g.size * g.width for g in graph.groups if not any(matches(g, pattern) for pattern in options.exclude)]
    if not sizes:
        return "what is excluded are all groups that could lose channels; exclude less"
    largest = f"the largest group has {max(sizes)} channels"
    multiple, least = options.round_to or 1, options.min_channels
    if multiple > max(sizes) or least >= max(sizes):
        which = f"multiples of {multiple} (round_to)" if multiple > max(sizes) else f"at least {least} (min_channels)"
        return f"{which} shall be kept of each group, and {largest}; ask for less"
    if options.threshold is not None:
        return f"none scores below {options.threshold:g}; ask for a larger threshold"
    rounded = f", rounded to multiples of {multiple} (round_to)" if multiple > 1 else ""
    return f"{options.ratio:g} of each group{rounded} is not one channel, and {largest}; ask for a larger ratio"


def _draft(data: Dataset, options: QuantizeRecipe) -> _Finish:
    """Quantization from few samples."""
    few = data.first(_DRAFT_SAMPLES)
    return lambda model: quantize_model(model, find_ranges(model, few, options), options)[0]
