"""Training what compression has left: the same structure, better weights.

from tvmcompress import finetune

tuned = finetune(pruned, "train.npz", teacher=original, epochs=10, augment=("flip", "crop"), checkpoint="run/")
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
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
from .averaging import CLEARLY, PARTS_OF_THE_WAY, Average, between
from .backend import Tensor, load_torch
from .bridge import TorchModel
from .checkpoint import Checkpoint
from .held_back import learned_and_held
from .lesson import Change, Lesson
from .rates import find_rate, scheduled

_SMALLEST = 1e-3
"""Parameters whose root mean square is below this, biases of zero for instance, learn as if it were this."""
_LARGEST_GRADIENT = 5.0
_STATISTICS = {"relax.nn.batch_norm": (3, 4)}
"""Arguments that are no weights: they follow the data, and a variance must not become negative."""

Progress = Callable[[int, int], None]


class _NotFiniteError(ArithmeticError):
    """The loss is not a number, or infinite; says which."""


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
    change: Change | None = None,
    **options: Any,
) -> Model:
    """Train a float model, mostly one that has been pruned; weights that `Sparsify` has zeroed stay zero.

    A share of the samples is held back; the weights that do best on them are kept: those of an epoch, those that the model came
    with, or some between these and the last ones. Normalizations keep their statistics.

    Args:
        model: The model.
        data: What it learns from, with class numbers as labels where it shall be told them; see
            `tvmcompress.data.load_data`.
        teacher: A model with the same inputs and outputs, as a rule the original, to come close to; several teach together.
            Without labels it is all there is to learn from, except for models that give back their input. What is made
            small, see `Objective`, and `Hints` for what goes on inside.
        checkpoint: A folder in which the state after every epoch is kept: a run that was stopped goes on there.
        on_progress: Told batches done, out of how many.
        change: Changes samples at random before they are learned from, in the place of what the recipe's `augment` does: given
            one array an input, axis 0 the samples, and where chance comes from; returns such arrays.
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
    training = Training(model, TorchModel(model.module), samples, teacher, recipe, change=change)
    return training.run(None if checkpoint is None else Checkpoint(checkpoint, training.fingerprint()), on_progress)


