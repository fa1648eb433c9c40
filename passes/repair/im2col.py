"""The rows of the matrix product that a convolution or dense layer is: unfolded windows of its input, and its outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .._tvm import relax

_BLOCK_BYTES = 64 << 20
"""Of one block of samples while windows are unfolded."""


@dataclass(frozen=True)
class LayerGeometry:
    """How a layer reads its input: what is needed to unfold it into the rows of a matrix product.

    Attributes:
        kernel: Size of the kernel per spatial axis; empty for a matrix product.
        strides: Per spatial axis.
        padding: All befores, then all afters.
        dilation: Per spatial axis.
        groups: Groups of channels.
    """

    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @staticmethod
    def of(call: relax.Call) -> LayerGeometry:
        """The geometry of a channels-first convolution or of a matrix product with a parameter."""
        if call.op.name == "relax.matmul":
            return LayerGeometry()
        attrs = call.attrs
        return LayerGeometry(
            kernel=tuple(int(dim) for dim in call.args[1].ty.shape)[2:],
            strides=tuple(int(v) for v in attrs.strides),
            padding=tuple(int(v) for v in attrs.padding),
            dilation=tuple(int(v) for v in attrs.dilation),
            groups=int(attrs.groups),
        )


@dataclass(frozen=True)
class Rows:
    """Rows of the matrix product that a layer is, and what it should give.

    Attributes:
        inputs: (groups, rows, fan-in of a group)
        targets: (groups, rows, outputs of a group)
        offsets: What is added to the layer's result before it is compared, like `targets`; None for nothing.
        samples: The sample of each row, int64 (rows,).
    """

    inputs: np.ndarray
    targets: np.ndarray
    offsets: np.ndarray | None
    samples: np.ndarray


def gather(
    x: np.ndarray,
    target: np.ndarray,
    geometry: LayerGeometry,
    offset: np.ndarray | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Rows:
    """The rows that a layer multiplies with its weights.

    Args:
        x: (N, C, *spatial) for a convolution, (..., K) for a matrix product.
        target: (N, O, *spatial) or (..., O).
        geometry: How the layer reads it.
        offset: Like `target`.
        limit: Rows to take about, as many of each sample; None takes all, in row-major order of the output.
        seed: For the choice.
    """
    rng = np.random.default_rng(seed)
    channels = -1 if not geometry.kernel else 1
    outputs = [None if value is None else _by_position(value, channels, geometry.groups) for value in (target, offset)]
    assert outputs[0] is not None
    per_sample = outputs[0].shape[1]
    count = per_sample if limit is None else min(per_sample, -(-limit // len(x)))
    if count == per_sample:
        picked = np.broadcast_to(np.arange(per_sample), (len(x), per_sample))
    else:
        picked = np.sort(rng.random((len(x), per_sample)).argpartition(count, axis=1)[:, :count], axis=1)
    samples = np.repeat(np.arange(len(x)), count)

    def chosen(value: np.ndarray | None) -> np.ndarray | None:
        """(N, positions, groups, outputs of a group) as (groups, rows, outputs of a group)."""
        if value is None:
            return None
        rows: np.ndarray = value[samples, picked.ravel()]
        return rows.transpose(1, 0, 2)

    targets = chosen(outputs[0])
    assert targets is not None
    return Rows(_inputs(x, geometry, picked), targets, chosen(outputs[1]), samples)


def unfolded_weight(weight: np.ndarray, geometry: LayerGeometry) -> np.ndarray:
    """A weight, (O, C / groups, *kernel) or (K, O), as rows meet it: (groups, outputs of a group, fan-in of a group)."""
    matrix = weight.reshape(len(weight), -1) if geometry.kernel else weight.T
    return matrix.reshape(geometry.groups, matrix.shape[0] // geometry.groups, matrix.shape[1])


def folded_weight(matrix: np.ndarray, geometry: LayerGeometry, shape: tuple[int, ...]) -> np.ndarray:
    """The opposite of `unfolded_weight`: the weight of a shape."""
    flat = matrix.reshape(-1, matrix.shape[-1])
    return flat.reshape(shape) if geometry.kernel else flat.T


def _by_position(value: np.ndarray, channel_axis: int, groups: int) -> np.ndarray:
    """(N, O, *spatial) or (N, ..., O) as (N, positions, groups, outputs of a group)."""
    moved = np.moveaxis(value, channel_axis, -1)
    return moved.reshape(len(value), -1, groups, moved.shape[-1] // groups)


def _inputs(x: np.ndarray, geometry: LayerGeometry, picked: np.ndarray) -> np.ndarray:
    """The rows of the picked positions, int (N, positions a sample): (groups, rows, fan-in of a group)"""
    if not geometry.kernel:
        flat = x.reshape(len(x), -1, x.shape[-1])
        return flat[np.arange(len(x))[:, None], picked].reshape(1, -1, x.shape[-1])
    rank, groups = len(geometry.kernel), geometry.groups
    before, after = geometry.padding[:rank], geometry.padding[rank:] or geometry.padding[:rank]
    spans = [(k - 1) * d + 1 for k, d in zip(geometry.kernel, geometry.dilation)]
    pick = (slice(None), slice(None), *(slice(None, None, s) for s in geometry.strides))
    pick += tuple(slice(None, None, d) for d in geometry.dilation)
    channels, window = x.shape[1] // groups, math.prod(geometry.kernel)
    rows = np.empty((groups, picked.size, channels * window), x.dtype)
    size = math.prod(n + b + a for n, b, a in zip(x.shape[2:], before, after)) + picked.shape[1] * window
    step = max(1, _BLOCK_BYTES // (x.itemsize * x.shape[1] * size))
    for start in range(0, len(x), step):
        part = picked[start : start + step]
        padded = np.pad(x[start : start + step], [(0, 0), (0, 0), *zip(before, after)])
        windows = sliding_window_view(padded, spans, tuple(range(2, 2 + rank)))[pick]
        place = np.unravel_index(part, windows.shape[2 : 2 + rank])
        # (samples, positions, channels, *kernel)
        index: tuple[Any, ...] = (np.arange(len(part))[:, None], slice(None), *place)
        taken = windows[index]
        grouped = taken.reshape(part.size, groups, channels * window)
        rows[:, start * picked.shape[1] :][:, : part.size] = grouped.transpose(1, 0, 2)
    return rows
