"""The convolutions and matrix products of a module in QDQ form, with what belongs to each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._tvm import relax, tvm
from ..graph.view import GraphView
from .kinds import CLIPS, TRANSPOSED, WEIGHTED
from .weight_grid import WeightGrid, weight_grid

_LAYERS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.matmul")


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """A layer with quantized weights.

    Attributes:
        var: Holds the result of the bare convolution or matrix product.
        call: That operation.
        weight: Its weights.
        bias: What is added to it; None where nothing is.
        added: The result behind the bias; `var` where there is none.
        limits: The ends of the ReLU or clip that alone reads `added`; infinite where there is none.
    """

    var: relax.Var
    call: relax.Call
    weight: WeightGrid
    bias: WeightGrid | None
    added: relax.Var
    limits: tuple[float, float]

    @property
    def channel_axis(self) -> int:
        """The axis of its result that counts output channels."""
        return -1 if self.call.op.name == "relax.matmul" else 1


def quantized_layers(mod: tvm.IRModule) -> tuple[dict[relax.Var, QuantizedLayer], dict[str, str]]:
    """The layers whose integers can be changed without changing anything else, and those where they cannot.

    Args:
        mod: In QDQ form, parameters attached, images channels-first.

    Returns:
        The layers by the variable of the bare operation, in order; and for the others, by name, why not: a clause.
    """
    return _Finder(mod).run()


class _Finder(GraphView):
    def run(self) -> tuple[dict[relax.Var, QuantizedLayer], dict[str, str]]:
        found: dict[relax.Var, QuantizedLayer] = {}
        declined: dict[str, str] = {}
        for var, call in self.values.items():
            if not isinstance(call, relax.Call) or call.op.name not in WEIGHTED:
                continue
            grid = weight_grid(call.args[1], self.values, self.params)
            if grid is None:
                continue
            reason = self._reason(call, grid)
            if reason is not None:
                declined[var.name] = reason
                continue
            bias, added = self._bias(var, call)
            found[var] = QuantizedLayer(var, call, grid, bias, added, self._limits(added))
        return found, declined

    def _reason(self, call: relax.Call, grid: WeightGrid) -> str | None:
        """Why a layer's integers cannot be changed."""
        if call.op.name not in _LAYERS:
            kind = "transposed" if call.op.name in TRANSPOSED else "three-dimensional"
            return f"{kind} convolutions keep the integers that they were quantized to"
        if not all(map(self.is_alone, grid.path)):
            return "its weights are read by others too"
        if call.op.name == "relax.matmul":
            return None if grid.integers.ndim == 2 else "its weights are not a matrix"
        layouts = (str(call.attrs.data_layout), str(call.attrs.kernel_layout))
        first = layouts[0].startswith("NC") and layouts[1].startswith("OI")
        return None if first else f"its layout is {', '.join(layouts)}, not channels-first"

    def _bias(self, var: relax.Var, call: relax.Call) -> tuple[WeightGrid | None, relax.Var]:
        """The bias behind a layer, and the sum."""
        follower = self.sole_reader(var)
        if follower is None or follower[1].op.name != "relax.add":
            return None, var
        added, addition = follower
        operand = addition.args[1] if addition.args[0].same_as(var) else addition.args[0]
        grid = weight_grid(operand, self.values, self.params)
        if grid is None or not all(map(self.is_alone, grid.path)):
            return None, var
        rank, axis = len(var.ty.shape), 1 if call.op.name != "relax.matmul" else len(var.ty.shape) - 1
        shape = (1,) * (rank - grid.integers.ndim) + grid.integers.shape
        fits = len(shape) == rank and shape[axis] == grid.integers.size == int(var.ty.shape[axis])
        return (grid, added) if fits else (None, var)

    def _limits(self, added: relax.Var) -> tuple[float, float]:
        """The ends of the activation behind a layer."""
        follower = self.sole_reader(added)
        if follower is None or follower[1].op.name not in CLIPS:
            return -np.inf, np.inf
        call = follower[1]
        if call.op.name == "relax.clip":
            return float(call.args[1].value), float(call.args[2].value)
        return 0.0, 6.0 if call.op.name == "relax.nn.relu6" else np.inf
