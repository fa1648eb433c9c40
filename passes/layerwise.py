"""Repairing a quantized network layer by layer, each on what the layers before it, already repaired, really give it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ._tvm import tvm
from .float_reference import FloatReference, start
from .interpreter import Execution
from .layer_rows import LayerGeometry, folded_weight, take_outputs, take_rows, unfolded_weight
from .least_squares import solve as solve_least_squares
from .module_params import attach_params, detach_params
from .quantized_layers import QuantizedLayer, quantized_layers
from .remarks import Remark, add_remarks
from .weight_grid import WeightGrid

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """What is known of a layer when its integers are chosen.

    Attributes:
        layer: The layer.
        geometry: How it reads its input.
        weight: Its float weights.
        x: float32, its input in the quantized network.
        wanted: float32, its result behind the bias in the float network.
    """

    layer: QuantizedLayer
    geometry: LayerGeometry
    weight: np.ndarray
    x: np.ndarray
    wanted: np.ndarray

    @property
    def row_count(self) -> int:
        """Rows that the layer multiplies with its weights, over all samples."""
        return self.wanted.size // self.weight.shape[-1 if not self.geometry.kernel else 0]

    def sample(self, most: int, byte_limit: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Rows chosen at random, and what is wanted there.

        Args:
            most: How many at most.
            byte_limit: Bytes that the rows may take.
            rng: Decides which.

        Returns:
            float32 (groups, rows, fan-in of a group), and float32 (rows, O).
        """
        fan_in = self.weight.size // self.weight.shape[-1 if not self.geometry.kernel else 0] * self.geometry.groups
        count = max(1, min(most, self.row_count, byte_limit // (4 * fan_in)))
        index = np.sort(rng.choice(self.row_count, count, replace=False))
        return take_rows(self.x, self.geometry, index), take_outputs(self.wanted, self.geometry, index)

    def compensated(self, x: np.ndarray, wanted: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
        """Float weights and bias that best make what is wanted of what the layer gets.

        They make up, as far as a layer can, for what the layers before have lost; the layer must have a bias.

        Args:
            x: Rows, as `sample` gives them.
            wanted: What is wanted there.
            ridge: Relative pull towards the float weights, see `least_squares.solve`.

        Returns:
            The weights, of their shape, and the bias (O,).
        """
        assert self.layer.bias is not None
        matrix = unfolded_weight(self.weight, self.geometry)
        old = self.layer.bias.real().reshape(matrix.shape[:2])
        targets = wanted.reshape(len(wanted), *matrix.shape[:2])
        solved = [
            solve_least_squares(x[g], targets[:, g], LayerGeometry(), matrix[g].T, old[g], ridge) for g in range(len(matrix))
        ]
        weight = folded_weight(np.stack([w.T for w, _ in solved]), self.geometry, self.weight.shape)
        return weight, np.concatenate([bias for _, bias in solved])

    def unfolded_grid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The steps, the lowest and the highest integers of the weights, each (groups, O, fan-in of a group)."""
        grid = self.layer.weight
        wide = (np.broadcast_to(array, self.weight.shape) for array in (grid.steps, grid.lowest, grid.highest))
        steps, lowest, highest = (unfolded_weight(array, self.geometry) for array in wide)
        return steps, lowest, highest


@dataclass(frozen=True, eq=False)
class Solution:
    """Integers chosen for a layer, less the zero point.

    Attributes:
        weight: Of its weights, their shape.
        bias: Of its bias, its shape; None leaves it.
    """

    weight: np.ndarray
    bias: np.ndarray | None = None


def repair_layers(
    pass_name: str,
    mod: tvm.IRModule,
    reference: tvm.IRModule,
    inputs: Sequence[np.ndarray],
    solve: Callable[[LayerProblem], Solution | str],
    on_progress: Progress | None = None,
) -> tvm.IRModule:
    """Choose the integers of every layer of a network anew, in the order of computation.

    Args:
        pass_name: Who asks, for remarks.
        mod: In QDQ form, parameters attached.
        reference: The float module that was quantized.
        inputs: Calibration samples, one array an input, axis 0 the samples.
        solve: Chooses the integers of a layer, or says why not.
        on_progress: Called with (layers done, layers in all, name of the layer).

    Returns:
        The module with other weights; shapes and dtypes stay.

    Raises:
        UserError: There are no samples, they do not fit, or the network mixes the samples of a batch.
    """
    layers, declined = quantized_layers(mod)
    remarks = [Remark(pass_name, name, reason) for name, reason in declined.items()]
    original = FloatReference(reference, inputs, Counter(layer.added.name for layer in layers.values()), "repaired")
    execution = start(mod, inputs, "repaired")
    bare, params = detach_params(mod)
    done = 0
    while (upcoming := execution.upcoming()) is not None:
        layer = layers.get(upcoming[0])
        if layer is not None:
            found = _solve(layer, execution, original, solve)
            if isinstance(found, str):
                remarks.append(Remark(pass_name, layer.var.name, found))
            else:
                _put(layer.weight, found.weight, params, execution)
                if layer.bias is not None and found.bias is not None:
                    _put(layer.bias, found.bias, params, execution)
            done += 1
            if on_progress is not None:
                on_progress(done, len(layers), layer.var.name)
        execution.step()
    return add_remarks(attach_params(bare, params), remarks)


def _solve(
    layer: QuantizedLayer,
    execution: Execution,
    original: FloatReference,
    solve: Callable[[LayerProblem], Solution | str],
) -> Solution | str:
    weight, wanted = original.weight(layer.var.name), original.value(layer.added.name)
    if weight is None or weight.shape != layer.weight.integers.shape:
        return "the float model has no weights of this layer"
    x = execution.values.get(layer.call.args[0])
    if wanted is None or not isinstance(x, np.ndarray) or not np.isfinite(wanted).all():
        return "the float model has no finite result of this layer"
    return solve(LayerProblem(layer, LayerGeometry.of(layer.call), weight, x, wanted))


def _put(grid: WeightGrid, integers: np.ndarray, params: dict[str, np.ndarray], execution: Execution) -> None:
    """Store integers, and let the run go on with them."""
    stored = grid.stored(integers)
    params[grid.parameter.name] = stored
    # What is still to be dequantized is read from the parameter, what is so already is replaced.
    if grid.source in execution.values:
        execution.values[grid.source] = grid.real(integers)
    else:
        execution.values[grid.parameter] = stored
