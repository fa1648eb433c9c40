"""Training what compression has left: the same structure, better weights.

from tvmcompress import finetune

tuned = finetune(pruned, "train.npz", teacher=original, epochs=10, augment=("flip", "crop"), checkpoint="run/")
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np

from ..data.dataset import DataLike, Dataset, load_data
from ..errors import UserError
from ..model import Model
from ..passes._tvm import relax
from ..passes.graph.rebuild import bindings
from ..passes.pruning.sparsify import get_masks
from ..recipe.recipe import FinetuneRecipe, as_finetune_recipe
from .augment import augment
from .backend import Tensor, load_torch
from .bridge import TorchModel
from .checkpoint import Checkpoint
from .objective import Objective
from .teachers import Hints, Teachers

_EVALUATED_AT_ONCE = 256
_SMALLEST = 1e-3
"""Parameters whose root mean square is below this, biases of zero for instance, learn as if it were this."""
_LARGEST_GRADIENT = 5.0
_STATISTICS = {"relax.nn.batch_norm": (3, 4)}
"""Arguments that are no weights: they follow the data, and a variance must not become negative."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Score:
    """What a model is worth on the samples held back: the loss, and the share classified right (None if unknown)."""

    loss: float
    accuracy: float | None

    def __str__(self) -> str:
        return f"loss {self.loss:.4g}" + ("" if self.accuracy is None else f", accuracy {self.accuracy:.2%}")


