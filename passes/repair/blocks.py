"""Solving for the weights of a block of layers together: what comes out of the block is what counts, not what its layers give.

A block is what leads to a residual addition (a residual block, an attention, an MLP), or two layers of a chain. Units inside it
need not be what they were in the original; behind pruning, the few that are left serve the block's output better as others.
That is a nonlinear least-squares problem: L-BFGS (Liu and Nocedal, 1989) solves it in coordinates in which its Gauss-Newton
matrix is about the identity, by a Kronecker factorization for each layer (Martens and Grosse, "Optimizing Neural Networks with
Kronecker-factored Approximate Curvature", 2015; for convolutions Grosse and Martens, 2016). It starts from the solution layer
by layer, and is thrown away where it is no better on samples held back. Reconstruction over blocks is that of Li et al.,
"BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction" (2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg, optimize

from .._tvm import relax, tvm
from ..graph.module_params import static_shape
from ..graph.rebuild import bindings
from .gradients import DERIVATIVES
from .im2col import LayerGeometry, folded_weight, gather, unfolded_weight
from .repaired_layers import RepairedLayer

_POSITIONS = 60_000
"""Positions of the block's output that are looked at, about."""

_ROWS = 20_000
"""Rows of a layer's input from which its curvature is estimated."""

_STEPS = 20
_DAMPING = 1e-3
_HELD_BACK = 5
"""One sample of so many is held back to judge the solution."""

Values = dict[relax.Var, Any]
Evaluate = Callable[[relax.Expr, Mapping[relax.Var, Any], int], Any]


@dataclass(frozen=True)
class Block:
    """Layers that are solved for together.

    Attributes:
        layers: Those whose weights are free, in order.
        program: The bindings from the first layer to the output.
        output: The variable that is to be restored.
        clip: The limits of the activation behind it.
        reads: The variables from outside.
    """

    layers: tuple[RepairedLayer, ...]
    program: tuple[tuple[relax.Var, relax.Expr], ...]
    output: relax.Var
    clip: tuple[float, float]
    reads: frozenset[relax.Var]


def find_blocks(mod: tvm.IRModule, layers: Mapping[relax.Var, RepairedLayer]) -> tuple[list[Block], dict[str, str]]:
    """The blocks of a network, in order and apart, and why others are none.

    Args:
        mod: The module.
        layers: The layers to solve for, in order.
    """
    program = list(bindings(mod["main"]))
    place = {var: index for index, (var, _) in enumerate(program)}
    names = {var.name: var for var in place}
    read = [set(relax.analysis.free_vars(value)) for _, value in program]
    ends = set(relax.analysis.free_vars(mod["main"].body.body))
    found: list[Block] = []
    refused: dict[str, str] = {}
    last = -1
    for run in _runs(list(layers.values())):
        output = names[run[-1].output]
        start, end = place[run[0].var], place[output]
        if start <= last:
            continue
        free = tuple(layer for layer in run if _stays_inside(layer.var, place[layer.var], end, program, read, ends))
        if len(free) < 2:
            continue
        inside = program[start : end + 1]
        missing = sorted({_operator(value) for _, value in inside if _operator(value) not in DERIVATIVES} - {""})
        if missing:
            refused[run[-1].var.name] = f"its block is solved layer by layer: {missing[0]} has no derivative"
            continue
        outside = frozenset().union(*read[start : end + 1]) - {var for var, _ in inside}
        found.append(Block(free, tuple(inside), output, run[-1].clip, outside))
        last = end
    return found, refused


def _runs(layers: Sequence[RepairedLayer]) -> list[list[RepairedLayer]]:
    """Layers up to each residual addition; where there is none, two by two."""
    runs: list[list[RepairedLayer]] = []
    current: list[RepairedLayer] = []
    residual = any(layer.other is not None for layer in layers)
    for layer in layers:
        current.append(layer)
        if layer.other is not None or (not residual and len(current) == 2):
            runs.append(current)
            current = []
    return [*runs, current] if current else runs


def _stays_inside(
    var: relax.Var,
    start: int,
    end: int,
    program: Sequence[tuple[relax.Var, relax.Expr]],
    read: Sequence[set[relax.Var]],
    ends: set[relax.Var],
) -> bool:
    """Whether all that a layer changes goes through the output of its block."""
    changed = {var}
    for index in range(start + 1, end + 1):
        if read[index] & changed:
            changed.add(program[index][0])
    output = program[end][0]
    inner = changed - {output}
    return output in changed and not inner & ends and not any(read[index] & inner for index in range(end + 1, len(program)))


def _operator(value: relax.Expr) -> str:
    """The name of what a binding calls; of what is no call one that has no derivative."""
    if isinstance(value, relax.Var):
        return ""
    return str(getattr(value.op, "name", "")) if isinstance(value, relax.Call) else type(value).__name__


