"""Whole blocks leave the network: residual branches, and layers whose result has the shape of their input.

A block is ranked by what its removal does to the model's output on calibration samples (as ShortGPT, Men et al., 2024,
and others do for layers of language models). Removal is greedy: after each the remaining blocks are tried anew on the
smaller network, since blocks make up for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from .._tvm import relax, tvm
from ..errors import UserError
from ..graph.adopt_module import model_pass
from ..graph.analysis import count_macs, count_params
from ..graph.interpreter import Interpreter
from ..graph.module_params import input_vars, param_vars, static_shape
from ..graph.rebuild import Rebuilder, bindings, rebuild
from ..graph.remarks import Remark, add_remarks
from ..graph.surgery import SurgeryReport, add_surgery
from ..graph.view import GraphView

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Block:
    """Something that can be left out.

    Attributes:
        name: The variable of the block's result.
        source: What takes its place: the skip connection of a residual block, the input of a layer.
        kind: "residual" or "layer".
        layers: Variables that are computed for this block alone.
    """

    name: str
    source: str
    kind: str
    layers: tuple[str, ...]


@model_pass("PruneBlocks")
class PruneBlocks:
    """Remove the blocks that change the output least.

    Args:
        samples: Calibration samples, one array an input, axis 0 the samples.
        count: Blocks to remove at most.
        max_error: Stop where the squared error of the outputs, relative to the square of the original's, would exceed
            this.
        exclude: Patterns (`*`, `?`) of block results or layers to leave alone.
        on_progress: Called with (candidates tried, candidates, name) in each round.

    Raises:
        UserError: There are no samples, they do not fit, or the count is below 1.
    """

    def __init__(
        self,
        samples: Sequence[np.ndarray],
        count: int = 1,
        *,
        max_error: float | None = None,
        exclude: Sequence[str] = (),
        on_progress: Progress | None = None,
    ) -> None:
        if not samples or len(samples[0]) == 0:
            raise UserError("removing blocks needs calibration samples, and none were given")
        if count != int(count) or count < 1:
            raise UserError(f"the number of blocks to remove must be a whole number of at least 1; {count} is not")
        self.samples = list(samples)
        self.count = count
        self.max_error = max_error
        self.exclude = tuple(exclude)
        self.on_progress = on_progress

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module without the blocks; their names are in the record of `get_surgery`."""
        wanted = _outputs(mod, self.samples)
        current = mod
        gone: list[str] = []
        while len(gone) < self.count:
            best = self._best(current, wanted)
            if best is None:
                break
            block, current = best
            gone.append(block.name)
        if not gone:
            return add_remarks(mod, [Remark("PruneBlocks", "main", "no block could be removed")])
        report = SurgeryReport([], {}, count_macs(mod), count_macs(current), count_params(mod), count_params(current), gone)
        return add_surgery(current, report)

    def _best(self, mod: tvm.IRModule, wanted: list[np.ndarray]) -> tuple[Block, tvm.IRModule] | None:
        blocks = [block for block in find_blocks(mod) if not self._is_excluded(block)]
        best: tuple[float, Block, tvm.IRModule] | None = None
        for index, block in enumerate(blocks):
            candidate = remove_block(mod, block)
            error = relative_error(_outputs(candidate, self.samples), wanted)
            if best is None or error < best[0]:
                best = error, block, candidate
            if self.on_progress is not None:
                self.on_progress(index + 1, len(blocks), block.name)
        if best is None or not np.isfinite(best[0]) or (self.max_error is not None and best[0] > self.max_error):
            return None
        return best[1], best[2]

    def _is_excluded(self, block: Block) -> bool:
        names = (block.name, *block.layers)
        return any(fnmatchcase(name, pattern) for pattern in self.exclude for name in names)


def relative_error(outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """The squared error over all outputs, relative to the squares of what was wanted."""
    error = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in zip(outputs, wanted))
    return error / max(sum(float(np.square(b.astype(np.float64)).sum()) for b in wanted), np.finfo(float).tiny)


