"""Element-wise operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

from .registry import Context, Value, register_reference

_SQRT_HALF = np.float32(np.sqrt(0.5))
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * np.asarray(0.5, x.dtype) * (1 + special.erf(x * _SQRT_HALF)).astype(x.dtype)


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    return (0.5 * x * (1 + np.tanh(inner))).astype(x.dtype)


_SAME = """
tanh exp log sqrt abs negative floor ceil round sign sin cos square trunc tan bitwise_not isnan isinf isfinite logical_not
add subtract multiply power maximum minimum less less_equal greater greater_equal equal not_equal logical_and logical_or
logical_xor bitwise_and bitwise_or bitwise_xor floor_divide
"""
"""What NumPy calls by the same name."""

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in _SAME.split()},
    "nn.relu": lambda x: np.maximum(x, np.asarray(0, x.dtype)),
    "nn.relu6": lambda x: np.clip(x, np.asarray(0, x.dtype), np.asarray(6, x.dtype)),
    "nn.silu": lambda x: x * special.expit(x),
    "nn.gelu": _gelu,
    "nn.gelu_tanh": _gelu_tanh,
    "nn.selu": lambda x: (_SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(x))).astype(x.dtype),
    "sigmoid": special.expit,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "erf": special.erf,
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "acosh": np.arccosh,
    "asinh": np.arcsinh,
    "atanh": np.arctanh,
    "floor_mod": np.mod,
    "mod": np.fmod,
    "atan2": np.arctan2,
    "where": np.where,
}


def _register(name: str, function: Callable[..., Any]) -> None:
    @register_reference(f"relax.{name}")
    def reference(args: Sequence[Value], context: Context) -> Value:
        return function(*args)


for _name, _function in _FUNCTIONS.items():
    _register(_name, _function)


@register_reference("relax.divide")
def _divide(args: Sequence[Value], context: Context) -> Value:
    if np.issubdtype(args[0].dtype, np.integer):
        return (np.sign(args[0]) * np.sign(args[1]) * (np.abs(args[0]) // np.abs(args[1]))).astype(args[0].dtype)
    return np.divide(args[0], args[1])


@register_reference("relax.clip")
def _clip(args: Sequence[Value], context: Context) -> Value:
    x = args[0]
    if np.issubdtype(x.dtype, np.integer):
        info = np.iinfo(x.dtype)
        low, high = max(float(args[1]), info.min), min(float(args[2]), info.max)
    else:
        low, high = float(args[1]), float(args[2])
    return np.clip(x, np.asarray(low, x.dtype), np.asarray(high, x.dtype))


@register_reference("relax.nn.leakyrelu")
def _leaky_relu(args: Sequence[Value], context: Context) -> Value:
    x = args[0]
    return np.where(x > 0, x, x * np.asarray(context.attrs.alpha, x.dtype))


@register_reference("relax.nn.softplus")
def _softplus(args: Sequence[Value], context: Context) -> Value:
    x, beta = args[0], float(context.attrs.beta)
    return (np.logaddexp(0, beta * x) / beta).astype(x.dtype)


@register_reference("relax.nn.prelu")
def _prelu(args: Sequence[Value], context: Context) -> Value:
    x, slope = args
    shape = [1] * x.ndim
    shape[int(context.attrs.axis)] = -1
    return np.where(x > 0, x, x * slope.reshape(shape))


@register_reference("relax.astype")
def _astype(args: Sequence[Value], context: Context) -> Value:
    return args[0].astype(str(context.attrs.dtype))


@register_reference("relax.nn.dropout")
def _dropout(args: Sequence[Value], context: Context) -> Value:
    return args[0], np.ones_like(args[0])
