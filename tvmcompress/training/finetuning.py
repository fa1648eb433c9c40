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
from .augment import augment, mix
from .averaging import Average
from .backend import Tensor, load_torch
from .bridge import TorchModel
from .checkpoint import Checkpoint
from .features import Features
from .objective import Objective
from .rates import find_rate, scheduled
from .teachers import Hints, Teachers

_EVALUATED_AT_ONCE = 256
_SMALLEST = 1e-3
"""Parameters whose root mean square is below this, biases of zero for instance, learn as if it were this."""
_LARGEST_GRADIENT = 5.0
_STATISTICS = {"relax.nn.batch_norm": (3, 4)}
"""Arguments that are no weights: they follow the data, and a variance must not become negative."""

Progress = Callable[[int, int], None]
Change = Callable[[list[np.ndarray], np.random.Generator], Sequence[np.ndarray]]


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
        if recipe.hints and not models:
            raise UserError("hints are from a teacher's layers; give one (--distill)")
        if recipe.features and not models:
            raise UserError("features are those of a teacher; give one (--distill)")
        self._features = Features(model, models[0]) if recipe.features else None
        inside = [] if self._features is None else self._features.names
        network.tap([*recipe.hints, *inside])
        self._teacher = Teachers(models, [*recipe.hints.values(), *inside]) if models else None
        self._hints: Hints | None = None
        self._told: list[Tensor] | None = None
        self._known = np.zeros(0, bool)
        self._outputs = 0
        self._change = change or (None if not recipe.augment else lambda x, rng: [augment(x[0], recipe.augment, rng), *x[1:]])
        if (
            recipe.augment
            and change is None
            and any(len(spec.shape) != 4 or spec.layout == "NHWC" for spec in model.inputs[:1])
        ):
            raise UserError("flips and crops are for images, channels first; leave augment empty for this model")
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
        self._learned, self._held = self._split() if split is None else split
        self._objective, self._labels = self._prepare()

    def fingerprint(self) -> str:
        """Of all that the outcome depends on."""
        digest = hashlib.sha256(self.recipe.model_dump_json().encode())
        for network in (self._network, *(() if self._teacher is None else self._teacher.networks)):
            for name, tensor in network.tensors.items():
                digest.update(name.encode() + tensor.detach().numpy().tobytes())
        some = self._data.pick(np.linspace(0, len(self._data) - 1, min(16, len(self._data)), dtype=np.int64))
        for value in (*some, np.int64(len(self._data))):
            digest.update(value.tobytes())
        if self._labels is not None:
            digest.update(self._labels.tobytes())
        if self._change is not None:
            digest.update(getattr(self._change, "__qualname__", "").encode())
        return digest.hexdigest()[:16]

    def run(self, checkpoint: Checkpoint | None, on_progress: Progress | None) -> Model:
        """Train, and return the best."""
        recipe = self.recipe
        first = self._score()
        state: dict[str, Any] = {
            "epoch": 0, "best": self.values(), "best_epoch": 0, "loss": first.loss, "accuracy": first.accuracy, "rate": None,
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
        self.put(state["best"])
        best = Score(state["loss"], state["accuracy"])
        learned = f"{state['epoch']} epochs on {len(self._learned)} samples, learning rate {self._rate:.2g}"
        tuned = self.result()
        return replace(tuned, provenance=(*tuned.provenance, f"fine-tuned: {learned}; held back: {first}, then {best}{ended}"))

    def result(self) -> Model:
        """The model with the weights as they are."""
        return self._network.trained(self._model)

    def loss(self, indices: np.ndarray) -> float:
        """The mean loss on samples as they are, of what the outputs tell alone."""
        with self._torch.no_grad():
            total = sum(float(self._loss(part)[0]) * len(part) for part in self._parts(indices))
        return total / len(indices)

    def _judge(self, epoch: int, state: dict[str, Any]) -> None:
        """Keep the weights, or their average, if they are the best so far on the samples held back."""
        now = self.values()
        if not len(self._held):
            state |= {"best": now if self._average is None else self._average.values, "best_epoch": epoch}
            return
        candidates = [now] if self._average is None else [self._average.values, now]
        for weights in candidates:
            self.put(weights)
            score = self._score()
            if score.loss < state["loss"]:
                best = {name: value.clone() for name, value in weights.items()}
                state |= {"best": best, "best_epoch": epoch, "loss": score.loss, "accuracy": score.accuracy}
        self.put(now)

    def _prepare(self) -> tuple[Objective, np.ndarray | None]:
        with self._torch.no_grad():
            inputs = self._inputs(self._parts(self._held if len(self._held) else self._learned)[0])
            outputs = self._network(*inputs)
            self._outputs = len(outputs)
            if self._teacher is not None:
                taught = self._teacher(*inputs)
                shapes = [[tuple(value.shape[1:]) for value in values] for values in (taught[: len(outputs)], outputs)]
                inside = len(self.recipe.hints) + (0 if self._features is None else len(self._features.names))
                if shapes[0] != shapes[1] or len(taught) != len(outputs) + inside:
                    raise UserError(
                        f"the teacher's outputs have other shapes than the model's ({shapes[0]} and {shapes[1]} a sample); "
                        "give one with the same outputs, as the model it was made from"
                    )
                if self.recipe.hints:
                    count = len(self.recipe.hints)
                    found, wanted = self._network.tapped()[:count], taught[len(outputs) :][:count]
                    self._hints = Hints(self.recipe.hints, found, wanted)
                    self._weights |= self._hints.maps
        objective = Objective(
            outputs,
            inputs,
            labels=self._data.labels is not None,
            teacher=self._teacher is not None,
            temperature=self.recipe.temperature,
            alpha=self.recipe.alpha,
        )
        if self._data.labels is None or objective.classes is None:
            return objective, None
        return objective, objective.classes.checked(self._data.labels[: len(self._data)], len(self._data))

    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        """The samples that are learned from and those held back, which are in the first batch's order."""
        unit = self._data.specs[0].shape[0]
        runs = len(self._data) // unit
        held = max(1, round(runs * self.recipe.validation))
        if runs - held < 1:
            raise UserError(f"fine-tuning needs at least two samples, one to hold back; {self._data.source} has {runs}")
        order = np.random.default_rng(self.recipe.seed).permutation(runs)
        rows = order[:, None] * unit + np.arange(unit)
        return rows[held:].ravel(), rows[:held].ravel()

    def _epoch(self, epoch: int, batches: int, optimizer: Any, on_progress: Progress | None) -> None:
        rng = np.random.default_rng([self.recipe.seed, epoch])
        unit, parts = self._data.specs[0].shape[0], self.recipe.accumulate
        order = rng.permutation(self._learned.reshape(-1, unit)).ravel()
        # Of another set every time, what is left over is left out.
        for index in range(batches):
            done = epoch * batches + index
            rate = scheduled(done, self.recipe.epochs * batches, self.recipe.warmup)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate
            start = index * self._step * parts
            cuts = [order[start + part * self._step :][: self._step] for part in range(parts)]
            self.learn([indices for indices in cuts if len(indices)], rng, optimizer)
            if self._average is not None:
                self._average.update()
            if on_progress is not None:
                on_progress(done + 1, self.recipe.epochs * batches)

    def learn(self, parts: Sequence[np.ndarray], rng: np.random.Generator, optimizer: Any) -> float:
        """One step on some samples, the gradients of several parts added up; the loss before it.

        Raises:
            _NotFiniteError: The loss is not finite; the weights stay.
        """
        optimizer.zero_grad(set_to_none=True)
        total, count = 0.0, sum(len(indices) for indices in parts)
        for indices in parts:
            loss = self._loss(indices, rng)[0] * (len(indices) / count)
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

    def _loss(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> tuple[Tensor, int | None]:
        """The loss of some samples, changed at random where there is chance, and how many are classified right."""
        inputs = self._inputs(indices, rng)
        labels = None if self._labels is None else self._torch.from_numpy(self._labels[indices])
        mixed = rng is not None and self.recipe.mixup > 0 and len(indices) > 1
        share = 1.0
        if rng is not None and mixed:
            share = float(rng.beta(self.recipe.mixup, self.recipe.mixup))
            inputs = mix(inputs, share)
        taught = None
        if self._teacher is not None:
            with self._torch.no_grad():
                inside = rng is not None and (self._hints is not None or self._features is not None)
                changed = rng is not None and (self._change is not None or mixed)
                taught = self._teacher(*inputs) if changed or inside else self._taught(indices)
        outputs = self._network(*inputs)
        own = None if taught is None else taught[: len(outputs)]
        smoothing = 0.0 if rng is None else self.recipe.label_smoothing
        loss = self._objective(outputs, inputs=inputs, labels=labels, teacher=own, smoothing=smoothing)
        if mixed and labels is not None:
            other = self._objective(outputs, inputs=inputs, labels=labels.flip(0), teacher=own, smoothing=smoothing)
            loss = share * loss + (1 - share) * other
        if taught is not None and inside:
            found, wanted, count = self._network.tapped(), taught[len(outputs) :], len(self.recipe.hints)
            if self._hints is not None:
                loss = loss + self.recipe.hint_weight * self._hints(found[:count], wanted[:count])
            if self._features is not None:
                loss = loss + self.recipe.features * self._features(found[count:], wanted[count:])
        return loss, self._objective.correct(outputs, labels)

    def _taught(self, indices: np.ndarray) -> list[Tensor]:
        """The teacher's outputs for samples as they are, computed once."""
        assert self._teacher is not None
        if self._told is None:
            outputs = self._teacher(*self._inputs(indices))[: self._outputs]
            if any(len(value) != len(indices) for value in outputs):
                return outputs
            self._told = [value.new_zeros((len(self._data), *value.shape[1:])) for value in outputs]
            self._known = np.zeros(len(self._data), bool)
        new = indices[~self._known[indices]]
        for part in self._parts(new):
            for all_, value in zip(self._told, self._teacher(*self._inputs(part))):
                all_[self._torch.from_numpy(part)] = value
        self._known[new] = True
        rows = self._torch.from_numpy(indices)
        return [value[rows] for value in self._told]

    def _score(self) -> Score:
        if not len(self._held):
            return Score(math.nan, None)
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
        if rng is not None and self._change is not None:
            shapes = [value.shape for value in values]
            values = [
                np.ascontiguousarray(value, spec.dtype) for value, spec in zip(self._change(values, rng), self._data.specs)
            ]
            if [value.shape for value in values] != shapes:
                raise UserError(f"samples were changed from shapes {shapes} to {[value.shape for value in values]}; keep them")
        tensors = [self._torch.from_numpy(value) for value in values]
        last = self._torch.channels_last
        return [tensor.contiguous(memory_format=last) if tensor.ndim == 4 else tensor for tensor in tensors]

    def _channels_last(self) -> None:
        """Keep kernels as PyTorch's convolutions read them fastest; shapes stay."""
        for network in (self._network, *(() if self._teacher is None else self._teacher.networks)):
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
