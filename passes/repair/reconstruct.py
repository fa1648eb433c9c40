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

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from .._tvm import relax, tvm
from ..errors import UserError
from ..graph.adopt_module import model_pass, with_named_params
from ..graph.float_reference import FloatReference, start
from ..graph.interpreter import Execution
from ..graph.module_params import attach_params, detach_params, static_shape
from ..graph.remarks import Remark, add_remarks
from ..graph.surgery import Channels, get_surgery
from ..graph.view import GraphView
from ..pruning.sparsify import get_masks
from .blocks import Block, find_blocks, solve_block
from .im2col import LayerGeometry
from .least_squares import solve
from .repaired_layers import RepairedLayer, find_layers

Progress = Callable[[int, int, str], None]
_TINY = 1e-12


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
        blocks: Whether the layers of a residual block, an attention, an MLP or two of a chain are then solved for together, see
            `blocks`.
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
        blocks: bool = False,
        on_progress: Progress | None = None,
    ) -> None:
        self.original = with_named_params(original)
        self.inputs = list(inputs)
        self.kept = None if kept is None else {name: _channels(value) for name, value in kept.items()}
        self.ridge = ridge
        self.only = only
        self.blocks = blocks
        self.on_progress = on_progress

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with repaired weights; shapes stay."""
        return reconstruct(self.original, mod, self.inputs, self.kept, self.ridge, self.only, self.blocks, self.on_progress)


def _channels(given: np.ndarray | Channels) -> Channels:
    return given if isinstance(given, Channels) else Channels(np.asarray(given))


def reconstruct(
    original: tvm.IRModule,
    pruned: tvm.IRModule,
    inputs: Sequence[np.ndarray],
    kept: Mapping[str, Channels] | None = None,
    ridge: float | None = None,
    only: Collection[str] | None = None,
    blocks: bool = False,
    on_progress: Progress | None = None,
) -> tvm.IRModule:
    """What `Reconstruct` does, as a function; its arguments."""
    if not inputs or len(inputs[0]) == 0:
        raise UserError("reconstruction needs calibration samples, and none were given")
    kept = _kept_outputs(pruned) if kept is None else kept
    layers, norms = find_layers(pruned), _find_norms(pruned)
    if only is not None:
        layers = {var: layer for var, layer in layers.items() if layer.weight.name in only}
    sources = [norm.args[0].name for norm in norms.values()]
    masks = get_masks(pruned)
    together, refused = _find_together(pruned, layers, masks) if blocks else ({}, {})
    outputs = [block.output.name for block in together.values()]
    wanted = Counter([*(layer.output for layer in layers.values()), *sources, *outputs])
    reference = FloatReference(original, inputs, wanted, "reconstructed")
    execution = start(pruned, inputs, "reconstructed")
    bare, params = detach_params(pruned)
    remarks = [Remark("Reconstruct", *entry) for entry in refused.items()]
    whole = not execution.apart
    done = 0
    left = len(layers) + len(norms)
    begun: tuple[Block, dict[relax.Var, Any]] | None = None
    while (left or begun) and (upcoming := execution.upcoming()) is not None:
        if whole and upcoming[0] in together:
            block = together[upcoming[0]]
            begun = block, {var: execution.values[var] for var in block.reads if var in execution.values}
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
        if begun is not None and upcoming[0].same_as(begun[0].output):
            _repair_block(*begun, execution, reference, params, kept)
            begun = None
    return add_remarks(attach_params(bare, params), remarks)


def _repair(
    layer: RepairedLayer,
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


def _find_together(
    mod: tvm.IRModule, layers: Mapping[relax.Var, RepairedLayer], masks: Mapping[str, np.ndarray]
) -> tuple[dict[relax.Var, Block], dict[str, str]]:
    """The blocks by the variable that they begin with; sparse layers are solved one by one."""
    dense = {var: layer for var, layer in layers.items() if layer.weight.name not in masks}
    found, refused = find_blocks(mod, dense)
    return {block.program[0][0]: block for block in found}, refused


def _repair_block(
    block: Block,
    values: dict[relax.Var, Any],
    execution: Execution,
    reference: FloatReference,
    params: dict[str, np.ndarray],
    kept: Mapping[str, Channels],
) -> None:
    """Solve a block that has just been computed, and compute it anew."""
    target = reference.value(block.output.name)
    last = block.layers[-1]
    axis = -1 if last.call.op.name == "relax.matmul" else 1
    if target is not None and last.weight.name in kept:
        target = kept[last.weight.name].of(target, axis)
    found = execution.values[block.output]
    if target is None or target.shape != found.shape or not np.isfinite(found).all():
        return
    # The parameters as they are since their layers were repaired.
    values |= {var: execution.values.get(var, params.get(var.name)) for var in block.reads if var.name in params}
    solution = solve_block(block, values, target, params, execution.evaluate, execution.samples)
    if solution is None:
        return
    params.update(solution)
    for var in block.reads:
        if var.name in solution:
            values[var] = solution[var.name]
            if var in execution.values:
                execution.values[var] = solution[var.name]
    for var, expr in block.program:
        values[var] = execution.evaluate(expr, values, execution.samples)
        if var in execution.values:
            execution.values[var] = values[var]


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
    layers = list(find_layers(mod).values())
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
