"""Element-wise TFLite operators on real numbers, or on integers that stand for themselves, as Relax operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...passes._tvm import relax
from ...passes.graph.module_params import static_shape
from ...passes.layout.converter import to_first
from .file import TfliteOperator, TfliteTensor
from .float_layers import finish
from .importer import Importer, identifier, real, real_values

_BINARY_WORDS = """
maximum minimum equal not_equal less less_equal greater greater_equal logical_and logical_or
"""
_BINARY: dict[str, Callable[[Any, Any], relax.Expr]] = {
    **{name.upper(): getattr(relax.op, name) for name in _BINARY_WORDS.split()},
    **{"ADD": relax.op.add, "SUB": relax.op.subtract, "MUL": relax.op.multiply, "DIV": relax.op.divide},
    **{"POW": relax.op.power, "FLOOR_DIV": relax.op.floor_divide},
    "SQUARED_DIFFERENCE": lambda a, b: _square(relax.op.subtract(a, b)),
}


def _square(x: relax.Expr) -> relax.Expr:
    return relax.op.multiply(x, x)


@real(*_BINARY)
def _binary(importer: Importer, operator: TfliteOperator) -> None:
    a, b = operator.operand(0), operator.operand(1)
    rank = len(operator.output.shape)
    # Channels first where one operand was computed so, and none must be permuted for it.
    first = rank > 2 and any(importer.is_first(t) and len(t.shape) == rank for t in (a, b))
    operands = [_operand(importer, tensor, rank, first) for tensor in (a, b)]
    make, stem = _BINARY[operator.kind], identifier(operator.output.name)
    if operator.kind == "SQUARED_DIFFERENCE":
        result = _square(importer.emit(relax.op.subtract(*operands), f"{stem}.difference"))
    elif operator.kind == "DIV" and operator.output.dtype.startswith("int"):
        raise importer.refuse(operator, "it divides integers")
    else:
        result = make(*operands)
    if operator.kind in ("ADD", "SUB", "MUL", "DIV"):
        finish(importer, operator, result, first=first)
    else:
        importer.bind(operator.output, result, first=first)


def _operand(importer: Importer, tensor: TfliteTensor, rank: int, first: bool) -> relax.Expr:
    """An operand of a result of a rank; channels first if asked for, of as many axes then."""
    if not first:
        return importer.value(tensor)
    if len(tensor.shape) == rank:
        if tensor.data is not None:
            return _stored(importer, tensor, tensor.data.transpose(to_first(rank)))
        return importer.first(tensor)
    shape = (*[1] * (rank - len(tensor.shape)), *tensor.shape)
    if not tensor.shape:
        return importer.value(tensor)
    if tensor.data is not None:
        return _stored(importer, tensor, tensor.data.reshape(shape).transpose(to_first(rank)))
    stem = identifier(tensor.name)
    expanded = importer.emit(relax.op.reshape(importer.value(tensor), shape), f"{stem}.expanded")
    return importer.emit(relax.op.permute_dims(expanded, list(to_first(rank))), f"{stem}.permuted")


def _stored(importer: Importer, tensor: TfliteTensor, value: np.ndarray) -> relax.Expr:
    if value.dtype.kind != "f":
        return relax.const(value)
    return importer.param(tensor.name, value.astype(np.float32))


_UNARY: dict[str, Callable[[relax.Expr], relax.Expr]] = {
    **{
        name.upper(): getattr(relax.op, name)
        for name in ["tanh", "abs", "sqrt", "rsqrt", "exp", "log", "sin", "cos", "floor", "ceil", "logical_not"]
    },
    **{"RELU": relax.op.nn.relu, "LOGISTIC": relax.op.sigmoid, "NEG": relax.op.negative},
    "RELU6": lambda x: relax.op.clip(x, 0.0, 6.0),
    "RELU_N1_TO_1": lambda x: relax.op.clip(x, -1.0, 1.0),
    "RELU_0_TO_1": lambda x: relax.op.clip(x, 0.0, 1.0),
}


@real(*_UNARY)
def _unary(importer: Importer, operator: TfliteOperator) -> None:
    x = operator.operand(0)
    expr, _ = importer.moved(x)
    importer.bind(operator.output, _UNARY[operator.kind](expr), first=importer.is_first(x))


@real("ELU", "SQUARE", "HARD_SWISH", "LEAKY_RELU", "GELU")
def _composed(importer: Importer, operator: TfliteOperator) -> None:
    x, stem = operator.operand(0), identifier(operator.output.name)
    expr, _ = importer.moved(x)
    steps: dict[str, Callable[[], relax.Expr]] = {
        "ELU": lambda: _elu(importer, expr, stem),
        "SQUARE": lambda: _square(expr),
        "HARD_SWISH": lambda: _hard_swish(importer, expr, stem),
        "LEAKY_RELU": lambda: relax.op.nn.leakyrelu(expr, float(operator.option("Alpha", 0.0))),
        "GELU": lambda: (relax.op.nn.gelu_tanh if operator.option("Approximate", False) else relax.op.nn.gelu)(expr),
    }
    importer.bind(operator.output, steps[operator.kind](), first=importer.is_first(x))


def _elu(importer: Importer, x: relax.Expr, stem: str) -> relax.Expr:
    one, zero = relax.const(np.float32(1)), relax.const(np.float32(0))
    below = importer.emit(relax.op.exp(importer.emit(relax.op.minimum(x, zero), f"{stem}.below")), f"{stem}.below")
    bent = importer.emit(relax.op.subtract(below, one), f"{stem}.below")
    return relax.op.add(importer.emit(relax.op.nn.relu(x), f"{stem}.above"), bent)


def _hard_swish(importer: Importer, x: relax.Expr, stem: str) -> relax.Expr:
    moved = importer.emit(relax.op.add(x, relax.const(np.float32(3))), f"{stem}.gate")
    gate = importer.emit(relax.op.clip(moved, 0.0, 6.0), f"{stem}.gate")
    share = importer.emit(relax.op.divide(gate, relax.const(np.float32(6))), f"{stem}.gate")
    return relax.op.multiply(x, share)


@real("PRELU")
def _prelu(importer: Importer, operator: TfliteOperator) -> None:
    x, slope, out = operator.operand(0), operator.operand(1), operator.output
    expr, places = importer.moved(x)
    if slope.data is not None and slope.data.size == slope.shape[-1]:
        # One a channel: an operator that all passes know.
        per_channel = importer.param(slope.name, real_values(slope).reshape(-1))
        importer.bind(out, relax.op.nn.prelu(expr, per_channel, places[-1]), first=importer.is_first(x))
        return
    stem, zero = identifier(out.name), relax.const(np.float32(0))
    value = importer.value(x)
    below = importer.emit(relax.op.minimum(value, zero), f"{stem}.below")
    bent = importer.emit(relax.op.multiply(below, importer.value(slope)), f"{stem}.below")
    importer.bind(out, relax.op.add(importer.emit(relax.op.nn.relu(value), f"{stem}.above"), bent))


@real("CONCATENATION")
def _concatenation(importer: Importer, operator: TfliteOperator) -> None:
    out = operator.output
    rank = len(out.shape)
    axis = int(operator.option("Axis", 0)) % rank
    tensors = [operator.operand(index) for index in range(len(operator.inputs))]
    first = rank > 2 and any(importer.is_first(tensor) for tensor in tensors)
    parts = [_operand(importer, tensor, rank, first) for tensor in tensors]
    place = to_first(rank).index(axis) if first else axis
    finish(importer, operator, relax.op.concat(parts, place), first=first)


@real("SELECT", "SELECT_V2")
def _select(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    values = [importer.value(operator.operand(index)) for index in range(3)]
    shape = static_shape(values[0])
    if operator.kind == "SELECT" and len(shape) == 1 and len(operator.output.shape) > 1:
        wide = (*shape, *[1] * (len(operator.output.shape) - 1))
        values[0] = importer.emit(relax.op.reshape(values[0], wide), f"{identifier(operator.output.name)}.condition")
    return relax.op.where(*values)


@real("ADD_N")
def _add_n(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    total = importer.value(operator.operand(0))
    for index in range(1, len(operator.inputs)):
        total = importer.emit(relax.op.add(total, importer.value(operator.operand(index))), identifier(operator.output.name))
    return total