class Training:
    """One run: the network, what it learns from, and where it is.

    Arguments are as of `finetune`, the model in PyTorch, and `split`, the numbers of the samples that are learned from and
    of those held back, in the place of the share that the recipe says. With none held back the last weights are kept.
    """

    def __init__(
        self,
        model: Model,
        network: TorchModel,
        data: Dataset,
        teacher: Model | Sequence[Model] | None,
        recipe: FinetuneRecipe,
        split: tuple[np.ndarray, np.ndarray] | None = None,
        change: Change | None = None,
    ) -> None:
        self._torch = load_torch()
        self._model, self._data, self.recipe = model, data, recipe
        self._network = network
        models = [] if teacher is None else [teacher] if isinstance(teacher, Model) else list(teacher)
        self._lesson = Lesson(model, network, data, models, recipe, change)
        self._weights = {
            name: tensor
            for name, tensor in self._network.tensors.items()
            if tensor.requires_grad and tensor.ndim and name not in _statistics(model)
        }
        self._masks = {
            name: self._torch.from_numpy(mask) for name, mask in get_masks(model.module).items() if name in self._weights
        }
        self._channels_last()
        self._rate = recipe.learning_rate
        self._average: Average | None = None
        self._step = max(1, recipe.batch_size // data.specs[0].shape[0]) * data.specs[0].shape[0]
        self._learned, self._held = learned_and_held(data, recipe) if split is None else split
        self._lesson.begin(self._held if len(self._held) else self._learned)
        self._weights |= self._lesson.maps

    def fingerprint(self) -> str:
        """Of all that the outcome depends on."""
        digest = hashlib.sha256(self.recipe.model_dump_json().encode())
        for network in (self._network, *self._lesson.teachers):
            for name, tensor in network.tensors.items():
                digest.update(name.encode() + tensor.detach().numpy().tobytes())
        some = self._data.pick(np.linspace(0, len(self._data) - 1, min(16, len(self._data)), dtype=np.int64))
        for value in (*some, np.int64(len(self._data))):
            digest.update(value.tobytes())
        digest.update(self._lesson.told())
        return digest.hexdigest()[:16]

    def run(self, checkpoint: Checkpoint | None, on_progress: Progress | None) -> Model:
        """Train, and return the best."""
        recipe = self.recipe
        first, before = self._score(), self.values()
        state: dict[str, Any] = {
            "epoch": 0, "best": before, "best_epoch": 0, "loss": first.loss, "accuracy": first.accuracy, "rate": None,
        }  # fmt: skip
        if checkpoint is not None and (found := checkpoint.load()) is not None:
            state = found
            self.put(state["weights"])
        self._rate = state["rate"] = state["rate"] or self._rate or find_rate(self)
        optimizer = self.optimizer(self._rate)
        batches = max(1, len(self._learned) // (self._step * recipe.accumulate))
        self._average = Average(self._weights, recipe.epochs * batches) if recipe.average else None
        if state["epoch"]:
            optimizer.load_state_dict(state["optimizer"])
            if self._average is not None:
                self._average.values, self._average.count = state["average"], state["epoch"] * batches
        patience = recipe.epochs if recipe.patience is None else recipe.patience
        ended = ""
        while state["epoch"] < recipe.epochs and state["epoch"] - state["best_epoch"] < patience:
            epoch = state["epoch"]
            try:
                self._epoch(epoch, batches, optimizer, on_progress)
            except _NotFiniteError as error:
                if not state["best_epoch"]:
                    raise UserError(f"the loss became {error} while fine-tuning; lower the learning rate") from None
                ended = f"; ended in epoch {epoch + 1}, where the loss became {error}: a lower learning rate may do better"
                break
            self._judge(epoch + 1, state)
            state["epoch"] = epoch + 1
            if checkpoint is not None:
                average = None if self._average is None else self._average.values
                checkpoint.save({**state, "weights": self.values(), "average": average, "optimizer": optimizer.state_dict()})
        part = self._part_of_the_way(before, first.loss, state)
        self.put(state["best"])
        best = Score(state["loss"], state["accuracy"])
        learned = f"{state['epoch']} epochs on {len(self._learned)} samples, learning rate {self._rate:.2g}{part}"
        tuned = self.result()
        return replace(tuned, provenance=(*tuned.provenance, f"fine-tuned: {learned}; held back: {first}, then {best}{ended}"))

    def result(self) -> Model:
        """The model with the weights as they are."""
        return self._network.trained(self._model)

    def loss(self, indices: np.ndarray) -> float:
        """The mean loss on samples as they are, of what the outputs tell alone."""
        with self._torch.no_grad():
            total = sum(float(self._lesson(part)[0]) * len(part) for part in self._lesson.parts(indices))
        return total / len(indices)

    def _judge(self, epoch: int, state: dict[str, Any]) -> None:
        """Keep the weights, or their average, if they are the best so far on the samples held back."""
        now = self.values()
        if not len(self._held):
            state |= {"best": now if self._average is None else self._average.values, "best_epoch": epoch}
            return
        for weights in [now] if self._average is None else [self._average.values, now]:
            if self._is_better(weights, state):
                state["best_epoch"] = epoch
        self.put(now)

    def _part_of_the_way(self, before: Mapping[str, Tensor], loss: float, state: dict[str, Any]) -> str:
        """Keep weights between those before training and the last ones, if they are clearly the best; says so then.

        Args:
            before: The weights before training.
            loss: Theirs on the samples held back.
            state: What is best so far.
        """
        if not len(self._held) or not state["epoch"]:
            return ""
        last, best = self.values() if self._average is None else self._average.values, 0.0
        margin = CLEARLY * max(0.0, loss - state["loss"])
        for part in PARTS_OF_THE_WAY:
            if self._is_better(between(before, last, part), state, margin):
                best, margin = part, 0.0
        return f", {best:.0%} of the way to the last weights" if best else ""

    def _is_better(self, weights: Mapping[str, Tensor], state: dict[str, Any], margin: float = 0.0) -> bool:
        """Whether weights are the best so far on the samples held back, by a margin of the loss; they are kept then."""
        self.put(weights)
        score = self._score()
        if not score.loss < state["loss"] - margin:
            return False
        best = {name: value.clone() for name, value in weights.items()}
        state |= {"best": best, "loss": score.loss, "accuracy": score.accuracy}
        return True

    def _epoch(self, epoch: int, batches: int, optimizer: Any, on_progress: Progress | None) -> None:
        seed, views = self.recipe.seed, self.recipe.views
        view = epoch if views is None else epoch % views
        rng = np.random.default_rng([seed, view])
        unit, parts = self._data.specs[0].shape[0], self.recipe.accumulate
        order = rng.permutation(self._learned.reshape(-1, unit)).ravel()
        # Batches that come again come in another order.
        turns = range(batches) if views is None else np.random.default_rng([seed, epoch, views]).permutation(batches).tolist()
        # Of another set every time, what is left over is left out.
        for count, index in enumerate(turns):
            done = epoch * batches + count
            rate = scheduled(done, self.recipe.epochs * batches, self.recipe.warmup)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate
            start = index * self._step * parts
            cuts = [order[start + part * self._step :][: self._step] for part in range(parts)]
            chance, again = (rng, None) if views is None else (np.random.default_rng([seed, view, index]), (view, index))
            self.learn([indices for indices in cuts if len(indices)], chance, optimizer, again)
            if self._average is not None:
                self._average.update()
            if on_progress is not None:
                on_progress(done + 1, self.recipe.epochs * batches)

    def learn(
        self, parts: Sequence[np.ndarray], rng: np.random.Generator, optimizer: Any, view: tuple[int, int] | None = None
    ) -> float:
        """One step on some samples, the gradients of several parts added up; the loss before it.

        Args:
            parts: Numbers of samples.
            rng: Where chance comes from.
            optimizer: That takes the step.
            view: By which teachers' answers are kept, where the same samples come again with the same chance.

        Raises:
            _NotFiniteError: The loss is not finite; the weights stay.
        """
        optimizer.zero_grad(set_to_none=True)
        total, count = 0.0, sum(len(indices) for indices in parts)
        for part, indices in enumerate(parts):
            loss = self._lesson(indices, rng, None if view is None else (*view, part))[0] * (len(indices) / count)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise _NotFiniteError(value)
            total += value
            loss.backward()
        self._torch.nn.utils.clip_grad_norm_(list(self._weights.values()), _LARGEST_GRADIENT)
        optimizer.step()
        with self._torch.no_grad():
            for name, mask in self._masks.items():
                self._weights[name].mul_(mask)
        return total

    def _score(self) -> Score:
        if not len(self._held):
            return Score(math.nan, None)
        loss, right = 0.0, 0
        known: int | None = 0
        with self._torch.no_grad():
            for part in self._lesson.parts(self._held):
                value, known = self._lesson(part)
                loss += float(value) * len(part)
                right += known or 0
        return Score(loss / len(self._held), None if known is None else right / len(self._held))

    def _channels_last(self) -> None:
        """Keep kernels as PyTorch's convolutions read them fastest; shapes stay."""
        for network in (self._network, *self._lesson.teachers):
            for tensor in network.tensors.values():
                if tensor.ndim == 4:
                    tensor.data = tensor.data.contiguous(memory_format=self._torch.channels_last)

    def optimizer(self, rate: float) -> Any:
        """A new optimizer with this learning rate."""
        recipe = self.recipe
        decay = recipe.weight_decay
        if recipe.optimizer == "sgd":
            groups = [{"params": list(self._weights.values()), "initial_lr": rate, "lr": rate}]
            return self._torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0, weight_decay=decay)
        groups = []
        for tensor in self._weights.values():
            own = rate * max(float(tensor.detach().square().mean().sqrt()), _SMALLEST)
            groups.append({"params": [tensor], "initial_lr": own, "lr": own})
        if recipe.optimizer == "muon":
            from .muon import Muon

            return Muon(groups, momentum=recipe.momentum, weight_decay=decay)
        return self._torch.optim.AdamW(groups, betas=(recipe.momentum, 0.999), weight_decay=decay)

    def batches(self, rng: np.random.Generator, count: int) -> list[np.ndarray]:
        """So many batches of what is learned from, in random order, again and again where it takes more."""
        unit = self._data.specs[0].shape[0]
        runs, each = len(self._learned) // unit, min(self._step, len(self._learned)) // unit
        rows = self._learned.reshape(-1, unit)
        order = np.concatenate([rng.permutation(runs) for _ in range(-(-count * each // runs))])
        return [rows[order[index * each : (index + 1) * each]].ravel() for index in range(count)]

    def values(self) -> dict[str, Tensor]:
        """The weights as they are, copied, by name."""
        return {name: tensor.detach().clone() for name, tensor in self._weights.items()}

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Let the weights be these."""
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
