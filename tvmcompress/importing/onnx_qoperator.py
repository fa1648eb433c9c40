"""Integer ONNX operators (QLinearConv, QLinearAdd, MatMulInteger, ...) as float ones between quantize and dequantize.

An integer operator means: dequantize the operands, compute in real numbers, quantize the result. Written out in that way
(QDQ) a model says the same, in operators that are few. Operators that move integers without reading scales (pooling by
maximum, reshapes, ...) are written out likewise, with the scale of what they move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..errors import UnsupportedOperatorError, UserError
from ..passes.plugins.registry import Registry
from .onnx_editing import GraphEditor, attributes


@dataclass(frozen=True)
class _Parameters:
    """Names of the constants that say how an integer tensor is to be read; without a name the zero point is 0."""

    scale: str
    zero_point: str

    @property
    def operands(self) -> list[str]:
        """The operands of quantize and dequantize."""
        return [self.scale, self.zero_point] if self.zero_point else [self.scale]


_Expand = Callable[["_Expander", onnx.NodeProto], list[onnx.NodeProto]]
_RULES: Registry[_Expand] = Registry("integer operator of ONNX")
_rule = _RULES.register

# Operators that give integers with the scale of their first operand.
_MOVE_NAMES = """
MaxPool Reshape Flatten Transpose Squeeze Unsqueeze Identity Slice Split Gather Pad Resize DepthToSpace SpaceToDepth
Expand Tile
"""
_MOVES = frozenset(_MOVE_NAMES.split())


def expand_qoperators(editor: GraphEditor) -> None:
    """Write out every integer operator of a graph.

    Raises:
        UnsupportedOperatorError: An integer operator is unknown or of a form that cannot be written out.
        UserError: Scales are missing, or are computed at run time.
    """
    _Expander(editor).run()


class _Expander:
    def __init__(self, editor: GraphEditor) -> None:
        self.editor = editor
        # How integer tensors are to be read, and their real values where those exist.
        self.known: dict[str, _Parameters] = {}
        self._real: dict[tuple[str, str, str], str] = {}
        self.readers = editor.readers()
        self.skipped: set[str] = set()

    def run(self) -> None:
        self._trace_constants()
        self.editor.rewrite(self._expand)

    def _trace_constants(self) -> None:
        """Find out how constants are to be read that are moved (looked up in a table) before an operator reads them."""
        made = {name: node for node in self.editor.nodes for name in node.output}
        for node in self.editor.nodes:
            if node.op_type != "DequantizeLinear" and node.op_type not in _RULES:
                continue
            first = 2 if node.op_type == "QLinearConcat" else 0
            for index in range(first, len(node.input), 3):
                tensor = node.input[index]
                while tensor in made and made[tensor].op_type in _MOVES:
                    tensor = made[tensor].input[0]
                if tensor in self.editor.constants and tensor != node.input[index]:
                    self.known[tensor] = _Parameters(_operand(node, index + 1), _operand(node, index + 2))

    def _expand(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        if node.output[0] in self.skipped:
            return []
        if node.op_type == "QuantizeLinear":
            self.known[node.output[0]] = _Parameters(_operand(node, 1), _operand(node, 2))
            return None
        if node.op_type == "DynamicQuantizeLinear":
            raise UserError(
                f"{self.editor.label(node)} chooses a scale at run time; quantize the model statically "
                "(with calibration data), or give the float model"
            )
        if node.op_type in _RULES:
            return _RULES[node.op_type](self, node)
        if node.op_type.startswith("QLinear") or node.op_type in ("QAttention", "QEmbedLayerNormalization"):
            raise UnsupportedOperatorError(
                f"{self.editor.label(node)} cannot be imported; give the model in QDQ form, or the float model"
            )
        if node.op_type in _MOVES and node.input[0] in self.known:
            return self._move(node)
        if node.op_type == "Concat" and any(name in self.known for name in node.input):
            return self._concat(node)
        return None

    # What rules use

    def dequantized(self, node: onnx.NodeProto, first: int, made: list[onnx.NodeProto], axis: int | None = None) -> str:
        """The real value of operand `first`, whose scale and zero point follow it in the list of operands."""
        names = [_operand(node, first + offset) for offset in range(3)]
        if not names[0] or not names[1]:
            raise UserError(f"{self.editor.label(node)} has no scale for its operand {first}; quantize the model again")
        return self.real(names[0], _Parameters(names[1], names[2]), made, axis)

    def real(self, tensor: str, parameters: _Parameters, made: list[onnx.NodeProto], axis: int | None = None) -> str:
        """The real value of an integer tensor."""
        key = (tensor, parameters.scale, parameters.zero_point)
        if key not in self._real:
            name = self.editor.fresh(f"{tensor}_dequantized")
            options = {} if axis is None else {"axis": axis}
            made.append(self.editor.node("DequantizeLinear", [tensor, *parameters.operands], name, **options))
            self._real[key] = name
        return self._real[key]

    def quantized(self, node: onnx.NodeProto, real: str, first: int, made: list[onnx.NodeProto]) -> None:
        """Let the node's output be `real` quantized; scale and zero point are the operands `first` and behind it."""
        scale, zero = _operand(node, first), _operand(node, first + 1)
        if not scale:
            raise UserError(f"{self.editor.label(node)} has no scale for its result; quantize the model again")
        self.known[node.output[0]] = parameters = _Parameters(scale, zero)
        made.append(self.editor.node("QuantizeLinear", [real, *parameters.operands], node.output[0]))

    def simple(self, node: onnx.NodeProto, kind: str, result: int, *operands: int) -> list[onnx.NodeProto]:
        """A float operator of the same attributes in the place of an integer one."""
        options = attributes(node)
        if options.pop("channels_last", 0):
            raise UnsupportedOperatorError(
                f"{self.editor.label(node)} is channels-last, which cannot be imported; give the model channels-first"
            )
        made: list[onnx.NodeProto] = []
        inputs = [self.dequantized(node, operand, made) for operand in operands]
        return self.finished(node, kind, inputs, result, made, options)

    def finished(
        self,
        node: onnx.NodeProto,
        kind: str,
        inputs: list[str],
        result: int,
        made: list[onnx.NodeProto],
        options: Mapping[str, Any] | None = None,
    ) -> list[onnx.NodeProto]:
        """What was made, a float operator on it, and its quantization; `result` is the operand with the result's scale."""
        real = self.editor.fresh(f"{node.output[0]}_real")
        made.append(self.editor.node(kind, inputs, real, **(attributes(node) if options is None else options)))
        self.quantized(node, real, result, made)
        return made

    def _move(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        made: list[onnx.NodeProto] = []
        parameters = self.known[node.input[0]]
        new = onnx.NodeProto()
        new.CopyFrom(node)
        new.input[0] = self.real(node.input[0], parameters, made)
        if node.op_type == "Pad" and _operand(node, 2):
            new.input[2] = self.real(node.input[2], parameters, made)
        elif node.op_type == "Pad":
            # Integers are padded with the integer 0, not with the real one.
            zero = self.editor.constants.get(parameters.zero_point)
            dtype = np.uint8 if zero is None else zero.dtype
            filler = self.editor.constant(f"{node.name}_filler", np.zeros((), dtype))
            operands = [*new.input[:2], self.real(filler, parameters, made), *new.input[3:]]
            del new.input[:]
            new.input.extend(operands)
        made.append(new)
        for index, name in enumerate(node.output):
            if name:
                new.output[index] = self.editor.fresh(f"{name}_real")
                made.append(self.editor.node("QuantizeLinear", [new.output[index], *parameters.operands], name))
                self.known[name] = parameters
        return made

    def _concat(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        parameters = {self._values(self.known.get(name)) for name in node.input}
        if len(parameters) != 1 or None in parameters:
            raise UserError(
                f"{self.editor.label(node)} joins integers of different scales; quantize the model again, so that they have one"
            )
        made: list[onnx.NodeProto] = []
        first = self.known[node.input[0]]
        real = self.editor.fresh(f"{node.output[0]}_real")
        inputs = [self.real(name, self.known[name], made) for name in node.input]
        made.append(self.editor.node("Concat", inputs, real, **attributes(node)))
        made.append(self.editor.node("QuantizeLinear", [real, *first.operands], node.output[0]))
        self.known[node.output[0]] = first
        return made

    def _values(self, parameters: _Parameters | None) -> tuple[float, int] | None:
        if parameters is None:
            return None
        scale = self.editor.constants.get(parameters.scale)
        zero = self.editor.constants.get(parameters.zero_point, np.zeros((), np.uint8))
        return (float(scale.item()), int(zero.item())) if scale is not None and scale.size == zero.size == 1 else None


def _operand(node: onnx.NodeProto, index: int) -> str:
    return node.input[index] if len(node.input) > index else ""


def _bias(
    expander: _Expander, node: onnx.NodeProto, bias: str, x: str, weight: str, factor: float, made: list[onnx.NodeProto]
) -> str:
    """An int32 bias as real values: its scale is that of the products."""
    editor = expander.editor
    scales = [editor.constants.get(name) for name in (x, weight)]
    if any(scale is None for scale in scales):
        raise UserError(f"{editor.label(node)} has a scale that is not constant; quantize the model again")
    # Two factors in float32, as the kernels have it.
    product = np.float32(factor) * (scales[0].reshape(-1)[0] * scales[1].reshape(-1))  # type: ignore[union-attr]
    scale = editor.constant(f"{bias}_scale", product if product.size > 1 else product.reshape(()))
    zero = editor.constant(f"{bias}_zero_point", np.zeros(product.shape if product.size > 1 else (), np.int32))
    return expander.real(bias, _Parameters(scale, zero), made, axis=0)


@_rule("QLinearConv")
def _conv(expander: _Expander, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    made: list[onnx.NodeProto] = []
    inputs = [expander.dequantized(node, 0, made), expander.dequantized(node, 3, made, axis=0)]
    if _operand(node, 8):
        inputs.append(_bias(expander, node, node.input[8], node.input[1], node.input[4], 1.0, made))
    return expander.finished(node, "Conv", inputs, 6, made)


@_rule("QLinearMatMul")
def _matmul(expander: _Expander, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    made: list[onnx.NodeProto] = []
    inputs = [expander.dequantized(node, 0, made), expander.dequantized(node, 3, made, axis=-1)]
    return expander.finished(node, "MatMul", inputs, 6, made, {})


@_rule("QGemm")
def _gemm(expander: _Expander, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    made: list[onnx.NodeProto] = []
    options = attributes(node)
    transposed = bool(options.get("transB", 0))
    inputs = [expander.dequantized(node, 0, made), expander.dequantized(node, 3, made, axis=0 if transposed else 1)]
    if _operand(node, 6):
        factor = float(options.get("alpha", 1.0))
        inputs.append(_bias(expander, node, node.input[6], node.input[1], node.input[4], factor, made))
    if not _operand(node, 7):
        made.append(expander.editor.node("Gemm", inputs, node.output[0], **options))
        return made
    return expander.finished(node, "Gemm", inputs, 7, made, options)


@_rule("QLinearAdd", "QLinearMul")
def _binary(expander: _Expander, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    return expander.simple(node, node.op_type.removeprefix("QLinear"), 6, 0, 3)


@_rule("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean", "QLinearSigmoid", "QLinearLeakyRelu")
def _unary(expander: _Expander, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    return expander.simple(node, node.op_type.removeprefix("QLinear"), 3, 0)


@_rule("QLinearSoftmax")
def _softmax(expander: _Expander, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    # `opset` says whose meaning of `axis` holds; it differs from the graph's only in models that were never upgraded.
    for index, attribute in enumerate(node.attribute):
        if attribute.name == "opset":
            del node.attribute[index]
            break
    return expander.simple(node, "Softmax", 3, 0)


@_rule("QLinearConcat")
def _qlinear_concat(expander: _Expander, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    made: list[onnx.NodeProto] = []
    inputs = [expander.dequantized(node, first, made) for first in range(2, len(node.input), 3)]
    return expander.finished(node, "Concat", inputs, 0, made)


@_rule("ConvInteger", "MatMulInteger")
def _integer(expander: _Expander, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The integer sums, cast to float and multiplied by a constant: the product of both scales."""
    editor = expander.editor
    x = expander.known.get(node.input[0])
    cast = _sole_reader(expander, node.output[0], "Cast")
    product = _sole_reader(expander, cast.output[0], "Mul") if cast is not None else None
    factor = None
    if product is not None:
        factor = next((editor.constants[name] for name in product.input if name in editor.constants), None)
    input_scale = editor.constants.get(x.scale) if x is not None else None
    if x is None or product is None or factor is None or input_scale is None or input_scale.size != 1:
        raise UnsupportedOperatorError(
            f"{editor.label(node)} cannot be imported: its operand must come from QuantizeLinear, and its result must be "
            "cast to float and multiplied by a constant scale; give the model in QDQ form"
        )
    assert cast is not None
    made: list[onnx.NodeProto] = []
    zero = [_operand(node, index) for index in (2, 3)]
    scales = (factor.reshape(-1) / input_scale.reshape(())).astype(np.float32)
    if scales.size > 1 and zero[1] in editor.constants and editor.constants[zero[1]].size == 1:
        zero[1] = editor.constant(f"{zero[1]}_wide", np.repeat(editor.constants[zero[1]].reshape(-1), scales.size))
    weight_scale = editor.constant(f"{node.input[1]}_scale", scales if scales.size > 1 else scales.reshape(()))
    convolution = node.op_type == "ConvInteger"
    operands = [
        expander.real(node.input[0], _Parameters(x.scale, zero[0]), made),
        expander.real(node.input[1], _Parameters(weight_scale, zero[1]), made, axis=0 if convolution else -1),
    ]
    made.append(editor.node("Conv" if convolution else "MatMul", operands, product.output[0], **attributes(node)))
    expander.skipped.update((cast.output[0], product.output[0]))
    return made


def _sole_reader(expander: _Expander, tensor: str, kind: str) -> onnx.NodeProto | None:
    readers = expander.readers.get(tensor, [])
    return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None
