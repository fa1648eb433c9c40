"""Least squares for the layers of a network: the weights that best turn given inputs into given outputs.

A convolution is a matrix product over unfolded windows, so its weights solve ordinary normal equations. The moments are
accumulated over blocks of samples: memory is bounded by one block and by the square of a layer's fan-in.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import linalg

from ._tvm import relax

# Bytes of one block of unfolded windows, in float64.
_BLOCK_BYTES = 64 << 20


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


def rows(x: np.ndarray, geometry: LayerGeometry) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of the rows that the layer multiplies with its weights.

    Args:
        x: (N, C, *spatial) for a convolution, (..., K) for a matrix product.
        geometry: How the layer reads it.

    Yields:
        The samples of the block, and their rows: float64, (groups, rows, fan-in of a group). The rows of a sample are its
        output positions in row-major order.
    """
    if not geometry.kernel:
        flat = x.reshape(-1, x.shape[-1])
        per_sample = flat.shape[0] // x.shape[0]
        step = max(1, _BLOCK_BYTES // max(1, 8 * per_sample * x.shape[-1]))
        for start in range(0, x.shape[0], step):
            part = slice(start, min(start + step, x.shape[0]))
            yield part, flat[part.start * per_sample : part.stop * per_sample].astype(np.float64)[None]
        return
    rank = len(geometry.kernel)
    before, after = geometry.padding[:rank], geometry.padding[rank:] or geometry.padding[:rank]
    spans = [(k - 1) * d + 1 for k, d in zip(geometry.kernel, geometry.dilation)]
    pick = (slice(None), slice(None), *(slice(None, None, s) for s in geometry.strides))
    pick += tuple(slice(None, None, d) for d in geometry.dilation)
    groups, channels = geometry.groups, x.shape[1] // geometry.groups
    padded_size = int(np.prod([n + b + a for n, b, a in zip(x.shape[2:], before, after)]))
    step = max(1, _BLOCK_BYTES // max(1, 8 * x.shape[1] * padded_size * int(np.prod(geometry.kernel))))
    for start in range(0, len(x), step):
        part = slice(start, min(start + step, len(x)))
        padded = np.pad(x[part], [(0, 0), (0, 0), *zip(before, after)])
        windows = sliding_window_view(padded, spans, tuple(range(2, 2 + rank)))[pick]
        spatial = windows.shape[2 : 2 + rank]
        split = windows.reshape(len(padded), groups, channels, *windows.shape[2:])
        order = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
        count = len(padded) * int(np.prod(spatial))
        yield part, split.transpose(order).reshape(groups, count, -1).astype(np.float64)


def solve(
    x: np.ndarray, target: np.ndarray, geometry: LayerGeometry, weight: np.ndarray, bias: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """The weights and bias that map `x` to `target` with the least squared error.

    Solves min |X W + b - T|^2 + lambda |W - W0|^2 with lambda = ridge * mean(diag(X'X)): where the samples say nothing the
    old weights stay.

    Args:
        x: What the layer reads: (N, C, *spatial) or (..., K).
        target: What it should give: (N, O, *spatial) or (..., O).
        geometry: How it reads.
        weight: W0, (O, C / groups, *kernel) or (K, O).
        bias: b0, (O,).
        ridge: Relative strength of the pull towards W0, at least 0.

    Returns:
        Weight and bias, shapes and dtypes of `weight` and `bias`.
    """
    groups = geometry.groups
    dense = not geometry.kernel
    old = (weight.T if dense else weight).reshape(groups, -1, weight.shape[0] if dense else weight[0].size)
    outputs, fan_in = old.shape[1], old.shape[2]
    gram = np.zeros((groups, fan_in + 1, fan_in + 1))
    cross = np.zeros((groups, fan_in + 1, outputs))
    for part, block in rows(x, geometry):
        wanted = target[part].astype(np.float64)
        if not dense:
            wanted = np.moveaxis(wanted, 1, -1)
        wanted = wanted.reshape(-1, groups, outputs).transpose(1, 0, 2)
        extended = np.concatenate([block, np.ones((groups, block.shape[1], 1))], axis=2)
        gram += extended.transpose(0, 2, 1) @ extended
        cross += extended.transpose(0, 2, 1) @ wanted
    new_weight = np.empty_like(old, np.float64)
    new_bias = np.empty((groups, outputs))
    for group in range(groups):
        # The bias is not pulled anywhere: its row gets no penalty beyond what keeps the system regular.
        penalty = np.full(fan_in + 1, max(ridge, 1e-10) * max(np.trace(gram[group][:-1, :-1]) / fan_in, 1e-12))
        penalty[-1] = 1e-12
        prior = np.concatenate([old[group].astype(np.float64).T, bias.reshape(groups, outputs)[group][None]])
        system = gram[group] + np.diag(penalty)
        with warnings.catch_warnings():
            # Inputs that are always zero make the system ill-conditioned; the pull towards W0 decides there.
            warnings.simplefilter("ignore", linalg.LinAlgWarning)
            solution = linalg.solve(system, cross[group] + penalty[:, None] * prior, assume_a="pos")
        new_weight[group], new_bias[group] = solution[:-1].T, solution[-1]
    flat = new_weight.reshape(-1, fan_in)
    shaped = flat.T if dense else flat.reshape(weight.shape)
    return shaped.astype(weight.dtype), new_bias.reshape(-1).astype(bias.dtype)
