"""Adaptive rounding: which way each weight is rounded, learned from samples (AdaRound).

Each weight becomes floor(w / s) + h(v) with h a sigmoid stretched over [0, 1] and v learned, by gradient descent, so that the
layer's result behind its activation is that of the float network; a regularizer that hardens with time drives every h to 0 or
1 (Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020). The layer reads what the quantized
network gives it, so that it also makes up for what was lost before. Where rounding to nearest, or the integers that were there,
do better in an output, they stay. Adam (Kingma and Ba, 2015) in NumPy, on rows of inputs chosen at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._tvm import tvm
from ..errors import UserError
from ..graph.adopt_module import model_pass
from .im2col import folded_weight, unfolded_weight
from .layerwise import LayerProblem, LayerRounding, Progress, Solution
from .soft_rounding import HIGH, LOW, exponent


@model_pass("RoundWeights")
class RoundWeights(LayerRounding):
    """Learn how the weights of a module in QDQ form are rounded.

    Args:
        reference: The float module that was quantized, parameters attached.
        inputs: Calibration samples, one array an input, axis 0 the samples.
        iterations: Steps of the descent in each layer.
        batch: Rows of inputs in each step.
        learning_rate: Of Adam.
        strength: Of the regularizer, beside an error of the size that rounding to nearest makes.
        compensate: Whether the float weights are first moved, by least squares, so that they make up for what the layers
            before have lost; the bias moves with them.
        rows: Rows that the batches are drawn from, about.
        seed: Of every choice; the same seed gives the same integers.
        on_progress: Called with (layers done, layers in all, name of the layer).

    Raises:
        UserError: An option is out of range, there are no samples, or they do not fit.
    """

    def __init__(
        self,
        reference: tvm.IRModule,
        inputs: Sequence[np.ndarray],
        *,
        iterations: int = 1500,
        batch: int = 512,
        learning_rate: float = 0.02,
        strength: float = 10.0,
        compensate: bool = True,
        rows: int = 32768,
        seed: int = 0,
        on_progress: Progress | None = None,
    ) -> None:
        if min(iterations, batch, rows) < 1 or min(learning_rate, strength) <= 0:
            raise UserError("adaptive rounding needs iterations, rows, a learning rate and a strength above 0")
        super().__init__(reference, inputs, compensate, rows, seed, on_progress)
        self.iterations = int(iterations)
        self.batch = int(batch)
        self.learning_rate = learning_rate
        self.strength = strength

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with other integers; shapes and dtypes stay."""
        self._rng = np.random.default_rng(self.seed)
        return super().transform_module(mod, ctx)

    def solve(self, problem: LayerProblem, weight: np.ndarray, bias: np.ndarray | None) -> Solution:
        """Learn which way each weight is rounded."""
        grid, geometry = problem.layer.weight, problem.geometry
        rows = problem.sample(self.rows, self.seed)
        steps, lowest, highest = (array.astype(np.float32) for array in problem.unfolded_grid())
        matrix = unfolded_weight(weight, geometry)
        groups, outputs = matrix.shape[:2]
        offsets = np.zeros((groups, 1, outputs), np.float32)
        if problem.layer.bias is not None:
            offsets = problem.layer.bias.real(bias).reshape(groups, 1, outputs)
        descent = _Descent(np.ascontiguousarray(rows.inputs), rows.targets, offsets, steps, problem.layer.limits)
        nearest, present = (
            unfolded_weight(integers, geometry).astype(np.float32) for integers in (grid.nearest(weight), grid.integers)
        )
        ratio = (matrix / steps).astype(np.float32)
        base = np.clip(np.floor(ratio), lowest, highest)
        learned = self._learn(descent, base, np.clip(ratio - base, 0.0, 1.0), base < highest)
        best = descent.best([learned, nearest, present])
        return Solution(folded_weight(best, geometry, weight.shape).astype(np.int64), bias)

    def _learn(self, descent: _Descent, base: np.ndarray, share: np.ndarray, free: np.ndarray) -> np.ndarray:
        """float32 (groups, O, K): the integers learned, each `base` or, where it is `free` to, one more.

        The descent begins at the weights themselves, `share` above `base`.
        """
        v = -np.log((HIGH - LOW) / (share - LOW) - 1.0)
        mean, square = np.zeros_like(v), np.zeros_like(v)
        scale = descent.normalization()
        rows = descent.x.shape[1]
        for iteration in range(self.iterations):
            index = self._rng.integers(0, rows, min(self.batch, rows))
            sigmoid = 1.0 / (1.0 + np.exp(-v))
            raw = sigmoid * (HIGH - LOW) + LOW
            h = np.clip(raw, 0.0, 1.0)
            gradient = descent.gradient(base + h * free, index) * scale
            if (power := exponent(iteration / self.iterations)) is not None:
                centred = 2.0 * h - 1.0
                gradient -= self.strength * 2.0 * power * np.sign(centred) * np.abs(centred) ** (power - 1.0)
            gradient *= sigmoid * (1.0 - sigmoid) * (HIGH - LOW) * ((raw > 0.0) & (raw < 1.0)) * free
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            rate = self.learning_rate * np.sqrt(1.0 - 0.999 ** (iteration + 1)) / (1.0 - 0.9 ** (iteration + 1))
            v -= np.float32(rate) * mean / (np.sqrt(square) + 1e-8)
        return base + (v > 0.0) * free


