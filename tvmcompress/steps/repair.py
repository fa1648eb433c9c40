"""Repair from calibration data alone, as a recipe asks for it.

Some repairs change the float model: they solve for the weights that pruning has left, train them towards the original, or make
the model quantize better, its results unchanged. The others choose integers anew in the quantized one. Each kind is applied in
the order of the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..errors import UserError
from ..model import Model
from ..passes import Reconstruct
from ..passes.graph.analysis import layers
from ..passes.repair.repairs import REPAIRS, make_repair
from ..recipe.finetune import FinetuneRecipe
from ..recipe.quantize import QuantizeRecipe
from ..recipe.steps import RepairRecipe
from ..recipe.table import read_table
from ..training.label_free import learn_from_original
from .base import Context, Need, State, Step
from .progress import ProgressReporter

_OF_PRUNED = ("reconstruct", "distill")
"""The repairs that need something to have been lost."""

_REPAIR_BYTES = 1 << 28
"""The largest tensor of a repair, which runs on all its samples at once, takes at most this."""


class Repair(Step[RepairRecipe]):
    """Repairs a float model.

    Args:
        options: See `RepairRecipe`.
        optional: Whether it is left out where there is no calibration data.

    Raises:
        UserError: There is no such repair, it is one of quantized models, or it does not take the options.
    """

    name, activity, Options = "repair", "repair", RepairRecipe
    reads = frozenset({"calibration"})

    def __init__(self, options: RepairRecipe, optional: bool = False) -> None:
        super().__init__(options)
        self._optional = optional
        method = options.method
        if method == "reconstruct" and (unknown := sorted(set(options.options) - {"ridge", "blocks"})):
            raise UserError(f"the repair does not take the options {', '.join(unknown)}; 'reconstruct' has ridge and blocks")
        if method == "distill":
            read_table(FinetuneRecipe, options.options, "repair.options.")
        elif method != "reconstruct" and not REPAIRS[method].of_float:
            raise UserError(f"'{method}' repairs quantized models; give it to 'quantize', as repair = [\"{method}\"]")

    @classmethod
    def planned(cls, options: RepairRecipe, before: Sequence[Step[Any]], following: str) -> list[Step[Any]]:
        """As it stands; at the beginning there is nothing that could be made good."""
        if not before and options.method in _OF_PRUNED:
            raise UserError("nothing is to be repaired before the first step; put 'repair' behind 'prune' or 'sparsify'")
        return [cls(options)]

    @classmethod
    def of_the_rest(cls, wanted: bool, following: str, blocks: bool = False) -> list[Step[Any]]:
        """The repair that belongs to a removal, unless it is the entry behind it or not wanted."""
        options = {"blocks": True} if blocks else {}
        return [cls(RepairRecipe(options=options), optional=True)] if wanted and following != cls.name else []

    @property
    def needs(self) -> frozenset[Need]:
        """Calibration data, but for what can go without; PyTorch to train."""
        if self.options.method == "distill":
            return frozenset({"calibration", "torch"})
        return frozenset() if self._optional or self.options.method == "equalize" else frozenset({"calibration"})

    def key(self, context: Context) -> dict[str, Any]:
        """The options, and what trains."""
        trains = {"torch": version("torch")} if self.options.method == "distill" else {}
        return {**super().key(context), **trains}

    def run(self, state: State, context: Context) -> State:
        """Repair the model."""
        method, data, model = self.options.method, context.calibration, state.model
        if method == "distill":
            return self._distill(state, context)
        if method != "reconstruct":
            samples = None if data is None else data.first(repair_samples(model)).inputs()
            with context.progress.step(method) as describe:
                made = make_repair(method, None, samples, self.options.options, context.progress.counter(method))
                note = REPAIRS[method].note
                # What is computed stays the same, so the model before quantization is the one before this repair.
                state = replace(state, model=model.apply(made, note=note), ranges={}, chosen=None)
                describe(note)
            return state
        with context.progress.step("repair") as describe:
            if data is None:
                describe("left out: it needs calibration data")
                return state
            model = solve_weights(model, state.original, data, context.progress.counter("repair"), **self.options.options)
            describe(model.provenance[-1].removeprefix("weights repaired "))
        return state.with_model(model)

    def _distill(self, state: State, context: Context) -> State:
        assert context.calibration is not None
        name = "distill"
        with context.progress.step(name) as describe:
            model = learn_from_original(
                state.model,
                state.original,
                context.calibration,
                on_progress=lambda done, total: context.progress.update(name, done, total),
                checkpoint=None if context.checkpoint is None else Path(context.checkpoint) / name,
                **self.options.options,
            )
            describe(model.provenance[-1])
        return state.with_model(model)


def solve_weights(
    model: Model, original: Model, data: Dataset, on_progress: Callable[[int, int, str], None], **options: Any
) -> Model:
    """A model whose layers are brought close to those of the one it was made of, by least squares.

    Args:
        model: The float model.
        original: What it was made of.
        data: Samples, of which as many are looked at as a repair may use.
        on_progress: Told what is done.
        options: As of `Reconstruct`: ridge, blocks.
    """
    few = data.first(repair_samples(original))
    how = ", block by block" if options.get("blocks") else ""
    repair = Reconstruct(original.module, few.inputs(), **options, on_progress=on_progress)
    return model.apply(repair, note=f"weights repaired by least squares on {len(few)} samples{how}")


def repair_integers(
    qdq: Model,
    reference: Model,
    data: Dataset | None,
    options: QuantizeRecipe,
    progress: ProgressReporter,
    checkpoint: str | PathLike[str] | None = None,
) -> Model:
    """A model in QDQ form after the repairs that choose integers anew.

    Args:
        qdq: The quantized model.
        reference: The float model that it was made from.
        data: Calibration samples; without them nothing is repaired.
        options: What is wanted.
        progress: Told what is done.
        checkpoint: A folder for the state of repairs that go on where they were.
    """
    names = [name for name in options.repairs if not REPAIRS[name].of_float]
    if data is None or not names:
        return qdq
    samples = data.first(repair_samples(reference))
    inputs = samples.inputs()
    for name in names:
        with progress.step(name) as describe:
            given = options.repair_options.get(name)
            folder = None if checkpoint is None else Path(checkpoint) / name
            made = make_repair(name, reference.module, inputs, given, progress.counter(name), folder)
            note = f"{REPAIRS[name].note} on {len(samples)} samples"
            qdq = qdq.apply(made, note=note)
            describe(note)
    return qdq


def repair_samples(model: Model) -> int:
    """How many samples a repair may use."""
    largest = max(math.prod(layer.output_shape) for layer in layers(model.module)) * np.dtype(np.float32).itemsize
    return max(1, _REPAIR_BYTES // largest) * model.inputs[0].shape[0]
