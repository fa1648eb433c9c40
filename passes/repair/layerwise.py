"""Repairing a quantized network layer by layer, each on what the layers before it, already repaired, really give it."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
"""Why a layer stays as it is where `LayerProblem.aim` gives nothing."""


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

    def aim(self, compensate: bool) -> tuple[np.ndarray, np.ndarray | None] | None:
        """The float weights that are to be rounded, and the integers of the bias that goes with them; None leaves it.

        Args:
            compensate: Whether weights and bias first move, by least squares, so that they make up, as far as a layer can,
                for what the layers before have lost; layers without a bias stay.

        Returns:
            None where the equations have no finite solution.
        """
        bias = self.layer.bias
        if not compensate or bias is None:
            return self.weight, None
        real = bias.real().reshape(-1)
        weight, offsets = solve_least_squares(self.x, self.wanted, self.geometry, self.weight, real, clip=self.layer.limits)
        if offsets is None or not (np.isfinite(weight).all() and np.isfinite(offsets).all()):
            return None
        return weight, bias.nearest(offsets.reshape(bias.integers.shape))

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


class LayerRounding(ABC):
    """Base of the passes that choose the integers of layers in a module in QDQ form; arguments as of `RoundByHessian`."""

    def __init__(
        self,
        reference: tvm.IRModule,
        inputs: Sequence[np.ndarray],
        compensate: bool,
        rows: int,
        seed: int,
        on_progress: Progress | None,
    ) -> None:
        self.reference = reference
        self.inputs = list(inputs)
        self.compensate = compensate
        self.rows = int(rows)
        self.seed = seed
        self.on_progress = on_progress

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with other integers; shapes and dtypes stay."""
        return repair_layers(type(self).__name__, mod, self.reference, self.inputs, self._choose, on_progress=self.on_progress)

    def _choose(self, problem: LayerProblem) -> Solution | str:
        aim = problem.aim(self.compensate)
        return NO_SOLUTION if aim is None else self.solve(problem, *aim)

    @abstractmethod
    def solve(self, problem: LayerProblem, weight: np.ndarray, bias: np.ndarray | None) -> Solution:
        """The integers of a layer; `weight` and `bias` from `LayerProblem.aim`."""


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