class _Descent:
    """The error of a layer's result as a function of its integers.

    Args:
        x: float32 (groups, rows, K): inputs.
        targets: float32 (groups, rows, O): the result wanted behind the bias.
        offsets: float32 (groups, 1, O): the bias.
        steps: float32 (groups, O, K): the step of each integer.
        limits: The ends of the activation behind.
    """

    def __init__(
        self, x: np.ndarray, targets: np.ndarray, offsets: np.ndarray, steps: np.ndarray, limits: tuple[float, float]
    ) -> None:
        self.x = x
        self.offsets = offsets
        self.steps = steps
        self.limits = limits
        self.targets = np.clip(targets, *limits)

    def gradient(self, integers: np.ndarray, index: np.ndarray) -> np.ndarray:
        """(groups, O, K): of the mean squared error at some rows by the integers."""
        x = self.x[:, index]
        sums = x @ (integers * self.steps).transpose(0, 2, 1) + self.offsets
        error = np.clip(sums, *self.limits) - self.targets[:, index]
        error *= (sums > self.limits[0]) & (sums < self.limits[1])
        return (2.0 / len(index)) * (error.transpose(0, 2, 1) @ x) * self.steps

    def normalization(self) -> np.ndarray:
        """(groups, O, 1): the factor that makes the error of rounding to nearest, expected, one a weight."""
        energy = np.square(self.x).mean(1)[:, None, :]
        expected = (np.square(self.steps) * energy).sum(2, keepdims=True) / 12.0
        return np.where(expected > 0, self.steps.shape[2] / np.maximum(expected, 1e-30), 0.0).astype(np.float32)

    def best(self, candidates: Sequence[np.ndarray]) -> np.ndarray:
        """The candidate with the least error on all rows, for each output by itself."""
        errors = np.stack([self._errors(candidate) for candidate in candidates])
        chosen = errors.argmin(0)
        return np.take_along_axis(np.stack(candidates), chosen[None, :, :, None], 0)[0]

    def _errors(self, integers: np.ndarray) -> np.ndarray:
        """(groups, O): squared errors."""
        total = np.zeros(integers.shape[:2])
        real = (integers * self.steps).transpose(0, 2, 1)
        for start in range(0, self.x.shape[1], 4096):
            part = slice(start, start + 4096)
            error = np.clip(self.x[:, part] @ real + self.offsets, *self.limits) - self.targets[:, part]
            total += np.square(error, dtype=np.float64).sum(1)
        return total
