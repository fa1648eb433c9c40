"""The blocks of a module in QDQ form, one after the other: what is reconstructed together.

A block ends where a residual addition, or what stands behind it up to its rounding, does (a residual block, an attention, an
MLP); in a chain it is two layers. Together they are the whole program, so that each can be run on what those before it give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from ..passes._tvm import relax
from ..passes.graph.module_params import input_vars
from ..passes.graph.view import GraphView
from ..passes.quantization.few_bits import SUFFIX
from ..passes.quantization.kinds import CLIPS, op_name
from ..passes.quantization.quantized_layers import QuantizedLayer


@dataclass(frozen=True, eq=False)
class QuantizedBlock:
    """A part of the program.

    Attributes:
        layers: Those whose weights are rounded in it.
        program: Its bindings, with what it takes to make its constants.
        reads: Tensors from outside that the inputs of the network enter.
        targets: What comes out of it and is restored, by the names that the float network has for it.
        leaves: The tensors that later blocks read.
    """

    layers: tuple[QuantizedLayer, ...]
    program: tuple[tuple[relax.Var, relax.Expr], ...]
    reads: tuple[relax.Var, ...]
    targets: Mapping[str, relax.Var]
    leaves: tuple[relax.Var, ...]


def quantized_blocks(graph: GraphView, layers: Mapping[relax.Var, QuantizedLayer]) -> list[QuantizedBlock]:
    """The blocks of a module, in order.

    Args:
        graph: In QDQ form.
        layers: Those whose integers can be changed, by variable.
    """
    program = list(graph.values.items())
    constant = _constants(graph)
    read = {var: set(relax.analysis.free_vars(value)) for var, value in program}
    moving = [(var, value) for var, value in program if var not in constant]
    starts = [0, *_cuts(graph, layers, moving, read), len(moving)]
    ends = {_rounded(graph, layer.added) for layer in layers.values()}
    tensors = (*input_vars(graph.main), *(var for var, _ in moving))
    found = []
    for start, end in pairwise(starts):
        part = moving[start:end]
        inside = {var for var, _ in part}
        needed = set().union(*(read[var] for var in inside))
        later = set().union(*(read[var] for var, _ in moving[end:]))
        leaves = tuple(var for var, _ in part if var in later)
        # What comes out of it: what later blocks read, and the results of layers that nothing of that is computed from.
        results = {var for var, _ in part if var in later or var in ends}
        targets = tuple(var for var, _ in part if var in later or (var in ends and not _leads_on(var, part, results, read)))
        names = {name: var for var in targets if (name := float_name(graph, var)) is not None}
        found.append(
            QuantizedBlock(
                layers=tuple(layers[var] for var, _ in part if var in layers),
                program=(*_made(program, constant, needed, read), *part),
                # In the order of the program: what is drawn at random is drawn in it.
                reads=tuple(var for var in tensors if var in needed and var not in inside),
                targets=names,
                leaves=leaves,
            )
        )
    return found


def float_name(graph: GraphView, var: relax.Var) -> str | None:
    """What the float network calls a tensor: that which was rounded, or itself."""
    call = graph.call(var)
    while call is not None and call.op.name in ("relax.dequantize", "relax.quantize"):
        if not isinstance(call.args[0], relax.Var):
            return None
        var = call.args[0]
        call = graph.call(var)
    # The clip of few bits is none of the float network's.
    if call is not None and call.op.name == "relax.clip" and var.name.endswith(SUFFIX):
        var = call.args[0]
    return var.name


def _constants(graph: GraphView) -> set[relax.Var]:
    """What is computed from parameters alone."""
    found: set[relax.Var] = set()
    for var, value in graph.values.items():
        free = relax.analysis.free_vars(value)
        if all(operand in graph.params or operand in found for operand in free):
            found.add(var)
    return found


def _rounded(graph: GraphView, var: relax.Var) -> relax.Var:
    """What is read of a tensor in the end: it behind its activation, rounded."""
    while (follower := graph.sole_reader(var)) is not None:
        if follower[1].op.name not in (*CLIPS, "relax.quantize", "relax.dequantize"):
            break
        var = follower[0]
        if follower[1].op.name == "relax.dequantize":
            break
    return var


def _cuts(
    graph: GraphView,
    layers: Mapping[relax.Var, QuantizedLayer],
    moving: list[tuple[relax.Var, relax.Expr]],
    read: Mapping[relax.Var, set[relax.Var]],
) -> list[int]:
    """Where blocks begin, but for the first."""
    place = {var: index for index, (var, _) in enumerate(moving)}
    sums = [
        var
        for var, value in moving
        if op_name(value) == "relax.add" and all(isinstance(arg, relax.Var) and arg in place for arg in value.args)
    ]
    # Behind the last addition, or where there is none, two by two.
    beyond = max((place[var] for var in sums), default=-1)
    chain = [layer.added for var, layer in layers.items() if place[var] > beyond]
    ends = [_rounded(graph, var) for var in (*sums, *chain[1::2])]
    last = max((place[var] for var in layers), default=0)
    candidates = sorted({place[end] + 1 for end in ends if end in place})
    found: list[int] = []
    for cut in candidates:
        between = [var for var in layers if (found[-1] if found else 0) <= place[var] < cut]
        before = {var for var, _ in moving[:cut]}
        crossing = set().union(*(read[var] for var, _ in moving[cut:])) & before if cut < len(moving) else set()
        if between and cut <= last and all(isinstance(var.ty, relax.TensorType) for var in crossing):
            found.append(cut)
    return found


def _leads_on(
    var: relax.Var,
    part: list[tuple[relax.Var, relax.Expr]],
    results: set[relax.Var],
    read: Mapping[relax.Var, set[relax.Var]],
) -> bool:
    """Whether another result of a part is computed from a tensor."""
    changed = {var}
    for other, _ in part:
        if read[other] & changed:
            changed.add(other)
    return not changed.isdisjoint(results - {var})


def _made(
    program: list[tuple[relax.Var, relax.Expr]],
    constant: set[relax.Var],
    needed: set[relax.Var],
    read: Mapping[relax.Var, set[relax.Var]],
) -> list[tuple[relax.Var, relax.Expr]]:
    """The bindings that make the constants needed."""
    wanted = needed & constant
    for var, _ in reversed(program):
        if var in wanted:
            wanted |= read[var] & constant
    return [(var, value) for var, value in program if var in wanted]
