"""Cross-layer equalization: the ranges of channels made alike by moving scale from one layer to the next.

relu(s * x) = s * relu(x) for s > 0, so a channel that one layer makes smaller and the next makes larger again changes nothing
in the float model. With s = sqrt(r1 / r2) of the channel's largest weights in the two layers both become sqrt(r1 * r2), and
one scale for a whole tensor, of weights or of activations, suits all channels (Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", 2019, section 4.1). Chains are equalized pair by pair until nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._tvm import relax, tvm
from ..errors import UserError
from ..graph.adopt_module import model_pass
from ..graph.channel_scales import ChannelScale, record_channel_scales
from ..graph.module_params import attach_params, detach_params, static_shape
from ..graph.normalization_statistics import Moments, get_statistics, record_statistics
from ..graph.remarks import Remark, add_remarks
from ..graph.view import GraphView
from .weight_inputs import HOMOGENEOUS, along_inputs, input_ranges

_CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d")
_LAYERS = (*_CONVOLUTIONS, "relax.matmul")
# A channel whose weights are smaller than this beside the layer's largest is constant for all purposes. Training leaves such
# channels behind; scaled up, their biases would drown everything else.
_DEAD = 1e-5
_BOUNDED = ("relax.clip", "relax.nn.relu6")


@dataclass(frozen=True, eq=False)
class _Layer:
    """A convolution or matrix product with weights of its own.

    Attributes:
        name: Of its result.
        call: The operation.
        weight: Name of the weight.
        bias: Name of the bias; None where it has none.
        end: The variable behind the bias.
    """

    name: str
    call: relax.Call
    weight: str
    bias: str | None
    end: relax.Var

    @property
    def groups(self) -> int | None:
        """Groups of channels of a convolution."""
        return int(self.call.attrs.groups) if self.call.op.name in _CONVOLUTIONS else None


@dataclass(frozen=True)
class _Pair:
    """Two layers joined by nothing but homogeneous operators.

    Attributes:
        first: Whose channels are scaled.
        second: Whose inputs are scaled back.
        repeats: So many inputs of the second layer each channel is.
        between: Names of the tensors from the first to the second, and so many positions of it each channel has beside each
            other.
    """

    first: _Layer
    second: _Layer
    repeats: int
    between: tuple[tuple[str, int], ...]


@model_pass("EqualizeLayers")
class EqualizeLayers:
    """Equalize the channel ranges of layers that follow each other; the float result stays.

    Pairs are convolutions (grouped and depthwise ones too) and matrix products whose result, behind a bias, a ReLU, a leaky
    ReLU or a pooling, only the next one reads. A clip such as ReLU6 bounds all channels alike and is left, with a remark.

    Args:
        iterations: Passes over all pairs at most.
        tolerance: Equalization ends when no scale is further from 1 than this.

    Raises:
        UserError: An option is out of range.
    """

    def __init__(self, *, iterations: int = 50, tolerance: float = 1e-3) -> None:
        if iterations < 1 or tolerance <= 0:
            raise UserError("equalization needs at least one iteration and a tolerance above 0")
        self.iterations = iterations
        self.tolerance = tolerance

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with other weights; parameters must be attached, `main` must be in canonical form."""
        bare, params = detach_params(mod)
        finder = _Finder(mod)
        pairs, remarks = finder.pairs(), finder.remarks
        if not pairs:
            remarks.append(Remark("EqualizeLayers", "main", "no two layers follow each other so that scale can move"))
        exact = {name: value.astype(np.float64) for name, value in params.items() if value.dtype.kind == "f"}
        moved: dict[str, np.ndarray] = {}
        for _ in range(self.iterations):
            change = max((_equalize(pair, exact, moved) for pair in pairs), default=0.0)
            if change <= self.tolerance:
                break
        for name in {name for pair in pairs for name in (pair.first.weight, pair.first.bias, pair.second.weight) if name}:
            params[name] = exact[name].astype(params[name].dtype)
        statistics = get_statistics(mod)
        scaled = {
            name: Moments(statistics[name].mean / scale, statistics[name].deviation / scale)
            for name, scale in moved.items()
            if name in statistics and statistics[name].mean.shape == scale.shape
        }
        tensors = {
            name: ChannelScale(np.repeat(moved[pair.first.weight], repeats), _channel_axis(pair.first, repeats))
            for pair in pairs
            for name, repeats in pair.between
        }
        changed = record_channel_scales(attach_params(bare, params), tensors)
        return record_statistics(add_remarks(changed, remarks), scaled)


