"""Repairing a pruned network from unlabelled samples, without training.

Layer by layer, in order: the weights and bias of every convolution and matrix product are solved by least squares so that
the pruned network's own (already repaired) inputs give the outputs that the original computed, as far as an activation
behind the layer (ReLU or a clip) lets them through. In front of a residual addition the target is the original's sum less
what the other branch of the pruned network brings, so that a layer also makes good what was lost on the skip path.
Statistics of batch normalizations that could not be folded follow their input: mean and variance move as they moved between
the original and the pruned network. The idea of solving for the weights that remain is that of He, Zhang and Sun, "Channel
Pruning for Accelerating Very Deep Neural Networks" (2017); here it runs over the whole graph.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .._tvm import relax, tvm
from ..errors import UserError
from ..graph.adopt_module import model_pass, with_named_params
from ..graph.float_reference import FloatReference, start
from ..graph.interpreter import Execution, plain_value
from ..graph.module_params import attach_params, detach_params, static_shape
from ..graph.remarks import Remark, add_remarks
from ..graph.surgery import Channels, get_surgery
from ..graph.view import GraphView
from ..pruning.sparsify import get_masks
from .im2col import LayerGeometry
from .least_squares import solve

_LAYERS = {"relax.nn.conv1d", "relax.nn.conv2d", "relax.matmul"}
Progress = Callable[[int, int, str], None]
_TINY = 1e-12


@dataclass(frozen=True)
class _Layer:
    """A layer that can be repaired.

    Attributes:
        var: Holds the result of the bare convolution or matrix product.
        call: That operation.
        weight: Its weight.
        bias: The parameter added to it, if there is one.
        output: The tensor whose value is restored: behind the bias, or behind a residual addition.
        other: The other operand of that residual addition, if it is computed before the layer.
        clip: The limits of the activation that alone reads `output`; infinite where there is none.
    """

    var: relax.Var
    call: relax.Call
    weight: relax.Var
    bias: relax.Var | None
    output: str
    other: relax.Var | None
    clip: tuple[float, float]


@model_pass("Reconstruct")
class Reconstruct:
    """Repair the weights of a pruned or sparse module from calibration samples; what `Sparsify` has zeroed stays zero.

    Args:
        original: The module before pruning, parameters attached; layers have the same names in both.
        inputs: Calibration samples, one array an input, axis 0 the samples.
        kept: For each weight the positions of its output axis that pruning kept (axis 0 of a convolution's weight, the last
            of a matrix product's), or `Channels`, where they are means of several. A weight that is missing here kept all.
            By default what was recorded when it was pruned.
        ridge: Relative pull towards the pruned weights, see `least_squares.solve`; None chooses it layer by layer on
            samples held back.
        only: The weights to repair, by name; None for all.
        on_progress: Called with (layers done, layers in all, name of the layer).

    Raises:
        UserError: There are no samples, or they do not fit.
    """

    def __init__(
        self,
        original: tvm.IRModule,
        inputs: Sequence[np.ndarray],
        kept: Mapping[str, np.ndarray | Channels] | None = None,
        *,
        ridge: float | None = None,
        only: Collection[str] | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.original = with_named_params(original)
        self.inputs = list(inputs)
        self.kept = None if kept is None else {name: _channels(value) for name, value in kept.items()}
        self.ridge = ridge
        self.only = only
        self.on_progress = on_progress

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with repaired weights; shapes stay."""
        return reconstruct(self.original, mod, self.inputs, self.kept, self.ridge, self.only, self.on_progress)


def _channels(given: np.ndarray | Channels) -> Channels:
    return given if isinstance(given, Channels) else Channels(np.asarray(given))


def reconstruct(
    original: tvm.IRModule,
    pruned: tvm.IRModule,
    inputs: Sequence[np.ndarray],
    kept: Mapping[str, Channels] | None = None,
    ridge: float | None = None,
    only: Collection[str] | None = None,
    on_progress: Progress | None = None,
) -> tvm.IRModule:
    """What `Reconstruct` does, as a function; its arguments."""
    if not inputs or len(inputs[0]) == 0:
        raise UserError("reconstruction needs calibration samples, and none were given")
    kept = _kept_outputs(pruned) if kept is None else kept
    layers, norms = _find_layers(pruned), _find_norms(pruned)
    if only is not None:
        layers = {var: layer for var, layer in layers.items() if layer.weight.name in only}
    sources = [norm.args[0].name for norm in norms.values()]
    wanted = Counter([*(layer.output for layer in layers.values()), *sources])
    reference = FloatReference(original, inputs, wanted, "reconstructed")
    execution = start(pruned, inputs, "reconstructed")
    masks = get_masks(pruned)
    bare, params = detach_params(pruned)
    remarks: list[Remark] = []
    done = 0
    left = len(layers) + len(norms)
    while left and (upcoming := execution.upcoming()) is not None:
        left -= (upcoming[0] in layers) + (upcoming[0] in norms)
        layer = layers.get(upcoming[0])
        if layer is not None:
            problem = _repair(layer, execution, reference, params, kept, ridge, masks)
            if problem is not None:
                remarks.append(Remark("Reconstruct", layer.var.name, problem))
            done += 1
            if on_progress is not None:
                on_progress(done, len(layers), layer.var.name)
        norm = norms.get(upcoming[0])
        if norm is not None:
            _restate(norm, execution, reference, params, kept)
        execution.step()
    return add_remarks(attach_params(bare, params), remarks)


def _repair(
    layer: _Layer,
    execution: Execution,
    reference: FloatReference,
    params: dict[str, np.ndarray],
    kept: Mapping[str, Channels],
    ridge: float | None,
    masks: Mapping[str, np.ndarray],
) -> str | None:
    """Solve one layer and put the solution into the run; what stood in the way, if anything."""
    x = execution.values[layer.call.args[0]]
    weight, bias = params[layer.weight.name], None if layer.bias is None else params[layer.bias.name]
    dense = layer.call.op.name == "relax.matmul"
    wanted = reference.value(layer.output)
    if wanted is None:
        return "the original has no tensor of this name, so there is nothing to repair it towards"
    axis = -1 if dense else 1
    outputs = weight.shape[axis] if dense else weight.shape[0]
    if layer.weight.name in kept:
        wanted = kept[layer.weight.name].of(wanted, axis)
    if wanted.shape[axis] != outputs:
        return "which of its outputs were kept is not known"
    new_weight, new_bias = solve(
        x,
        wanted,
        LayerGeometry.of(layer.call),
        weight,
        None if bias is None else bias.reshape(-1),
        ridge,
        offset=None if layer.other is None else execution.values[layer.other],
        clip=layer.clip,
        mask=masks.get(layer.weight.name),
    )
    if not np.isfinite(new_weight).all() or (new_bias is not None and not np.isfinite(new_bias).all()):
        return "its equations have no finite solution; it keeps its weights"
    params[layer.weight.name] = execution.values[layer.weight] = new_weight
    if layer.bias is not None and bias is not None and new_bias is not None:
        params[layer.bias.name] = execution.values[layer.bias] = new_bias.reshape(bias.shape)
    return None


def _restate(
    norm: relax.Call,
    execution: Execution,
    reference: FloatReference,
    params: dict[str, np.ndarray],
    kept: Mapping[str, Channels],
) -> None:
    """Move the statistics of a normalization as its input has moved, and put them into the run."""
    before, after = reference.value(norm.args[0].name), execution.values[norm.args[0]]
    axis = int(norm.attrs.axis)
    if before is None:
        return
    mean, variance = norm.args[3], norm.args[4]
    if mean.name in kept:
        before = kept[mean.name].of(before, axis)
    if before.shape != after.shape:
        return
    others = tuple(other for other in range(after.ndim) if other != axis)
    shift = after.mean(others, np.float64) - before.mean(others, np.float64)
    scale = (after.var(others, np.float64) + _TINY) / (before.var(others, np.float64) + _TINY)
    for var, value in ((mean, params[mean.name] + shift), (variance, params[variance.name] * scale)):
        params[var.name] = execution.values[var] = value.astype(params[var.name].dtype)


def repaired_outputs(mod: tvm.IRModule, sums: bool = False) -> list[tuple[str, int, tuple[int, ...], Channels | None]]:
    """The tensors that `Reconstruct` restores, in order: the name, the axis of the channels, the shape, and what is left of
    the original's channels (None for all). With `sums` those behind residual additions alone, where
    there are any."""
    kept, found = _kept_outputs(mod), []
    by_name = {var.name: var for var in GraphView(mod).values}
    layers = list(_find_layers(mod).values())
    residual = [layer for layer in layers if layer.other is not None] if sums else []
    for layer in residual or layers:
        shape = static_shape(by_name[layer.output])
        axis = len(shape) - 1 if layer.call.op.name == "relax.matmul" else 1
        found.append((layer.output, axis, shape, kept.get(layer.weight.name)))
    return found


def _kept_outputs(mod: tvm.IRModule) -> dict[str, Channels]:
    """What is left of every weight's output axis, from the record of the pruning."""
    report = get_surgery(mod)
    if report is None:
        return {}
    means = report.means()
    return {
        name: Channels(positions, means.get((name, axis), {}))
        for (name, axis), positions in report.kept_positions().items()
        if axis == (1 if len(report.shapes[name]) == 2 else 0)
    }


def _find_layers(mod: tvm.IRModule) -> dict[relax.Var, _Layer]:
    """The layers with a weight of their own, by the variable of the bare operation."""
    graph = GraphView(mod)
    params = graph.params
    order = {var: index for index, var in enumerate(graph.values)}
    found: dict[relax.Var, _Layer] = {}
    for var, value in graph.values.items():
        if not isinstance(value, relax.Call) or value.op.name not in _LAYERS:
            continue
        weight = value.args[1]
        if weight not in params or not graph.is_alone(weight) or value.args[0] in params:
            continue
        if value.op.name == "relax.matmul" and params[weight].ndim != 2:
            continue
        added, bias = var, None
        behind = graph.sole_reader(var)
        if behind is not None and _adds(behind[1], var, params) and graph.is_alone(behind[1].args[1]):
            added, bias = behind[0], behind[1].args[1]
        output, other = added, None
        after = graph.sole_reader(added)
        if after is not None:
            addition = after[1]
            if addition.op.name == "relax.add" and all(arg not in params for arg in addition.args):
                operand = addition.args[1] if addition.args[0] is added else addition.args[0]
                if operand is not added and operand.ty == added.ty and order.get(operand, -1) < order[var]:
                    output, other = after[0], operand
        found[var] = _Layer(var, value, weight, bias, output.name, other, _clip(graph.sole_reader(output)))
    return found


def _clip(behind: tuple[relax.Var, relax.Call] | None) -> tuple[float, float]:
    """The limits of an activation that is the only reader of a tensor; infinite where there is none."""
    if behind is None:
        return -math.inf, math.inf
    call = behind[1]
    name = getattr(call.op, "name", "")
    if name == "relax.nn.relu":
        return 0.0, math.inf
    if name == "relax.nn.relu6":
        return 0.0, 6.0
    if name == "relax.clip":
        low, high = (plain_value(limit) for limit in call.args[1:3])
        return float(low), float(high)
    return -math.inf, math.inf


def _find_norms(mod: tvm.IRModule) -> dict[relax.Var, relax.Call]:
    """The batch normalizations with statistics of their own, by the variable of their result."""
    graph = GraphView(mod)
    return {
        var: value
        for var, value in graph.values.items()
        if isinstance(value, relax.Call)
        and value.op.name == "relax.nn.batch_norm"
        and isinstance(value.args[0], relax.Var)
        and value.args[0] not in graph.main.params
        and all(arg in graph.params and graph.is_alone(arg) for arg in value.args[3:5])
    }


def _adds(value: relax.Call, var: relax.Var, params: Container[relax.Var]) -> bool:
    """Whether `value` adds a parameter to `var`."""
    return value.op.name == "relax.add" and value.args[0].same_as(var) and value.args[1] in params
