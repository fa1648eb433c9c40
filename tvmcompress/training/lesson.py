"""What is learned from a batch: the samples, changed at random, what teachers say of them, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..errors import UserError
from ..model import Model
from ..recipe.finetune import FinetuneRecipe
from .augment import augment, cut, mix
from .backend import Tensor, load_torch
from .bridge import TorchModel
from .features import Features
from .objective import Objective
from .teachers import Hints, Teachers

Change = Callable[[list[np.ndarray], np.random.Generator], Sequence[np.ndarray]]

_EVALUATED_AT_ONCE = 256


class Lesson:
    """The loss of samples, for a network to learn from or to be judged by.

    Args:
        model: What learns.
        network: It in PyTorch.
        data: The samples, with labels or without.
        teachers: Models with the same inputs and outputs; none where labels or the input are all there is to learn from.
        recipe: How samples are changed and what the loss is made of.
        change: As of `finetune`.

    Attributes:
        maps: Tensors that are learned beside the network's and thrown away in the end, by name.
        teachers: The teachers in PyTorch.

    Raises:
        UserError: Layers are to be compared with a teacher's and there is none, or no such layer, or only its answers are kept;
            or samples are to be flipped that are no images.
    """

    def __init__(
        self,
        model: Model,
        network: TorchModel,
        data: Dataset,
        teachers: Sequence[Model],
        recipe: FinetuneRecipe,
        change: Change | None = None,
    ) -> None:
        self._torch = load_torch()
        self._network, self._data, self._recipe = network, data, recipe
        if recipe.hints and not teachers:
            raise UserError("hints are from a teacher's layers; give one (--distill)")
        if recipe.features and not teachers:
            raise UserError("features are those of a teacher; give one (--distill)")
        if recipe.views is not None and (recipe.hints or recipe.features):
            raise UserError("with views a teacher's answers are kept, not what goes on inside it; leave out hints and features")
        if recipe.cutmix and (len(model.inputs) > 1 or len(model.inputs[0].shape) < 3 or model.inputs[0].layout == "NHWC"):
            raise UserError("cutmix is for one input with channels first, images or signals; leave it out for this model")
        if recipe.augment and change is None and any(len(s.shape) != 4 or s.layout == "NHWC" for s in model.inputs[:1]):
            raise UserError("flips, crops and scales are for images, channels first; leave augment empty for this model")
        self._features = Features(model, teachers[0]) if recipe.features else None
        inside = [] if self._features is None else self._features.names
        network.tap([*recipe.hints, *inside])
        self._teacher = Teachers(teachers, [*recipe.hints.values(), *inside]) if teachers else None
        self.teachers = [] if self._teacher is None else self._teacher.networks
        self._change = change or (None if not recipe.augment else lambda x, rng: [augment(x[0], recipe.augment, rng), *x[1:]])
        self._hints: Hints | None = None
        self.maps: dict[str, Tensor] = {}
        self._answers: list[Tensor] | None = None
        self._seen: dict[tuple[int, ...], list[Tensor]] = {}
        self._known = np.zeros(0, bool)
        self._outputs = 0
        self._objective: Objective | None = None
        self._labels: np.ndarray | None = None

    def begin(self, indices: np.ndarray) -> None:
        """Look at some samples, to see what the outputs are.

        Raises:
            UserError: The teacher's outputs do not fit, labels are no classes of the model, or there is nothing to learn from.
        """
        labels = self._data.labels
        with self._torch.no_grad():
            inputs = self._inputs(self.parts(indices)[0])
            outputs = self._network(*inputs)
            self._outputs = len(outputs)
            if self._teacher is not None:
                self._compare(outputs, self._teacher(*inputs))
        self._objective = Objective(
            outputs,
            inputs,
            labels=labels is not None,
            teacher=self._teacher is not None,
            temperature=self._recipe.temperature,
            alpha=self._recipe.alpha,
        )
        if labels is not None and self._objective.classes is not None:
            self._labels = self._objective.classes.checked(labels[: len(self._data)], len(self._data))

    def told(self) -> bytes:
        """Labels and how samples are changed, for fingerprints."""
        labels = b"" if self._labels is None else self._labels.tobytes()
        return labels + (b"" if self._change is None else getattr(self._change, "__qualname__", "").encode())

    def parts(self, indices: np.ndarray) -> list[np.ndarray]:
        """Samples in parts that are evaluated at once."""
        unit = self._data.specs[0].shape[0]
        step = max(1, _EVALUATED_AT_ONCE // unit) * unit
        return [indices[start : start + step] for start in range(0, len(indices), step)]

    def __call__(
        self, indices: np.ndarray, rng: np.random.Generator | None = None, view: tuple[int, ...] | None = None
    ) -> tuple[Tensor, int | None]:
        """The loss of some samples, changed at random where there is chance, and how many are classified right.

        Args:
            indices: Numbers of the samples.
            rng: Where chance comes from; None leaves samples as they are.
            view: By which the teacher's answers are kept, where the same samples come again with the same chance.
        """
        assert self._objective is not None
        inputs = self._inputs(indices, rng)
        labels = None if self._labels is None else self._torch.from_numpy(self._labels[indices])
        mixed, share, recipe = False, 1.0, self._recipe
        if rng is not None and len(indices) > 1:
            if recipe.cutmix > 0 and rng.random() < recipe.cutmix:
                mixed, (inputs, share) = True, cut(inputs, rng)
            elif recipe.mixup > 0:
                mixed, share = True, float(rng.beta(recipe.mixup, recipe.mixup))
                inputs = mix(inputs, share)
        inside = rng is not None and (self._hints is not None or self._features is not None)
        changed = rng is not None and (self._change is not None or mixed)
        taught = self._kept(view)
        with self._precision(rng is not None):
            if self._teacher is not None and taught is None and (changed or inside):
                with self._torch.no_grad():
                    taught = self._wide(self._teacher(*inputs))
                if view is not None:
                    self._seen[view] = taught
            outputs = self._wide(self._network(*inputs))
        if self._teacher is not None and taught is None:
            with self._torch.no_grad():
                taught = self._taught(indices)
        own = None if taught is None else taught[: len(outputs)]
        smoothing = 0.0 if rng is None else self._recipe.label_smoothing
        loss = self._objective(outputs, inputs=inputs, labels=labels, teacher=own, smoothing=smoothing)
        if mixed and labels is not None:
            other = self._objective(outputs, inputs=inputs, labels=labels.flip(0), teacher=own, smoothing=smoothing)
            loss = share * loss + (1 - share) * other
        if taught is not None and inside:
            loss = loss + self._within(self._wide(self._network.tapped()), taught[len(outputs) :])
        return loss, self._objective.correct(outputs, labels)

    def _kept(self, view: tuple[int, ...] | None) -> list[Tensor] | None:
        """The teacher's answers to a view, if it was asked before."""
        return None if view is None else self._seen.get(view)

    def _within(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """What is lost inside, between layers of the network and of the teacher."""
        loss, count = self._torch.zeros(()), len(self._recipe.hints)
        if self._hints is not None:
            loss = loss + self._recipe.hint_weight * self._hints(found[:count], wanted[:count])
        if self._features is not None:
            loss = loss + self._recipe.features * self._features(found[count:], wanted[count:])
        return loss

    def _compare(self, outputs: Sequence[Tensor], taught: Sequence[Tensor]) -> None:
        """See whether the teacher fits."""
        shapes = [[tuple(value.shape[1:]) for value in values] for values in (taught[: len(outputs)], outputs)]
        count = len(self._recipe.hints)
        inside = count + (0 if self._features is None else len(self._features.names))
        if shapes[0] != shapes[1] or len(taught) != len(outputs) + inside:
            raise UserError(
                f"the teacher's outputs have other shapes than the model's ({shapes[0]} and {shapes[1]} a sample); "
                "give one with the same outputs, as the model it was made from"
            )
        if count:
            self._hints = Hints(self._recipe.hints, self._network.tapped()[:count], taught[len(outputs) :][:count])
            self.maps = self._hints.maps

    def _precision(self, learning: bool) -> Any:
        """In which PyTorch computes with bfloat16 what it holds to be safe, where that is asked for."""
        return self._torch.autocast("cpu", self._torch.bfloat16, enabled=learning and self._recipe.mixed_precision)

    def _wide(self, values: Sequence[Tensor]) -> list[Tensor]:
        return [value.float() if value.dtype == self._torch.bfloat16 else value for value in values]

    def _taught(self, indices: np.ndarray) -> list[Tensor]:
        """The teacher's outputs for samples as they are, computed once."""
        assert self._teacher is not None
        if self._answers is None:
            outputs = self._teacher(*self._inputs(indices))[: self._outputs]
            if any(len(value) != len(indices) for value in outputs):
                return outputs
            self._answers = [value.new_zeros((len(self._data), *value.shape[1:])) for value in outputs]
            self._known = np.zeros(len(self._data), bool)
        new = indices[~self._known[indices]]
        for part in self.parts(new):
            for all_, value in zip(self._answers, self._teacher(*self._inputs(part))):
                all_[self._torch.from_numpy(part)] = value
        self._known[new] = True
        rows = self._torch.from_numpy(indices)
        return [value[rows] for value in self._answers]

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