def _equalize(pair: _Pair, params: dict[str, np.ndarray], moved: dict[str, np.ndarray]) -> float:
    """Equalize one pair; how far its scales are from 1."""
    first, second = params[pair.first.weight], params[pair.second.weight]
    axis = _output_axis(pair.first)
    range_first = np.abs(first).max(tuple(a for a in range(first.ndim) if a != axis))
    range_second = input_ranges(second, pair.second.groups, pair.repeats)
    usable = (range_first > _DEAD * range_first.max()) & (range_second > _DEAD * range_second.max())
    scale = np.sqrt(np.where(usable, range_first, 1.0) / np.where(usable, range_second, 1.0))
    params[pair.first.weight] = first / scale.reshape([-1 if a == axis else 1 for a in range(first.ndim)])
    if pair.first.bias is not None:
        bias = params[pair.first.bias]
        params[pair.first.bias] = bias / scale.reshape(bias.shape)
    params[pair.second.weight] = second * along_inputs(scale, second, pair.second.groups, pair.repeats)
    moved[pair.first.weight] = moved.get(pair.first.weight, 1.0) * scale
    return float(np.abs(scale - 1.0).max(initial=0.0))


def _channel_axis(layer: _Layer, repeats: int) -> int:
    """The axis of a tensor behind a layer that counts channels."""
    return 1 if layer.call.op.name in _CONVOLUTIONS and repeats == 1 else -1


def _output_axis(layer: _Layer) -> int:
    return 0 if layer.call.op.name in _CONVOLUTIONS else 1


class _Finder(GraphView):
    """Finds pairs, and says where an activation stands in the way."""

    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.remarks: list[Remark] = []
        self.layers = {var: layer for var, value in self.values.items() if (layer := self._layer(var, value)) is not None}

    def pairs(self) -> list[_Pair]:
        """All pairs, in order."""
        found = (self._follow(layer) for layer in self.layers.values())
        return [pair for pair in found if pair is not None]

    def _own(self, expr: relax.Expr) -> bool:
        """Whether an operand is a float parameter that nothing else reads."""
        return self.is_alone(expr) and expr in self.params and self.params[expr].dtype.kind == "f"

    def _layer(self, var: relax.Var, value: relax.Expr) -> _Layer | None:
        if not isinstance(value, relax.Call) or value.op.name not in _LAYERS or not self._own(value.args[1]):
            return None
        if value.op.name == "relax.matmul":
            if self.params[value.args[1]].ndim != 2 or value.args[0] in self.params:
                return None
        elif not str(value.attrs.data_layout).startswith("NC") or not str(value.attrs.kernel_layout).startswith("OI"):
            return None
        bias, end = None, var
        follower = self.sole_reader(var)
        if follower is not None and follower[1].op.name == "relax.add" and self._own(follower[1].args[1]):
            size = self.params[value.args[1]].shape[1 if value.op.name == "relax.matmul" else 0]
            if self.params[follower[1].args[1]].size == size:
                bias, end = follower[1].args[1].name, follower[0]
        return _Layer(var.name, value, value.args[1].name, bias, end)

    def _follow(self, layer: _Layer) -> _Pair | None:
        """The pair that a layer begins."""
        at, repeats = layer.end, 1
        between = [(layer.name, 1), (layer.end.name, 1)]
        while (follower := self.sole_reader(at)) is not None:
            var, call = follower
            if var in self.layers:
                dense = call.op.name == "relax.matmul"
                after_dense = layer.call.op.name == "relax.matmul"
                fits = dense or not after_dense
                return _Pair(layer, self.layers[var], repeats, tuple(between)) if fits and call.args[0].same_as(at) else None
            if call.op.name in _BOUNDED:
                message = "the clip behind it bounds all channels alike, so no scale can move through it"
                self.remarks.append(Remark("EqualizeLayers", layer.name, message))
                return None
            flat = self._flattening(layer, at, call)
            if flat is not None:
                repeats *= flat
            elif call.op.name not in HOMOGENEOUS and not self._is_mean(call):
                return None
            at = var
            between.append((var.name, repeats))
        return None

    def _flattening(self, layer: _Layer, at: relax.Var, call: relax.Call) -> int | None:
        """How many positions of a channel a reshape puts beside each other; None for other operators."""
        if call.op.name not in ("relax.reshape", "relax.flatten", "relax.squeeze"):
            return None
        old, new = static_shape(at), static_shape(call)
        fits = layer.call.op.name in _CONVOLUTIONS and len(old) > 2 and len(new) == 2 and old[0] == new[0]
        return new[1] // old[1] if fits else None

    def _is_mean(self, call: relax.Call) -> bool:
        """Whether it is a mean over space."""
        if call.op.name != "relax.mean" or call.attrs.axis is None:
            return False
        rank = len(static_shape(call.args[0]))
        return rank > 2 and sorted(int(axis) % rank for axis in call.attrs.axis) == list(range(2, rank))
