"""Element-wise operators in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .backend import load_torch
from .operators import Call, Value, along, operator

torch = load_torch()
functional = torch.nn.functional

_SAME = """
sigmoid tanh exp log sqrt rsqrt erf abs negative floor ceil round sign sin cos square isnan isinf isfinite logical_not
add subtract multiply maximum minimum less less_equal greater greater_equal logical_and logical_or logical_xor floor_divide
where
"""
"""What PyTorch calls by the same name."""

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in _SAME.split()},
    **{f"nn.{name}": getattr(functional, name) for name in ("relu", "relu6", "silu", "gelu", "selu")},
    "nn.gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "power": torch.pow,
    "equal": torch.eq,
    "not_equal": torch.ne,
}


def _register(name: str, function: Callable[..., Any]) -> None:
    @operator(f"relax.{name}")
    def run(args: Sequence[Value], call: Call) -> Value:
        return function(*args)


for _name, _function in _FUNCTIONS.items():
    _register(_name, _function)


@operator("relax.divide")
def _divide(args: Sequence[Value], call: Call) -> Value:
    return torch.div(args[0], args[1], rounding_mode=None if args[0].is_floating_point() else "trunc")


@operator("relax.clip")
def _clip(args: Sequence[Value], call: Call) -> Value:
    return torch.clamp(args[0], float(args[1]), float(args[2])).to(args[0].dtype)


@operator("relax.nn.leakyrelu")
def _leaky_relu(args: Sequence[Value], call: Call) -> Value:
    return functional.leaky_relu(args[0], float(call.attrs.alpha))


@operator("relax.nn.softplus")
def _softplus(args: Sequence[Value], call: Call) -> Value:
    return functional.softplus(args[0], float(call.attrs.beta), float(call.attrs.threshold))


@operator("relax.nn.prelu")
def _prelu(args: Sequence[Value], call: Call) -> Value:
    x, slope = args
    return torch.where(x > 0, x, x * along(slope, int(call.attrs.axis), x.ndim))


@operator("relax.astype")
def _astype(args: Sequence[Value], call: Call) -> Value:
    return args[0].to(getattr(torch, str(call.attrs.dtype)))


@operator("relax.nn.dropout")
def _dropout(args: Sequence[Value], call: Call) -> Value:
    return args[0], torch.ones_like(args[0])
