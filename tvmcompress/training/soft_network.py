"""A quantized network whose weights are rounded softly, and whose activations only now and then.

What block by block rounding learns in: AdaRound's variables in the place of weights' integers (Nagel et al., "Up or Down?
Adaptive Rounding for Post-Training Quantization", 2020), and activations that stay unrounded at random (Wei et al., "QDrop:
Randomly Dropping Quantization for Extremely Low-bit Post-Training Quantization", 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..model import Model
from ..passes._tvm import relax
from ..passes.graph.module_params import param_vars
from ..passes.quantization.kinds import op_name
from ..passes.quantization.weight_grid import WeightGrid
from ..passes.repair.soft_rounding import HIGH, LOW
from .backend import Tensor
from .fake_quantization import FakeQuantizedModel
from .quantized_blocks import QuantizedBlock

Values = dict[relax.Var, Tensor]
"""Tensors by variable, axis 0 the samples."""


class SoftNetwork(FakeQuantizedModel):
    """A network that can be run block by block, and learned so.

    Args:
        model: In QDQ form.
        weights: As of `FakeQuantizedModel`.

    Attributes:
        drop: Given an activation and what it is rounded to, which is taken; None takes the rounded one.
    """

    def __init__(self, model: Model, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__(model, weights)
        self.drop: Callable[[Tensor, Tensor], Tensor] | None = None
        self._soft: dict[relax.Var, _SoftWeight] = {}

    def evaluate(self, block: QuantizedBlock, values: Values, samples: int) -> Values:
        """The values of a block from those that it reads."""
        found = {**dict(zip(param_vars(self._main), self.tensors.values())), **values}
        for var, expr in block.program:
            found[var] = self._value(var, expr, found, samples)
        return found

    def steps_of(self, block: QuantizedBlock) -> set[str]:
        """The learned steps of the activations of a block, by name."""
        found = (self.steps_at(call) for _, call in block.program if op_name(call) == "relax.quantize")
        return {steps.name for steps in found if steps.learned}

    def soften(self, grid: WeightGrid) -> Tensor:
        """From now on round a weight softly, beginning with its real value.

        Returns:
            AdaRound's variable, float32 in the shape that the reader reads: a leaf to be learned.
        """
        soft = _SoftWeight.of(self._torch, self.tensors[grid.parameter.name], grid)
        self._soft[grid.source] = soft
        return soft.variable

    def harden(self, grid: WeightGrid) -> None:
        """Let a weight be the integers that its variable is nearer to."""
        soft = self._soft.pop(grid.source)
        self.put(grid, soft.base + soft.free * (soft.variable.detach() > 0).float())

    def put(self, grid: WeightGrid, integers: Tensor) -> None:
        """Let a weight be these integers, as its reader has them."""
        steps = self._torch.from_numpy(grid.steps.astype(np.float32))
        real = (integers * steps).permute(tuple(int(axis) for axis in np.argsort(grid.order)))
        with self._torch.no_grad():
            self.tensors[grid.parameter.name].copy_(real)

    def put_nearest(self, grid: WeightGrid) -> None:
        """Let a weight be the integers nearest to it, as it will be stored."""
        real = self.tensors[grid.parameter.name].detach().numpy().astype(np.float64).transpose(grid.order)
        self.put(grid, self._torch.from_numpy(grid.nearest(real).astype(np.float32)))

    def _quantized(self, value: Tensor, steps: Any, bits: int | None = None) -> Tensor:
        rounded = super()._quantized(value, steps, bits)
        return rounded if self.drop is None else self.drop(value, rounded)

    def _rounded(self, grid: WeightGrid) -> Tensor:
        soft = self._soft.get(grid.source)
        return super()._rounded(grid) if soft is None else soft.real()


class _SoftWeight:
    """A weight between the integers around it, as its reader has it.

    Attributes:
        variable: AdaRound's.
        base: The lower integers, float32.
        free: 1 where the upper ones may be taken, and 0 elsewhere.
    """

    def __init__(self, variable: Tensor, base: Tensor, free: Tensor, steps: Tensor) -> None:
        self.variable, self.base, self.free, self._steps = variable, base, free, steps

    @classmethod
    def of(cls, torch: Any, stored: Tensor, grid: WeightGrid) -> _SoftWeight:
        """Of a weight as it is: real values, in the order of the parameter."""
        steps, low, high = (torch.from_numpy(a.astype(np.float32)) for a in (grid.steps, grid.lowest, grid.highest))
        ratio = stored.detach().permute(grid.order) / steps
        base = ratio.floor().clamp(low, high)
        share = (ratio - base).clamp(0.0, 1.0)
        variable = -torch.log((HIGH - LOW) / (share - LOW) - 1.0)
        return cls(variable.requires_grad_(True), base, (base < high).float(), steps)

    def real(self) -> Tensor:
        """What the reader reads."""
        return (self.base + self.free * share(self.variable)) * self._steps


def share(variable: Tensor) -> Tensor:
    """What a weight has of the upper integer, between 0 and 1."""
    return (variable.sigmoid() * (HIGH - LOW) + LOW).clamp(0.0, 1.0)
