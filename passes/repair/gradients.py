"""Derivatives of operators in NumPy: what a change of a result means for what it was computed from.

Enough for the blocks that are solved as a whole, residual ones and those of attention; training has PyTorch's. Each function is
given a call, the values of its arguments, its result and the derivative of some number by the result. It gives the derivatives
by its arguments, None for what is no float tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

from .._tvm import relax
from ..plugins.registry import Registry
from .im2col import LayerGeometry

Derivative = Callable[[relax.Call, Sequence[Any], np.ndarray, np.ndarray], "list[np.ndarray | None]"]

DERIVATIVES: Registry[Derivative] = Registry("derivative")
"""By the full name of the operator."""

_derivative = DERIVATIVES.register


def _like(grad: np.ndarray, value: Any) -> np.ndarray | None:
    """A derivative summed over what was broadcast from `value`."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return None
    lead = grad.ndim - value.ndim
    grad = grad.sum(axis=tuple(range(lead))) if lead else grad
    over = tuple(axis for axis, dim in enumerate(value.shape) if dim == 1 and grad.shape[axis] != 1)
    return grad.sum(axis=over, keepdims=True) if over else grad


@_derivative("relax.add")
def _add(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    return [_like(grad, args[0]), _like(grad, args[1])]


@_derivative("relax.subtract")
def _subtract(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    return [_like(grad, args[0]), _like(-grad, args[1])]


@_derivative("relax.multiply")
def _multiply(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    return [_like(grad * args[1], args[0]), _like(grad * args[0], args[1])]


@_derivative("relax.divide")
def _divide(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    return [_like(grad / args[1], args[0]), _like(-grad * result / args[1], args[1])]


def _normal_density(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-0.5 * np.square(x)) / math.sqrt(2 * math.pi))


def _slope_of_silu(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    gate = special.expit(x)
    return np.asarray(gate * (1 + x * (1 - gate)))


_SLOPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "nn.relu": lambda x, y: x > 0,
    "nn.relu6": lambda x, y: (x > 0) & (x < 6),
    "sigmoid": lambda x, y: y * (1 - y),
    "tanh": lambda x, y: 1 - y * y,
    "nn.silu": _slope_of_silu,
    "nn.gelu": lambda x, y: special.ndtr(x) + x * _normal_density(x),
    "negative": lambda x, y: np.full_like(x, -1),
    "erf": lambda x, y: 2 / math.sqrt(math.pi) * np.exp(-np.square(x)),
    "exp": lambda x, y: y,
    "sqrt": lambda x, y: 0.5 / y,
    "square": lambda x, y: 2 * x,
}
"""Of functions of one value: the slope, given the value and the result."""


def _pointwise(name: str, slope: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    @_derivative(f"relax.{name}")
    def found(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
        return [(grad * slope(args[0], result)).astype(grad.dtype)]


for _name, _slope in _SLOPES.items():
    _pointwise(_name, _slope)


@_derivative("relax.clip")
def _clip(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    return [grad * (args[0] == result), None, None]


@_derivative("relax.reshape", "relax.flatten", "relax.squeeze", "relax.expand_dims")
def _reshape(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    return [grad.reshape(args[0].shape), *[None] * (len(args) - 1)]


@_derivative("relax.permute_dims")
def _permute(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    axes = call.attrs.axes
    order = list(range(grad.ndim))[::-1] if axes is None else [int(axis) % grad.ndim for axis in axes]
    return [grad.transpose(np.argsort(order))]


@_derivative("relax.mean")
def _mean(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    x = args[0]
    axes = call.attrs.axis
    over = tuple(range(x.ndim)) if axes is None else tuple(int(axis) % x.ndim for axis in axes)
    shape = [1 if axis in over else dim for axis, dim in enumerate(x.shape)]
    count = math.prod(x.shape[axis] for axis in over)
    return [np.broadcast_to(grad.reshape(shape) / count, x.shape)]


@_derivative("relax.nn.softmax")
def _softmax(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    axis = int(call.attrs.axis)
    return [result * (grad - (grad * result).sum(axis, keepdims=True))]


@_derivative("relax.nn.layer_norm")
def _layer_norm(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    x, gamma = args[0], args[1]
    axes = tuple(sorted(int(axis) % x.ndim for axis in call.attrs.axes))
    wide = gamma.reshape([dim if axis in axes else 1 for axis, dim in enumerate(x.shape)])
    deviation = np.sqrt(x.var(axes, keepdims=True) + float(call.attrs.epsilon))
    normal = (x - x.mean(axes, keepdims=True)) / deviation
    inner = grad * wide
    moved = inner - inner.mean(axes, keepdims=True) - normal * (inner * normal).mean(axes, keepdims=True)
    others = tuple(axis for axis in range(x.ndim) if axis not in axes)
    return [moved / deviation, (grad * normal).sum(others).reshape(gamma.shape), grad.sum(others).reshape(args[2].shape)]


@_derivative("relax.matmul")
def _matmul(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    a, b = args
    if a.ndim < 2 or b.ndim < 2:
        raise NotImplementedError("products of vectors")
    if b.ndim == 2:
        # A weight: one product over all rows.
        return [grad @ b.T, a.reshape(-1, a.shape[-1]).T @ grad.reshape(-1, grad.shape[-1])]
    return [_like(grad @ b.swapaxes(-1, -2), a), _like(a.swapaxes(-1, -2) @ grad, b)]


@_derivative("relax.nn.conv1d", "relax.nn.conv2d")
def _convolution(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[np.ndarray | None]:
    x, weight = args
    if not str(call.attrs.data_layout).startswith("NC") or not str(call.attrs.kernel_layout).startswith("OI"):
        raise NotImplementedError("convolutions that are not channels-first")
    how = LayerGeometry.of(call)
    rank, groups = len(how.kernel), how.groups
    before, after = how.padding[:rank], how.padding[rank:] or how.padding[:rank]
    # (N, *spatial, C): a tap of the kernel is one product over all positions.
    padded = np.ascontiguousarray(np.moveaxis(np.pad(x, [(0, 0), (0, 0), *zip(before, after)]), 1, -1))
    out = np.ascontiguousarray(np.moveaxis(grad, 1, -1))
    by_input, by_weight = np.zeros_like(padded), np.zeros_like(weight)
    single = weight.shape[1] == 1 and groups == x.shape[1] == weight.shape[0]
    ins, outs = weight.shape[1], weight.shape[0] // groups
    for tap in np.ndindex(*how.kernel):
        steps = zip(tap, how.dilation, how.strides, out.shape[1:-1])
        place = (slice(None), *(slice(t * d, t * d + s * (n - 1) + 1, s) for t, d, s, n in steps))
        seen, column = padded[place], weight[(slice(None), slice(None), *tap)]
        if single:
            by_input[place] += out * column[:, 0]
            by_weight[(slice(None), 0, *tap)] = (seen * out).sum(tuple(range(out.ndim - 1)))
            continue
        for group in range(groups):
            i, o = slice(group * ins, (group + 1) * ins), slice(group * outs, (group + 1) * outs)
            part = out[..., o]
            by_input[(*place, i)] += part @ column[o]
            by_weight[(o, slice(None), *tap)] = part.reshape(-1, outs).T @ seen[..., i].reshape(-1, ins)
    inner = tuple(slice(b, b + n) for b, n in zip(before, x.shape[2:]))
    return [np.moveaxis(by_input[(slice(None), *inner)], -1, 1), by_weight]