def solve_block(
    block: Block,
    values: Values,
    target: np.ndarray,
    params: Mapping[str, np.ndarray],
    evaluate: Evaluate,
    samples: int,
    steps: int = _STEPS,
) -> dict[str, np.ndarray] | None:
    """The weights and biases of a block that bring its output closest to what is wanted.

    Args:
        block: The block.
        values: Of what it reads, all samples stacked on axis 0.
        target: What its output should be.
        params: The parameters, where the solution starts.
        evaluate: Gives the value of an expression, from those of variables, for a number of samples.
        samples: How many there are.
        steps: Of L-BFGS, at most.

    Returns:
        New values by name; None where none is better on the samples held back.
    """
    count = max(1, round(_POSITIONS * samples / max(target.size // target.shape[_axis(block, target)], 1)))
    rng = np.random.default_rng(0)
    picked = np.sort(rng.permutation(samples)[: max(2 * _HELD_BACK, count)])
    held = np.arange(len(picked)) % _HELD_BACK == 0
    if held.all() or not held.any():
        return None
    parts = [
        _Part(block, _of_samples(block, values, rows, samples), _rows(target, rows, samples), evaluate, len(rows))
        for rows in (picked[~held], picked[held])
    ]
    learned, judged = parts
    names = {name for layer in block.layers for name in _names(layer)}
    start = {name: params[name] for name in names}
    space = _Coordinates(block, learned, start, rng)
    before = judged.error(start)

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        trial = space.params(point)
        error, gradients = learned.derivatives(trial)
        return error / space.unit**2, space.gradient(gradients)

    found = optimize.minimize(
        objective, np.zeros(space.size), jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxfun": 2 * steps}
    )
    solution = space.params(found.x)
    if not all(np.isfinite(value).all() for value in solution.values()) or not judged.error(solution) < before:
        return None
    return solution


def _axis(block: Block, value: np.ndarray) -> int:
    """The axis of the channels of a block's output."""
    return value.ndim - 1 if block.layers[-1].call.op.name == "relax.matmul" else 1


def _names(layer: RepairedLayer) -> list[str]:
    return [layer.weight.name] if layer.bias is None else [layer.weight.name, layer.bias.name]


def _rows(value: np.ndarray, rows: np.ndarray, samples: int) -> np.ndarray:
    apart = value.reshape(samples, -1, *value.shape[1:])[rows]
    return apart.reshape(-1, *value.shape[1:])


def _of_samples(block: Block, values: Values, rows: np.ndarray, samples: int) -> Values:
    """The values that a block reads, of some samples; those that no sample enters are whole."""

    def some(var: relax.Var, value: Any) -> Any:
        stacked = isinstance(value, np.ndarray) and value.ndim > 0 and len(value) == samples * static_shape(var)[0]
        return _rows(value, rows, samples) if stacked else value

    free = {name for layer in block.layers for name in _names(layer)}
    return {var: values[var] if var.name in free else some(var, values[var]) for var in block.reads}


class _Part:
    """A block on some of the samples."""

    def __init__(self, block: Block, values: Values, target: np.ndarray, evaluate: Evaluate, samples: int) -> None:
        self._block, self._outside, self._evaluate, self._samples = block, values, evaluate, samples
        self.target = target
        self._params = {var.name: var for layer in block.layers for var in (layer.weight, layer.bias) if var is not None}
        low, high = block.clip
        self._low, self._high = target <= low, target >= high

    def run(self, params: Mapping[str, np.ndarray]) -> Values:
        """The values of all variables."""
        values = {**self._outside, **{self._params[name]: value for name, value in params.items()}}
        for var, expr in self._block.program:
            values[var] = self._evaluate(expr, values, self._samples)
        return values

    def residual(self, values: Values) -> np.ndarray:
        """What the output is too much; beyond a limit of the activation behind it nothing where the target is, too."""
        found = values[self._block.output]
        low, high = self._block.clip
        error = np.where(self._low, np.maximum(found - low, 0), found - self.target)
        return np.where(self._high, np.minimum(found - high, 0), error) if self._high.any() else error

    def error(self, params: Mapping[str, np.ndarray]) -> float:
        """Half the squared error."""
        return 0.5 * float(np.square(self.residual(self.run(params)), dtype=np.float64).sum())

    def derivatives(self, params: Mapping[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
        """Half the squared error, and its derivatives by the parameters."""
        values = self.run(params)
        residual = self.residual(values)
        gradients = self.back(values, residual)
        return 0.5 * float(np.square(residual, dtype=np.float64).sum()), {n: gradients[v] for n, v in self._params.items()}

    def back(self, values: Values, gradient: np.ndarray) -> dict[relax.Var, np.ndarray]:
        """Derivatives by every variable that the free parameters enter, given that by the output."""
        wanted = set(self._params.values())
        for var, expr in self._block.program:
            if wanted & set(relax.analysis.free_vars(expr)):
                wanted.add(var)
        found = {self._block.output: gradient.astype(values[self._block.output].dtype)}
        for var, expr in reversed(self._block.program):
            if var not in found or var not in wanted:
                continue
            if isinstance(expr, relax.Var):
                found[expr] = found.get(expr, 0) + found[var]
                continue
            args = [self._evaluate(arg, values, self._samples) for arg in expr.args]
            parts = DERIVATIVES[expr.op.name](expr, args, values[var], found[var])
            for arg, part in zip(expr.args, parts):
                if isinstance(arg, relax.Var) and arg in wanted and part is not None:
                    value = part() if callable(part) else part
                    found[arg] = found[arg] + value if arg in found else value
        return found


class _Coordinates:
    """Coordinates of a block's parameters in which the squared error is about equally curved everywhere.

    Of each layer the Gauss-Newton matrix is taken for the product of two: of what it reads, and of what its outputs mean for
    the block's, which random derivatives at the output tell.
    """

    def __init__(self, block: Block, part: _Part, start: Mapping[str, np.ndarray], rng: np.random.Generator) -> None:
        self._layers, self._start = block.layers, start
        values = part.run(start)
        alive = (part.residual(values) != 0) | ((part.target > block.clip[0]) & (part.target < block.clip[1]))
        noise = part.back(values, rng.standard_normal(part.target.shape, np.float32) * alive)
        self._factors = []
        for layer in block.layers:
            how = LayerGeometry.of(layer.call)
            rows = gather(values[layer.call.args[0]], noise[layer.var], how, limit=_ROWS)
            whole = noise[layer.var].size / max(rows.targets.size, 1)
            inputs = rows.inputs.astype(np.float64)
            if layer.bias is not None:
                inputs = np.concatenate([inputs, np.ones((*inputs.shape[:2], 1))], axis=2)
            targets = rows.targets.astype(np.float64)
            self._factors.append(
                (
                    [_factor(x.T @ x * whole) for x in inputs],
                    [_factor(t.T @ t / len(t)) for t in targets],
                )
            )
        self._sizes = [sum(len(b) * len(a) for a, b in zip(*factors)) for factors in self._factors]
        self.size = sum(self._sizes)
        self.unit = 1.0
        self.unit = max(float(np.linalg.norm(self.gradient(part.derivatives(start)[1]))), 1e-30)

    def params(self, point: np.ndarray) -> dict[str, np.ndarray]:
        """The parameters at a point; the start is at the origin."""
        found = {}
        for layer, (reads, means), flat in zip(self._layers, self._factors, np.split(point, np.cumsum(self._sizes)[:-1])):
            groups = flat.reshape(len(reads), len(means[0]), len(reads[0])) * self.unit
            moved = np.stack(
                [
                    linalg.solve_triangular(
                        a, linalg.solve_triangular(b, step, trans="T", lower=True).T, trans="T", lower=True
                    ).T
                    for a, b, step in zip(reads, means, groups)
                ]
            )
            weight, how = self._start[layer.weight.name], LayerGeometry.of(layer.call)
            fan_in = unfolded_weight(weight, how).shape[2]
            new = weight + folded_weight(moved[:, :, :fan_in], how, weight.shape)
            found[layer.weight.name] = new.astype(weight.dtype)
            if layer.bias is not None:
                bias = self._start[layer.bias.name]
                found[layer.bias.name] = (bias + moved[:, :, fan_in].reshape(bias.shape)).astype(bias.dtype)
        return found

    def gradient(self, gradients: Mapping[str, np.ndarray]) -> np.ndarray:
        """Derivatives of the error, in units of `unit` squared, by the coordinates."""
        parts = []
        for layer, (reads, means) in zip(self._layers, self._factors):
            by_weight = unfolded_weight(gradients[layer.weight.name], LayerGeometry.of(layer.call)).astype(np.float64)
            if layer.bias is not None:
                by_bias = gradients[layer.bias.name].reshape(*by_weight.shape[:2], 1)
                by_weight = np.concatenate([by_weight, by_bias], axis=2)
            for a, b, g in zip(reads, means, by_weight):
                inner = linalg.solve_triangular(b, g, lower=True)
                parts.append(linalg.solve_triangular(a, inner.T, lower=True).T.ravel())
        return np.concatenate(parts) / self.unit


def _factor(matrix: np.ndarray) -> np.ndarray:
    """The lower Cholesky factor of a matrix, damped."""
    size = len(matrix)
    mean = max(float(np.trace(matrix)) / size, 1e-30)
    return np.asarray(linalg.cholesky(matrix + _DAMPING * mean * np.eye(size), lower=True))
