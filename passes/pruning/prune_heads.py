"""Attention heads leave a transformer: queries, keys, values and the rows of the output projection together.

Heads are found in the graph, not by names: they are the axis over which products of activations are batched, or the
heads of the attention operator (Michel et al., "Are Sixteen Heads Really Better than One?", 2019, removes whole heads
too).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .._tvm import relax, tvm
from ..channels import ChannelGraph, Group, analyze
from ..errors import UserError
from ..graph.adopt_module import model_pass
from ..graph.module_params import get_params, input_vars, param_vars, static_shape
from ..graph.rebuild import bindings
from ..graph.remarks import Remark, add_remarks
from . import (
    activation_criteria,  # noqa: F401  (they register themselves)
    weight_criteria,  # noqa: F401  (they register themselves)
)
from .allocation import Allocation, allocate
from .folding import get_selector
from .importance import Criterion, Prepared, get_criterion, prepare, score
from .prune_channels import prune

_NO_HEADS = "there are no attention heads that could be removed"


@model_pass("PruneHeads")
class PruneHeads:
    """Remove the attention heads that matter least.

    The pruned module computes what the module would compute with the same heads' parameters zeroed.

    Args:
        ratio: Fraction of the heads to remove, in (0, 1).
        importance: A criterion or its name, see `PruneChannels`.
        scope: "local" removes the fraction in every layer, "global" from all layers together.
        exclude: Patterns of layers to leave alone.
        ratios: Ratio by pattern, in [0, 1), where it shall differ.
        min_heads: Heads that every layer keeps at least.
        samples: Calibration samples for criteria that run the network.
        selection: How heads leave, see `PruneChannels`.

    Raises:
        UserError: An option is out of range, a pattern matches nothing, or a score is not finite.
    """

    def __init__(
        self,
        ratio: float = 0.5,
        *,
        importance: str | Criterion | Prepared = "l2",
        scope: str = "local",
        exclude: Sequence[str] = (),
        ratios: Mapping[str, float] | None = None,
        min_heads: int = 1,
        samples: Sequence[np.ndarray] | None = None,
        selection: str = "remove",
    ) -> None:
        self.selector = get_selector(selection, samples)
        self.criterion = get_criterion(importance, samples)
        if min_heads != int(min_heads) or min_heads < 1:
            raise UserError(f"min_heads must be a whole number of at least 1; {min_heads} is not")
        self.allocation = Allocation(ratio, scope, min_units=min_heads, exclude=tuple(exclude), ratios=dict(ratios or {}))

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the smaller module."""
        graph, heads = find_heads(mod)
        if not heads:
            return add_remarks(mod, [Remark("PruneHeads", "main", _NO_HEADS)])
        criterion, params = prepare(self.criterion, mod), get_params(mod)
        scores = {group.name: score(criterion, group, params) for group in heads}
        units = allocate(heads, scores, self.allocation)
        return prune(mod, graph, units, "lowest importance of a head", "PruneHeads", self.selector)


def find_heads(mod: tvm.IRModule) -> tuple[ChannelGraph, list[Group]]:
    """The analysis in which heads are units, and the groups of heads."""
    places = _head_axes(mod)
    sizes = set(places.values())
    graph = analyze(mod, preferred_splits=sizes)
    return graph, [group for group in graph.groups if any(place in places for place in group.places)]


def _head_axes(mod: tvm.IRModule) -> dict[tuple[str, int], int]:
    """The (variable, axis) pairs that run over heads, with the number of heads."""
    main = mod["main"]
    outside = {*param_vars(main), *input_vars(main)}
    found = {}
    for _, call in bindings(main):
        name = getattr(call.op, "name", "") if isinstance(call, relax.Call) else ""
        if name not in ("relax.matmul", "relax.nn.attention", "relax.nn.attention_bias"):
            continue
        operands = [arg for arg in call.args[:3] if isinstance(arg, relax.Var)]
        if len(operands) < 2 or any(arg in outside for arg in operands):
            continue
        for operand in operands:
            shape = static_shape(operand)
            axis = len(shape) - 3 if name == "relax.matmul" else 2
            if axis >= 0 and shape[axis] > 1:
                found[operand.name, axis] = shape[axis]
    return found
