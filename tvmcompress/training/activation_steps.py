"""The steps of a quantized network's activations: which quantizers share one, and which of them may be learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..passes._tvm import Constant, relax
from ..passes.graph.view import GraphView
from ..passes.numbers.affine import integer_limits
from ..passes.quantization.kinds import CLIPS, WEIGHTED, op_name
from ..passes.quantization.quantized_layers import QuantizedLayer

_LEARNED = (*WEIGHTED, "relax.add", "relax.subtract", "relax.multiply")
"""Operators that round their results onto a scale of their own, which may be any; those of others are given."""

Key = tuple[float, int, str]
"""Of a quantizer: scale, zero point, dtype. Those of one key share a step, as what only moves values asks for."""


@dataclass(frozen=True, eq=False)
class Steps:
    """The step that quantizers of one key share.

    Attributes:
        key: As the module has it.
        name: Of the tensor, among those of the network.
        learned: Whether it may change.
    """

    key: Key
    name: str
    learned: bool

    def limits(self, bits: int | None = None) -> tuple[int, int]:
        """The lowest and the highest integer, less the zero point; of so many bits, if not all."""
        low, high = integer_limits(self.key[2], bits)
        return low - self.key[1], high - self.key[1]


def shared_steps(graph: GraphView) -> list[Steps]:
    """The steps of the activations."""
    learned: dict[Key, bool] = {}
    given: set[Key] = set()
    for value in graph.values.values():
        name = op_name(value)
        if name == "relax.quantize":
            key = key_of(graph, value)
            own = key[2] != "int16" and _producer(graph, value.args[0]) in _LEARNED
            learned[key] = learned.get(key, True) and (own or _moved(graph, value.args[0], key))
        elif name == "relax.dequantize" and of_parameter(graph, value):
            given.add(key_of(graph, value))  # a constant may be on the scale of an activation
    return [Steps(key, f"step.{number}", own and key not in given) for number, (key, own) in enumerate(learned.items())]


def _moved(graph: GraphView, expr: relax.Expr, key: Key) -> bool:
    """Whether a tensor is made of others on the same grid, so that it goes with them."""
    call = graph.call(expr)
    if call is None:
        return False
    sources = [graph.call(arg) for arg in call.args if isinstance(arg, relax.Var) and arg not in graph.params]
    return bool(sources) and all(
        source is not None and source.op.name == "relax.dequantize" and key_of(graph, source) == key for source in sources
    )


def _producer(graph: GraphView, expr: relax.Expr) -> str:
    """The operator behind clips."""
    call = graph.call(expr)
    while call is not None and call.op.name in CLIPS:
        call = graph.call(call.args[0])
    return "" if call is None else str(call.op.name)


def read_key(graph: GraphView, layer: QuantizedLayer) -> Key | None:
    """Of the quantizer that a layer reads; None where it reads float."""
    call = graph.call(layer.call.args[0])
    return key_of(graph, call) if call is not None and call.op.name == "relax.dequantize" else None


def of_parameter(graph: GraphView, call: relax.Call) -> bool:
    """Whether what is dequantized are weights or other constants."""
    operand = call.args[0]
    made = graph.call(operand)
    return operand in graph.params or (made is not None and made.op.name == "tvmcompress.int4_weight")


def key_of(graph: GraphView, call: relax.Call) -> Key:
    """Of a quantizer, or of what dequantizes its result."""
    scale, zero = (number_of(graph, arg) for arg in call.args[1:3])
    return float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), str(zero.dtype)


def number_of(graph: GraphView, expr: relax.Expr) -> np.ndarray:
    """The value of a scale or a zero point."""
    value = expr.value.numpy() if isinstance(expr, Constant) else graph.params[expr]
    return np.asarray(value)
