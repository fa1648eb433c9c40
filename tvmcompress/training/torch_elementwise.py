"""Element-wise operators in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .backend import Tensor, load_torch
from .operators import Call, Value, along, operator

torch = load_torch()
functional = torch.nn.functional

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.relu": functional.relu,
    "nn.relu6": functional.relu6,
    "nn.silu": functional.silu,
    "nn.gelu": functional.gelu,
    "nn.gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "nn.selu": functional.selu,
    **{
        name: getattr(torch, name)
        for name in (
            *("sigmoid", "tanh", "exp", "log", "sqrt", "rsqrt", "erf", "abs", "negative", "floor", "ceil", "round", "sign"),
            *("sin", "cos", "square", "isnan", "isinf", "isfinite", "logical_not"),
        )
    },
}

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": torch.add,
    "subtract": torch.subtract,
    "multiply": torch.multiply,
    "power": torch.pow,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "less": torch.less,
    "less_equal": torch.less_equal,
    "greater": torch.greater,
    "greater_equal": torch.greater_equal,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "floor_divide": torch.floor_divide,
}


def _register_unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @operator(f"relax.{name}")
    def run(args: Sequence[Value], call: Call) -> Value:
        return function(args[0])


def _register_binary(name: str, function: Callable[[Any, Any], Any]) -> None:
    @operator(f"relax.{name}")
    def run(args: Sequence[Value], call: Call) -> Value:
        return function(args[0], args[1])


for _name, _unary in _UNARY.items():
    _register_unary(_name, _unary)
for _name, _binary in _BINARY.items():
    _register_binary(_name, _binary)


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


@operator("relax.where")
def _where(args: Sequence[Value], call: Call) -> Value:
    return torch.where(args[0], args[1], args[2])


@operator("relax.astype")
def _astype(args: Sequence[Value], call: Call) -> Value:
    return args[0].to(getattr(torch, str(call.attrs.dtype)))


@operator("relax.nn.dropout")
def _dropout(args: Sequence[Value], call: Call) -> Value:
    return args[0], torch.ones_like(args[0])
