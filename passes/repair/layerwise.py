"""Repairing a quantized network layer by layer, each on what the layers before it, already repaired, really give it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .._tvm import tvm
from ..graph.float_reference import FloatReference, start
from ..graph.interpreter import Execution
from ..graph.module_params import attach_params, detach_params
from ..graph.remarks import Remark, add_remarks
from ..quantization.quantized_layers import QuantizedLayer, quantized_layers
from ..quantization.weight_grid import WeightGrid
from .im2col import LayerGeometry, Rows, gather, unfolded_weight
from .least_squares import solve as solve_least_squares

Progress = Callable[[int, int, str], None]
# Bytes of the rows that are looked at in one layer.
_ROW_BYTES = 256 << 20


NO_SOLUTION = "its equations have no finite solution; it keeps its weights"
"""Why a layer stays as it is where `LayerProblem.compensated` gives nothing."""


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

    def sample(self, most: int, seed: int) -> Rows:
        """Rows of the input chosen at random, and what is wanted there.

        Args:
            most: How many, about.
            seed: Decides which.
        """
        groups = self.geometry.groups
        outputs = self.wanted.shape[self.layer.channel_axis]
        fan_in = self.weight.size // outputs
        most = max(1, min(most, _ROW_BYTES // (4 * groups * (fan_in + outputs // groups))))
        return gather(self.x, self.wanted, self.geometry, limit=most, seed=seed)

    def compensated(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Float weights and bias that best make what is wanted of what the layer gets.

        They make up, as far as a layer can, for what the layers before have lost; the layer must have a bias.

        Returns:
            The weights, of their shape, and the bias (O,); None where the equations have no finite solution.
        """
        assert self.layer.bias is not None
        bias = self.layer.bias.real().reshape(-1)
        weight, offsets = solve_least_squares(
            self.x, self.wanted, self.geometry, self.weight, bias, clip=self.layer.limits
        )
        return (weight, offsets) if np.isfinite(weight).all() and np.isfinite(offsets).all() else None

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
        UserError: There are no samples, or they do not fit.
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
