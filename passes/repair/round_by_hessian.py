"""Rounding with the errors made good by the weights that are still to be rounded (GPTQ).

The error that rounding puts on a layer's result is (W - Q) H (W - Q)' with H = X'X of the layer's inputs. Inputs are taken one
after the other; when the weights of one are rounded, those of the others move to where the error is least, which the Cholesky
factor of the inverse of H tells (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", 2023; the update is that of optimal brain surgery, Frantar et al., "Optimal Brain Compression", 2022).
Convolutions are matrix products over unfolded windows, group by group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._tvm import tvm
from ..errors import UserError
from ..graph.adopt_module import model_pass
from .im2col import folded_weight, unfolded_weight
from .layerwise import LayerProblem, LayerRounding, Progress, Solution

# Rows whose moments are summed at a time.
_BLOCK = 4096
# Columns between updates of all that stand behind them.
_COLUMNS = 128


@model_pass("RoundByHessian")
class RoundByHessian(LayerRounding):
    """Round the weights of convolutions and matrix products in a module in QDQ form, second-order errors made good.

    Args:
        reference: The float module that was quantized, parameters attached.
        inputs: Calibration samples, one array an input, axis 0 the samples.
        damping: Added to the diagonal of H, as a fraction of its mean; where samples are few it is a layer's inputs over the
            rows seen of them, if that is more.
        act_order: Whether inputs are taken in the order of their energy, largest first, instead of as they stand.
        compensate: Whether the float weights are first moved, by least squares, so that they make up for what the layers
            before have lost; the bias moves with them.
        rows: Rows of inputs used, about, chosen at random.
        seed: Of that choice.
        on_progress: Called with (layers done, layers in all, name of the layer).

    Raises:
        UserError: An option is out of range, there are no samples, or they do not fit.
    """

    def __init__(
        self,
        reference: tvm.IRModule,
        inputs: Sequence[np.ndarray],
        *,
        damping: float = 0.01,
        act_order: bool = True,
        compensate: bool = True,
        rows: int = 32768,
        seed: int = 0,
        on_progress: Progress | None = None,
    ) -> None:
        if damping <= 0 or rows < 1:
            raise UserError("rounding by the Hessian needs a damping and a number of rows above 0")
        super().__init__(reference, inputs, compensate, rows, seed, on_progress)
        self.damping = damping
        self.act_order = act_order

    def solve(self, problem: LayerProblem, weight: np.ndarray, bias: np.ndarray | None) -> Solution:
        """Round input by input, see `round_columns`."""
        steps, lowest, highest = problem.unfolded_grid()
        matrix = unfolded_weight(weight.astype(np.float64), problem.geometry)
        inputs = problem.sample(self.rows, self.seed).inputs
        # What few rows say of the inputs is not so of others: errors made good on them alone would be new errors elsewhere.
        damping = max(self.damping, inputs.shape[2] / inputs.shape[1])
        rounded = round_columns(matrix, steps, lowest, highest, _moments(inputs), damping, self.act_order)
        return Solution(folded_weight(rounded, problem.geometry, weight.shape), bias)


def round_columns(
    weight: np.ndarray,
    steps: np.ndarray,
    lowest: np.ndarray,
    highest: np.ndarray,
    moments: np.ndarray,
    damping: float,
    act_order: bool,
) -> np.ndarray:
    """Round weights input by input, moving those still to be rounded.

    Args:
        weight: float64 (groups, O, K).
        steps: The real step of each weight's integers, the shape of `weight`.
        lowest: Smallest integer of each.
        highest: Largest integer of each.
        moments: float64 (groups, K, K): X'X of the inputs.
        damping: Added to its diagonal, as a fraction of the diagonal's mean.
        act_order: Whether inputs are taken in the order of their energy.

    Returns:
        int64, the shape of `weight`.
    """
    groups, _, size = weight.shape
    diagonal = np.einsum("gkk->gk", moments)
    order = np.argsort(-diagonal, axis=1, kind="stable") if act_order else np.broadcast_to(np.arange(size), (groups, size))
    pick = order[:, None, :]
    work, step, low, high = (np.take_along_axis(part, pick, 2) for part in (weight.astype(np.float64), steps, lowest, highest))
    hessian = np.take_along_axis(np.take_along_axis(moments, order[:, :, None], 1), pick, 2)
    hessian = hessian + np.maximum(damping * diagonal.mean(1), 1e-12)[:, None, None] * np.eye(size)
    # Upper triangular U with U'U = H^-1; row k, from the diagonal on, tells how the rest moves when input k is rounded.
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).transpose(0, 2, 1)
    integers = np.empty(work.shape, np.int64)
    for start in range(0, size, _COLUMNS):
        stop = min(start + _COLUMNS, size)
        errors = np.empty((*work.shape[:2], stop - start))
        for k in range(start, stop):
            integers[:, :, k] = np.clip(np.rint(work[:, :, k] / step[:, :, k]), low[:, :, k], high[:, :, k])
            error = (work[:, :, k] - integers[:, :, k] * step[:, :, k]) / upper[:, None, k, k]
            work[:, :, k + 1 : stop] -= error[:, :, None] * upper[:, None, k, k + 1 : stop]
            errors[:, :, k - start] = error
        work[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    back = np.argsort(order, axis=1)
    return np.take_along_axis(integers, back[:, None, :], 2)


def _moments(x: np.ndarray) -> np.ndarray:
    """float64 (groups, K, K): X'X, block by block."""
    total = np.zeros((x.shape[0], x.shape[2], x.shape[2]))
    for start in range(0, x.shape[1], _BLOCK):
        block = x[:, start : start + _BLOCK].astype(np.float64)
        total += block.transpose(0, 2, 1) @ block
    return total