def finetune(
    model: Model,
    data: DataLike | Dataset,
    *,
    teacher: Model | Sequence[Model] | None = None,
    checkpoint: str | PathLike[str] | None = None,
    on_progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Train a float model, mostly one that has been pruned; weights that `Sparsify` has zeroed stay zero.

    A share of the samples is held back; the weights of the epoch that does best on them are kept, those that the model came
    with among them. Normalizations keep their statistics.

    Args:
        model: The model.
        data: What it learns from, with class numbers as labels where it shall be told them; see
            `tvmcompress.data.load_data`.
        teacher: A model with the same inputs and outputs, as a rule the original, to come close to; several teach together.
            Without labels it is all there is to learn from, except for models that give back their input. What is made
            small, see `Objective`, and `Hints` for what goes on inside.
        checkpoint: A folder in which the state after every epoch is kept: a run that was stopped goes on there.
        on_progress: Told batches done, out of how many.
        options: Fields of `FinetuneRecipe`: epochs, learning_rate, optimizer, batch_size, and so on.

    Returns:
        The model with other weights.

    Raises:
        MissingToolError: PyTorch is not installed.
        UnsupportedOperatorError: There are no gradients for an operator.
        UserError: An option is out of range, the data does not fit or is too little, or the loss becomes infinite.
    """
    load_torch()
    recipe = as_finetune_recipe(options)
    assert recipe is not None
    samples = data if isinstance(data, Dataset) else load_data(data, model.inputs)
    training = Training(model, TorchModel(model.module), samples, teacher, recipe)
    return training.run(None if checkpoint is None else Checkpoint(checkpoint, training.fingerprint()), on_progress)


class Training:
    """One run: the network, what it learns from, and where it is; arguments as of `finetune`, and the model in PyTorch."""

    def __init__(
        self, model: Model, network: TorchModel, data: Dataset, teacher: Model | Sequence[Model] | None, recipe: FinetuneRecipe
    ) -> None:
        self._torch = load_torch()
        self._model, self._data, self._recipe = model, data, recipe
        self._network = network
        models = [] if teacher is None else [teacher] if isinstance(teacher, Model) else list(teacher)
        if recipe.hints and not models:
            raise UserError("hints are from a teacher's layers; give one (--distill)")
        network.tap(list(recipe.hints))
        self._teacher = Teachers(models, list(recipe.hints.values())) if models else None
        self._hints: Hints | None = None
        self._teacher_outputs: list[Tensor] | None = None
        if recipe.augment and any(len(spec.shape) != 4 or spec.layout == "NHWC" for spec in model.inputs[:1]):
            raise UserError("flips and crops are for images, channels first; leave augment empty for this model")
        self._weights = {
            name: tensor
            for name, tensor in self._network.tensors.items()
            if tensor.requires_grad and tensor.ndim and name not in _statistics(model)
        }
        self._masks = {
            name: self._torch.from_numpy(mask) for name, mask in get_masks(model.module).items() if name in self._weights
        }
        self._step = max(1, recipe.batch_size // data.specs[0].shape[0]) * data.specs[0].shape[0]
        self._learned, self._held = self._split()
        self._objective, self._labels = self._prepare()

    def fingerprint(self) -> str:
        """Of all that the outcome depends on."""
        digest = hashlib.sha256(self._recipe.model_dump_json().encode())
        for network in (self._network, *(() if self._teacher is None else self._teacher.networks)):
            for name, tensor in network.tensors.items():
                digest.update(name.encode() + tensor.detach().numpy().tobytes())
        some = self._data.pick(np.linspace(0, len(self._data) - 1, min(16, len(self._data)), dtype=np.int64))
        for value in (*some, np.int64(len(self._data))):
            digest.update(value.tobytes())
        if self._labels is not None:
            digest.update(self._labels.tobytes())
        return digest.hexdigest()[:16]

    def run(self, checkpoint: Checkpoint | None, on_progress: Progress | None) -> Model:
        """Train, and return the best."""
        recipe = self._recipe
        optimizer = self._optimizer()
        first = self._score()
        state: dict[str, Any] = {
            "epoch": 0, "best": self._values(), "best_epoch": 0, "loss": first.loss, "accuracy": first.accuracy,
        }  # fmt: skip
        if checkpoint is not None and (found := checkpoint.load()) is not None:
            state = found
            self._set(state["weights"])
            optimizer.load_state_dict(state["optimizer"])
        batches = max(1, len(self._learned) // self._step)
        patience = recipe.epochs if recipe.patience is None else recipe.patience
        while state["epoch"] < recipe.epochs and state["epoch"] - state["best_epoch"] < patience:
            epoch = state["epoch"]
            self._epoch(epoch, batches, optimizer, on_progress)
            score = self._score()
            if score.loss < state["loss"]:
                state |= {"best": self._values(), "best_epoch": epoch + 1, "loss": score.loss, "accuracy": score.accuracy}
            state["epoch"] = epoch + 1
            if checkpoint is not None:
                checkpoint.save({**state, "weights": self._values(), "optimizer": optimizer.state_dict()})
        self._set(state["best"])
        best = Score(state["loss"], state["accuracy"])
        note = f"fine-tuned: {state['epoch']} epochs on {len(self._learned)} samples; held back: {first}, then {best}"
        tuned = self._network.trained(self._model)
        return replace(tuned, provenance=(*tuned.provenance, note))

    def _prepare(self) -> tuple[Objective, np.ndarray | None]:
        with self._torch.no_grad():
            inputs = self._inputs(self._parts(self._held)[0])
            outputs = self._network(*inputs)
            if self._teacher is not None:
                taught = self._teacher(*inputs)
                shapes = [[tuple(value.shape[1:]) for value in values] for values in (taught[: len(outputs)], outputs)]
                if shapes[0] != shapes[1] or len(taught) != len(outputs) + len(self._recipe.hints):
                    raise UserError(
                        f"the teacher's outputs have other shapes than the model's ({shapes[0]} and {shapes[1]} a sample); "
                        "give one with the same outputs, as the model it was made from"
                    )
                if self._recipe.hints:
                    self._hints = Hints(self._recipe.hints, self._network.tapped(), taught[len(outputs) :])
                    self._weights |= self._hints.maps
        objective = Objective(
            outputs,
            inputs,
            labels=self._data.labels is not None,
            teacher=self._teacher is not None,
            temperature=self._recipe.temperature,
            alpha=self._recipe.alpha,
        )
        if self._data.labels is None or objective.classes is None:
            return objective, None
        return objective, objective.classes.checked(self._data.labels[: len(self._data)], len(self._data))

    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        """The samples that are learned from and those held back, which are in the first batch's order."""
        unit = self._data.specs[0].shape[0]
        runs = len(self._data) // unit
        held = max(1, round(runs * self._recipe.validation))
        if runs - held < 1:
            raise UserError(f"fine-tuning needs at least two samples, one to hold back; {self._data.source} has {runs}")
        order = np.random.default_rng(self._recipe.seed).permutation(runs)
        rows = order[:, None] * unit + np.arange(unit)
        return rows[held:].ravel(), rows[:held].ravel()

    def _epoch(self, epoch: int, batches: int, optimizer: Any, on_progress: Progress | None) -> None:
        rng = np.random.default_rng([self._recipe.seed, epoch])
        unit = self._data.specs[0].shape[0]
        order = rng.permutation(self._learned.reshape(-1, unit)).ravel()
        # Of another set every time, what is left over is left out.
        for index in range(batches):
            done = epoch * batches + index
            rate = 0.5 * (1 + math.cos(math.pi * done / (self._recipe.epochs * batches)))
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate
            self._learn(order[index * self._step : (index + 1) * self._step], rng, optimizer)
            if on_progress is not None:
                on_progress(done + 1, self._recipe.epochs * batches)

    def _learn(self, indices: np.ndarray, rng: np.random.Generator, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss, _ = self._loss(indices, rng)
        if not bool(loss.isfinite()):
            raise UserError(f"the loss became {float(loss.detach())} while fine-tuning; lower the learning rate")
        loss.backward()
        self._torch.nn.utils.clip_grad_norm_(list(self._weights.values()), _LARGEST_GRADIENT)
        optimizer.step()
        with self._torch.no_grad():
            for name, mask in self._masks.items():
                self._weights[name].mul_(mask)

    def _loss(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> tuple[Tensor, int | None]:
        """The loss of some samples, changed at random where there is chance, and how many are classified right."""
        inputs = self._inputs(indices, rng)
        labels = None if self._labels is None else self._torch.from_numpy(self._labels[indices])
        taught = None
        if self._teacher is not None:
            with self._torch.no_grad():
                taught = self._taught(indices) if rng is None or not self._recipe.augment else self._teacher(*inputs)
        outputs = self._network(*inputs)
        own = None if taught is None else taught[: len(outputs)]
        loss = self._objective(outputs, inputs=inputs, labels=labels, teacher=own)
        if self._hints is not None and taught is not None:
            loss = loss + self._recipe.hint_weight * self._hints(self._network.tapped(), taught[len(outputs) :])
        return loss, self._objective.correct(outputs, labels)

    def _taught(self, indices: np.ndarray) -> list[Tensor]:
        """The teacher's outputs for samples as they are, computed once."""
        assert self._teacher is not None
        if self._hints is not None:  # of all samples they would take too much memory
            return self._teacher(*self._inputs(indices))
        if self._teacher_outputs is None:
            parts = [self._teacher(*self._inputs(part)) for part in self._parts(np.arange(len(self._data)))]
            self._teacher_outputs = [self._torch.cat(values) for values in zip(*parts)]
        rows = self._torch.from_numpy(indices)
        per_sample = [len(value) // len(self._data) for value in self._teacher_outputs]
        if any(count != 1 for count in per_sample):
            return self._teacher(*self._inputs(indices))
        return [value[rows] for value in self._teacher_outputs]

    def _score(self) -> Score:
        loss, right = 0.0, 0
        known: int | None = 0
        with self._torch.no_grad():
            for part in self._parts(self._held):
                value, known = self._loss(part)
                loss += float(value) * len(part)
                right += known or 0
        return Score(loss / len(self._held), None if known is None else right / len(self._held))

    def _parts(self, indices: np.ndarray) -> list[np.ndarray]:
        unit = self._data.specs[0].shape[0]
        step = max(1, _EVALUATED_AT_ONCE // unit) * unit
        return [indices[start : start + step] for start in range(0, len(indices), step)]

    def _inputs(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> list[Tensor]:
        values = self._data.pick(indices)
        if rng is not None and self._recipe.augment:
            values[0] = augment(values[0], self._recipe.augment, rng)
        return [self._torch.from_numpy(value) for value in values]

    def _optimizer(self) -> Any:
        recipe = self._recipe
        rate, decay = recipe.learning_rate, recipe.weight_decay
        if recipe.optimizer == "sgd":
            groups = [{"params": list(self._weights.values()), "initial_lr": rate, "lr": rate}]
            return self._torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0, weight_decay=decay)
        groups = []
        for tensor in self._weights.values():
            own = rate * max(float(tensor.detach().square().mean().sqrt()), _SMALLEST)
            groups.append({"params": [tensor], "initial_lr": own, "lr": own})
        return self._torch.optim.AdamW(groups, betas=(recipe.momentum, 0.999), weight_decay=decay)

    def _values(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._weights.items()}

    def _set(self, values: dict[str, Tensor]) -> None:
        with self._torch.no_grad():
            for name, value in values.items():
                self._weights[name].copy_(value)


def _statistics(model: Model) -> set[str]:
    """The parameters that are statistics of normalizations."""
    names: set[str] = set()
    for _, value in bindings(model.module["main"]):
        if isinstance(value, relax.Call):
            arguments: Sequence[int] = _STATISTICS.get(getattr(value.op, "name", ""), ())
            names |= {value.args[index].name for index in arguments if isinstance(value.args[index], relax.Var)}
    return names
