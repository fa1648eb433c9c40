"""Least squares for the layers of a network: the weights that best turn given inputs into given outputs.

A convolution is a matrix product over unfolded windows, so its weights solve ordinary normal equations. Where an activation
clips what the layer gives, only what comes through counts, which stays a convex problem. Of large maps a random part of the
positions is looked at: memory and time are bounded, and neighbouring positions tell much the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import linalg

from .im2col import LayerGeometry, gather

_ROWS_PER_UNKNOWN = 200
_ROWS_BYTES = 256 << 20
"""Bounds of the rows looked at: so many for each weight of an output, and together not more than this."""

_BLOCK_BYTES = 64 << 20
"""Of one block of rows in float64."""

_RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_HELD_BACK = 5
"""One sample of so many is held back to choose the ridge."""

_STEPS = 10
"""Steps towards the least error behind a clip; more hardly change it."""


def solve(
    x: np.ndarray,
    target: np.ndarray,
    geometry: LayerGeometry,
    weight: np.ndarray,
    bias: np.ndarray | None,
    ridge: float | None = None,
    *,
    offset: np.ndarray | None = None,
    clip: tuple[float, float] = (-math.inf, math.inf),
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The weights and bias that map `x` to `target` with the least squared error.

    Solves min |X W + b + offset - T|^2 + lambda |W - W0|^2 with lambda = ridge * mean(diag(X'X)): where the samples say
    nothing the old weights stay. Behind a clip a result beyond a limit is as good as any other beyond it where the target is
    beyond it too: error counts only as far as the result lies on the wrong side of the limit. (Zhang et al., "Accelerating
    Very Deep Convolutional Networks for Classification and Detection", 2016, have the same aim; without their free
    responses on the other side it is convex, and accelerated projections solve it.)

    Args:
        x: What the layer reads: (N, C, *spatial) or (..., K).
        target: What it should give: (N, O, *spatial) or (..., O).
        geometry: How it reads.
        weight: W0, (O, C / groups, *kernel) or (K, O).
        bias: b0, (O,); None for a layer without one.
        ridge: Relative strength of the pull towards W0, at least 0; None chooses it on every fifth sample.
        offset: What is added to the layer's result, like `target`.
        clip: The limits that the sum is clipped to afterwards.
        mask: Where W may be other than zero, bool like `weight`; None for everywhere.

    Returns:
        Weight and bias, shapes and dtypes of `weight` and `bias`; None for no bias.
    """
    groups = geometry.groups
    dense = not geometry.kernel

    def by_group(value: np.ndarray) -> np.ndarray:
        """(groups, outputs of a group, fan-in of a group)"""
        return (value.T if dense else value).reshape(groups, -1, value.shape[0] if dense else value[0].size)

    old = by_group(weight)
    free = None if mask is None and bias is not None else by_group(np.ones(weight.shape, bool) if mask is None else mask)
    outputs, fan_in = old.shape[1], old.shape[2]
    offsets = np.zeros(groups * outputs) if bias is None else bias
    limit = min(_ROWS_PER_UNKNOWN * (fan_in + 1), _ROWS_BYTES // (4 * groups * (fan_in + 2 * outputs)))
    rows = gather(x, target, geometry, offset, limit)
    held = rows.samples % _HELD_BACK == 0
    problems = [
        _Problem(
            rows.inputs[group],
            rows.targets[group],
            None if rows.offsets is None else rows.offsets[group],
            np.concatenate([old[group].T, offsets.reshape(groups, outputs)[group][None]]).astype(np.float64),
            clip,
            None if free is None else np.concatenate([free[group].T, np.full((1, outputs), bias is not None)]),
        )
        for group in range(groups)
    ]
    if ridge is None:
        ridge = _chosen_ridge(problems, held)
    solutions = np.stack([problem.solve(ridge) for problem in problems])
    flat = solutions[:, :-1].transpose(0, 2, 1).reshape(-1, fan_in)
    shaped = flat.T if dense else flat.reshape(weight.shape)
    return shaped.astype(weight.dtype), None if bias is None else solutions[:, -1].reshape(-1).astype(bias.dtype)


def _chosen_ridge(problems: Sequence[_Problem], held: np.ndarray) -> float:
    """The ridge whose solution for the other rows has the least error on those held back."""
    if held.all():
        return _RIDGES[len(_RIDGES) // 2]
    errors = np.zeros(len(_RIDGES))
    for problem in problems:
        learned = problem.part(~held)
        kept = problem.part(held)
        errors += [kept.error(learned.solve(ridge, steps=0)) for ridge in _RIDGES]
    return _RIDGES[int(np.argmin(np.where(np.isfinite(errors), errors, np.inf)))]


class _Problem:
    """One group's equations.

    Args:
        inputs: X, (rows, fan-in).
        targets: T, (rows, outputs).
        offsets: What is added, like `targets`.
        prior: W0 with b0 below, float64 (fan-in + 1, outputs).
        clip: The limits of what is compared.
        free: Which entries of the solution may be other than zero, bool like `prior`; None for all.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        offsets: np.ndarray | None,
        prior: np.ndarray,
        clip: tuple[float, float],
        free: np.ndarray | None,
    ) -> None:
        self._inputs, self._targets, self._offsets, self._prior, self._clip = inputs, targets, offsets, prior, clip
        self._free = free
        self._moments: tuple[np.ndarray, np.ndarray] | None = None

    def part(self, rows: np.ndarray) -> _Problem:
        """The same with some of the rows, bool (rows,)."""
        offsets = None if self._offsets is None else self._offsets[rows]
        return _Problem(self._inputs[rows], self._targets[rows], offsets, self._prior, self._clip, self._free)

    def solve(self, ridge: float, steps: int = _STEPS) -> np.ndarray:
        """Weights with the bias below, float64 (fan-in + 1, outputs)."""
        wanted = self._targets if self._offsets is None else self._targets - self._offsets
        gram, cross = self._equations(wanted)
        fan_in = len(gram) - 1
        # The bias is not pulled anywhere: its row gets no penalty beyond what keeps the system regular.
        penalty = np.full(fan_in + 1, max(ridge, 1e-10) * max(np.trace(gram[:-1, :-1]) / fan_in, 1e-12))
        penalty[-1] = 1e-12
        system = gram + np.diag(penalty)
        pull = penalty[:, None] * self._prior
        try:
            solved = _solver(system, self._free)
        except linalg.LinAlgError:
            return np.full_like(self._prior, np.nan)
        solution = solved(cross + pull)
        low, high = self._targets <= self._clip[0], self._targets >= self._clip[1]
        if not steps or not (low.any() or high.any()) or not np.isfinite(solution).all():
            return np.asarray(solution)
        # Projections onto what may be wanted, accelerated (Beck and Teboulle, 2009).
        ahead, momentum = solution, 1.0
        for _ in range(steps):
            found = self._results(ahead)
            above = np.where(high, np.maximum(found, self._clip[1]), self._targets)
            free = np.where(low, np.minimum(found, self._clip[0]), above)
            free = free if self._offsets is None else free - self._offsets
            new = solved(_products(self._inputs, free) + pull)
            following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead = new + (momentum - 1) / following * (new - solution)
            solution, momentum = new, following
        return np.asarray(solution)

    def error(self, solution: np.ndarray) -> float:
        """The squared error behind the clip."""
        found = np.clip(self._results(solution), *self._clip) - np.clip(self._targets, *self._clip)
        return float(np.square(found, dtype=np.float64).sum())

    def _results(self, solution: np.ndarray) -> np.ndarray:
        solution = solution.astype(self._inputs.dtype)
        found: np.ndarray = self._inputs @ solution[:-1] + solution[-1]
        return found if self._offsets is None else found + self._offsets

    def _equations(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """X'X and X'T with a column of ones behind X, float64."""
        if self._moments is None:
            fan_in = self._inputs.shape[1]
            gram, cross = np.zeros((fan_in + 1, fan_in + 1)), np.zeros((fan_in + 1, wanted.shape[1]))
            step = max(1, _BLOCK_BYTES // (8 * (fan_in + 1)))
            for start in range(0, len(wanted), step):
                block = self._inputs[start : start + step].astype(np.float64)
                block = np.concatenate([block, np.ones((len(block), 1))], axis=1)
                gram += block.T @ block
                cross += block.T @ wanted[start : start + step].astype(np.float64)
            self._moments = gram, cross
        return self._moments


def _solver(system: np.ndarray, free: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
    """Solves the system for several right sides, (unknowns, outputs); with a mask each has unknowns of its own.

    Raises:
        LinAlgError: The system is not positive definite.
    """
    if free is None or free.all():
        factor = linalg.cho_factor(system, check_finite=False)
        return lambda right: np.asarray(linalg.cho_solve(factor, right, check_finite=False))
    if (free == free[:, :1]).all():
        shared = np.flatnonzero(free[:, 0])
        inner = _solver(system[np.ix_(shared, shared)], None)

        def solve_shared(right: np.ndarray) -> np.ndarray:
            found = np.zeros_like(right)
            found[shared] = inner(right[shared])
            return found

        return solve_shared
    supports = [np.flatnonzero(column) for column in free.T]
    factors = [linalg.cho_factor(system[np.ix_(support, support)], check_finite=False) for support in supports]

    def solve_columns(right: np.ndarray) -> np.ndarray:
        found = np.zeros_like(right)
        for output, (support, factor) in enumerate(zip(supports, factors)):
            found[support, output] = linalg.cho_solve(factor, right[support, output], check_finite=False)
        return found

    return solve_columns


def _products(inputs: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """X'T with a column of ones behind X, float64."""
    return np.concatenate([(inputs.T @ wanted).astype(np.float64), wanted.sum(0, dtype=np.float64)[None]])