def find_blocks(mod: tvm.IRModule) -> list[Block]:
    """The blocks of a module that can be left out, in order of their results."""
    graph = GraphView(mod)
    program, params = graph.values, set(param_vars(graph.main))
    ancestors = _ancestors(program, params, set(input_vars(graph.main)))
    found = []
    for var, call in program.items():
        if not isinstance(call, relax.Call):
            continue
        name = getattr(call.op, "name", "")
        if name == "relax.add":
            sources = _skip_connections(call, ancestors)
            kind = "residual"
        elif name == "relax.matmul" or name.startswith("relax.nn.conv"):
            sources = [call.args[0]] if isinstance(call.args[0], relax.Var) and call.args[1] in params else []
            kind = "layer"
        else:
            continue
        result = var if kind == "residual" else _end_of_layer(var, graph, params)
        for source in sources:
            if source not in params and _same_type(source, result):
                layers = _computed_for(result, source, graph)
                if any(_is_weighted(program[layer], params) for layer in layers):
                    found.append(Block(result.name, source.name, kind, tuple(layer.name for layer in layers)))
    return found


def remove_block(mod: tvm.IRModule, block: Block) -> tvm.IRModule:
    """The module with a block's source in the place of its result."""
    sources = {var.name: var for var in [*input_vars(mod["main"]), *(var for var, _ in bindings(mod["main"]))]}

    def rewrite(rebuilder: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        return rebuilder.get(sources[block.source]) if var.name == block.name else None

    return rebuild(mod, rewrite)


def _ancestors(
    program: dict[relax.Var, relax.Expr], params: set[relax.Var], inputs: set[relax.Var]
) -> dict[relax.Var, set[relax.Var]]:
    """For each activation all activations that it is computed from."""
    found: dict[relax.Var, set[relax.Var]] = {var: set() for var in inputs}
    for var, value in program.items():
        found[var] = set()
        for operand in relax.analysis.free_vars(value):
            if operand not in params:
                found[var] |= {operand} | found[operand]
    return found


def _skip_connections(call: relax.Call, ancestors: dict[relax.Var, set[relax.Var]]) -> list[relax.Var]:
    """The operands of an addition that the other operand is computed from."""
    if not all(isinstance(arg, relax.Var) and arg in ancestors for arg in call.args):
        return []
    left, right = call.args
    return [skip for skip, branch in ((left, right), (right, left)) if skip in ancestors[branch]]


_ELEMENTWISE = {f"relax.{name}" for name in ("add", "multiply", "clip", "nn.relu", "nn.gelu", "nn.silu", "sigmoid", "tanh")}


def _end_of_layer(var: relax.Var, graph: GraphView, params: set[relax.Var]) -> relax.Var:
    """Behind the bias, normalization and activation that belong to a convolution or matrix product."""
    while (follower := graph.sole_reader(var)) is not None:
        call = follower[1]
        if getattr(call.op, "name", "") not in _ELEMENTWISE:
            break
        if any(isinstance(arg, relax.Var) and arg not in params and arg != var for arg in call.args):
            break
        var = follower[0]
    return var


def _computed_for(result: relax.Var, source: relax.Var, graph: GraphView) -> list[relax.Var]:
    """The variables that nothing needs any more once `source` stands in the place of `result`."""
    dead = {result: None}
    for var in reversed(graph.values):
        if var == source or var in dead or not graph.readers.get(var):
            continue
        if all(reader in dead and reader != var for reader in graph.readers[var]):
            dead[var] = None
    return list(dead)[::-1]


def _same_type(left: relax.Var, right: relax.Var) -> bool:
    return static_shape(left) == static_shape(right) and str(left.ty.dtype) == str(right.ty.dtype)


def _is_weighted(value: relax.Expr, params: set[relax.Var]) -> bool:
    return any(var in params for var in relax.analysis.free_vars(value))


def _outputs(mod: tvm.IRModule, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
    try:
        return Interpreter(mod)(samples)
    except ValueError as error:
        raise UserError(f"the calibration samples cannot be run: {error}") from error
