"""Derivatives of operators in NumPy: what a change of a result means for what it was computed from.

Enough for the blocks that are solved as a whole, residual ones and those of attention; training has PyTorch's. Each function is
given a call, the values of its arguments, its result and the derivative of some number by the result. It gives the derivatives
by its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import special

from .._tvm import relax
from ..plugins.registry import Registry
from .im2col import LayerGeometry

Part = np.ndarray | Callable[[], np.ndarray] | None
"""A derivative by an argument, or what computes it where it is wanted; None for what is no float tensor."""

Derivative = Callable[[relax.Call, Sequence[Any], np.ndarray, np.ndarray], Sequence[Part]]

_CHUNK_BYTES = 1 << 20
"""Of unfolded windows held at a time, which then stay in a cache."""

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
def _convolution(call: relax.Call, args: Sequence[Any], result: np.ndarray, grad: np.ndarray) -> list[Part]:
    x, weight = args
    if not str(call.attrs.data_layout).startswith("NC") or not str(call.attrs.kernel_layout).startswith("OI"):
        raise NotImplementedError("convolutions that are not channels-first")
    how = LayerGeometry.of(call)
    return [lambda: _by_input(x.shape, weight, grad, how), lambda: _by_weight(x, weight.shape, grad, how)]


def _by_input(shape: tuple[int, ...], weight: np.ndarray, grad: np.ndarray, how: LayerGeometry) -> np.ndarray:
    """The derivative by a convolution's input of this shape: of all windows, added up where they overlap."""
    result, groups, (ins, taps) = np.empty(shape, grad.dtype), how.groups, _window(weight.shape)
    outer, inner = _padded(shape, how)
    matrix = weight.reshape(groups, -1, ins * taps).swapaxes(1, 2)
    for some in _chunks(shape, weight.shape, grad):
        part = grad[some]
        moved = np.zeros((len(part), *outer), grad.dtype)
        rows = part.swapaxes(0, 1).reshape(groups, weight.shape[0] // groups, -1)
        windows = (matrix @ rows).reshape(shape[1], taps, len(part), *grad.shape[2:])
        for tap, place in enumerate(_places(how, grad.shape[2:])):
            moved[place] += windows[:, tap].swapaxes(0, 1)
        result[some] = moved[inner]
    return result


def _by_weight(x: np.ndarray, shape: tuple[int, ...], grad: np.ndarray, how: LayerGeometry) -> np.ndarray:
    """The derivative by a convolution's weight of this shape: products of the derivative and all windows."""
    groups, (ins, taps) = how.groups, _window(shape)
    result = np.zeros((groups, shape[0] // groups, ins * taps), grad.dtype)
    outer, inner = _padded(x.shape, how)
    for some in _chunks(x.shape, shape, grad):
        part = grad[some]
        padded = np.zeros((len(part), *outer), x.dtype)
        padded[inner] = x[some]
        windows = np.empty((x.shape[1], taps, len(part), *grad.shape[2:]), x.dtype)
        for tap, place in enumerate(_places(how, grad.shape[2:])):
            windows[:, tap] = padded[place].swapaxes(0, 1)
        rows = part.swapaxes(0, 1).reshape(groups, shape[0] // groups, -1)
        result += rows @ windows.reshape(groups, ins * taps, -1).swapaxes(1, 2)
    return result.reshape(shape)


def _window(weight: tuple[int, ...]) -> tuple[int, int]:
    """How many channels and how many places of each a window has."""
    return weight[1], math.prod(weight[2:])


def _padded(shape: tuple[int, ...], how: LayerGeometry) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Shape of a padded sample, and where in padded samples they are themselves."""
    rank = len(how.kernel)
    sizes = list(zip(how.padding[:rank], shape[2:], how.padding[rank:] or how.padding[:rank]))
    return (shape[1], *map(sum, sizes)), (..., *(slice(low, low + size) for low, size, _ in sizes))


def _chunks(shape: tuple[int, ...], weight: tuple[int, ...], grad: np.ndarray) -> Iterator[slice]:
    """Samples whose unfolded windows stay in a cache."""
    size = shape[1] * math.prod((*weight[2:], *grad.shape[2:])) * grad.itemsize
    step = max(1, _CHUNK_BYTES // size)
    return (slice(start, start + step) for start in range(0, shape[0], step))


def _places(how: LayerGeometry, spatial: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Where the padded input meets each tap of the kernel, for outputs of so many positions per axis."""
    for tap in np.ndindex(*how.kernel):
        steps = zip(tap, how.dilation, how.strides, spatial)
        yield (..., *(slice(t * d, t * d + s * (n - 1) + 1, s) for t, d, s, n in steps))
