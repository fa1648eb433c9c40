"""ONNX models in QDQ form, as every tool writes them, brought into the one form that `Quantize` gives.

Afterwards integers are int8 (unsigned ones less 128: the same bytes with the top bit flipped), scales and zero points are
constants that fit each other, every integer tensor is read by DequantizeLinear alone, and a quantized bias is added behind
its convolution or matrix product.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx

from ..errors import UnsupportedOperatorError, UserError
from .onnx_editing import GraphEditor, attributes

_AGAIN = "quantize the model again"
_NORMALIZATION = re.compile(r"[._/](weight|gamma|scale)$", re.IGNORECASE)
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_KINDS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class _Affine:
    """Scale and zero point of one node, as arrays of one shape: () or (channels,)."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int

    @property
    def signed(self) -> np.ndarray:
        """The zero point for int8 in the place of uint8."""
        zero = self.zero_point
        return (zero.astype(np.int16) - 128).astype(np.int8) if zero.dtype == np.uint8 else zero


def is_quantized(graph: onnx.GraphProto) -> bool:
    """Whether a graph holds integer or quantizing operators of the kinds that are imported."""
    kinds = (*_KINDS, "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QGemm")
    return any(node.op_type in kinds or node.op_type.startswith("QLinear") for node in graph.node)


def canonical_qdq(editor: GraphEditor) -> None:
    """Rewrite a graph whose only operators on integers are QuantizeLinear, DequantizeLinear and integers' readers.

    Raises:
        UserError: Scales or zero points are missing, computed at run time, or do not fit their tensor or each other.
        UnsupportedOperatorError: Integers are wider or narrower than 8 bits, or an operator reads them as they are.
    """
    _Canonical(editor).run()


class _Canonical:
    def __init__(self, editor: GraphEditor) -> None:
        self.editor = editor
        self.dtypes: dict[str, np.dtype] = {}
        self.made: dict[str, str] = {}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        # What to call constants that were float: quantized ones take their names.
        self.stems: dict[str, str] = {}
        # Dequantized activations, and dequantized constants with the node of each.
        self.dequantized: set[str] = set()
        self.constants: dict[str, onnx.NodeProto] = {}

    def run(self) -> None:
        for node in self.editor.nodes:
            if node.op_type in _KINDS:
                # Others than the standard's have the same meaning for 8 bits.
                node.domain = ""
        # Some tools give the dequantized constant the name of the float one.
        self.editor.free({name for node in self.editor.nodes if node.op_type in _KINDS for name in _float_names(node)})
        self.readers = self.editor.readers()
        self.editor.rewrite(self._node)
        self._refuse_integer_ends()
        self.readers = self.editor.readers()
        self.editor.rewrite(self._transposed)
        self.editor.rewrite(self._symmetric)
        self.readers = self.editor.readers()
        self.editor.rewrite(self._biased)
        if self.constants and not any(node.op_type == "QuantizeLinear" for node in self.editor.nodes):
            self._weights_alone()

    def _weights_alone(self) -> None:
        """Where no activation is quantized, the weights are real numbers that happen to be stored in few bits."""
        for name, node in self.constants.items():
            if any(node is other for other in self.editor.nodes):
                self.editor.nodes = [other for other in self.editor.nodes if other is not node]
                self._replaced(name, self._real(name))
        self.editor.notes.append("its activations are float, so its quantized weights became float")

    def _replaced(self, old: str, new: str) -> None:
        for node in self.editor.nodes:
            node.input[:] = [new if name == old else name for name in node.input]

    # Quantize and dequantize

    def _node(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        if node.op_type == "QuantizeLinear":
            return self._quantize(node)
        if node.op_type == "DequantizeLinear":
            return self._dequantize(node)
        read = [name for name in node.input if name in self.dtypes]
        if read:
            raise UnsupportedOperatorError(
                f"{self.editor.label(node)} reads the quantized tensor '{read[0]}' as it is; give a model in which "
                "only DequantizeLinear does"
            )
        return None

    def _quantize(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        editor, x = self.editor, node.input[0]
        affine = self._affine(node, None)
        if affine.zero_point.dtype not in (np.int8, np.uint8, np.int16):
            raise UnsupportedOperatorError(
                f"{editor.label(node)} gives {affine.zero_point.dtype}; only int8, uint8 and int16 can be imported"
            )
        value = editor.constants.get(x)
        if value is not None:
            shape = _along(value, affine)
            info = np.iinfo(affine.zero_point.dtype)
            scaled = np.rint(value / affine.scale.reshape(shape)) + affine.zero_point.reshape(shape)
            editor.constants[node.output[0]] = np.clip(scaled, info.min, info.max).astype(affine.zero_point.dtype)
            if len(self.readers[x]) == 1:
                editor.forget(x)
                self.stems[node.output[0]] = x
            return []
        if affine.scale.size > 1:
            raise UserError(
                f"{editor.label(node)} has one scale a channel for an activation; {_AGAIN}, with one for the whole tensor"
            )
        self.dtypes[node.output[0]] = affine.zero_point.dtype
        scale = editor.constant(f"{node.output[0]}_scale", affine.scale)
        zero = editor.constant(f"{node.output[0]}_zero_point", affine.signed)
        return [editor.node("QuantizeLinear", [x, scale, zero], node.output[0])]

    def _dequantize(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        editor, q = self.editor, node.input[0]
        value = editor.constants.get(q)
        if value is None and q not in self.dtypes:
            raise UserError(
                f"{editor.label(node)} reads '{q}', which is not a tensor that QuantizeLinear gives, nor a constant; "
                "give a model whose inputs are float"
            )
        affine = self._affine(node, value)
        if value is None and affine.scale.size > 1:
            raise UserError(
                f"{editor.label(node)} has one scale a channel for an activation; {_AGAIN}, with one for the whole tensor"
            )
        allowed = (np.int8, np.uint8, np.int16, np.int32)[: 4 if value is not None else 3]
        if affine.zero_point.dtype not in allowed:
            raise UnsupportedOperatorError(
                f"{editor.label(node)} reads {affine.zero_point.dtype}; only int8, uint8, int16 and biases of int32 can be "
                "imported"
            )
        scale = editor.constant(f"{node.output[0]}_scale", affine.scale)
        zero = editor.constant(f"{node.output[0]}_zero_point", affine.signed)
        if value is not None:
            q = self._constant(q, value)
        new = editor.node("DequantizeLinear", [q, scale, zero], node.output[0], axis=affine.axis)
        if value is not None:
            self.constants[node.output[0]] = new
        else:
            self.dequantized.add(node.output[0])
        return [new]

    def _constant(self, name: str, value: np.ndarray) -> str:
        """A quantized constant, signed, under the name of what was quantized."""
        stem = self.stems.get(name, name.removesuffix("_quantized"))
        if value.dtype == np.uint8:
            value = (value.astype(np.int16) - 128).astype(np.int8)
        elif name == stem:
            return name
        if name not in self.made:
            self.made[name] = self.editor.constant(stem or name, value)
        return self.made[name]

    def _affine(self, node: onnx.NodeProto, value: np.ndarray | None) -> _Affine:
        """The parameters of a node, checked; `value` is what a DequantizeLinear of a constant reads."""
        editor, label = self.editor, self.editor.label(node)
        options = attributes(node)
        if options.get("block_size", 0):
            raise UnsupportedOperatorError(f"{label} has a scale for every block of values, which cannot be imported")
        if len(node.input) < 2 or not node.input[1]:
            raise UserError(f"{label} has no scale; {_AGAIN}")
        scale = editor.constants.get(node.input[1])
        if scale is None:
            raise UserError(f"the scale of {label}, '{node.input[1]}', is not constant; {_AGAIN}, statically")
        if scale.dtype != np.float32:
            raise UnsupportedOperatorError(f"the scale of {label} is {scale.dtype}; only float32 can be imported")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise UserError(f"{label} has a scale that is not positive and finite; {_AGAIN}")
        if len(node.input) > 2 and node.input[2]:
            zero = editor.constants.get(node.input[2])
            if zero is None:
                raise UserError(f"the zero point of {label}, '{node.input[2]}', is not constant; {_AGAIN}, statically")
        else:
            dtype = value.dtype if value is not None else self.dtypes.get(node.input[0], np.dtype(np.uint8))
            zero = np.zeros(scale.shape, dtype)
        if zero.size != scale.size:
            raise UserError(f"{label} has {scale.size} scales but {zero.size} zero points; {_AGAIN}")
        read = value.dtype if value is not None else self.dtypes.get(node.input[0])
        if node.op_type == "DequantizeLinear" and read != zero.dtype:
            raise UserError(f"{label} reads {read}, but its zero point is {zero.dtype}; {_AGAIN}")
        if scale.size == 1:
            return _Affine(scale.reshape(()), zero.reshape(()), -1)
        of = value if value is not None else editor.constants.get(node.input[0])
        axis = int(options.get("axis", 1))
        if of is not None:
            axis = 0 if of.ndim == 1 else axis + of.ndim if axis < 0 else axis
            if axis >= of.ndim or of.shape[axis] != scale.size:
                raise UserError(
                    f"{label} has {scale.size} scales along axis {axis} of a tensor of shape {list(of.shape)}; {_AGAIN}"
                )
        return _Affine(scale.reshape(-1), zero.reshape(-1), axis)

    def _refuse_integer_ends(self) -> None:
        integers = [name for name in self.editor.outputs if name in self.dtypes]
        if integers:
            raise UserError(
                f"output '{integers[0]}' of {self.editor.source} is {self.dtypes[integers[0]]}; "
                "give a model whose outputs are float"
            )

    # Constants where they are read

    def _transposed(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """A transposed constant becomes a constant."""
        source = self.constants.get(node.input[0]) if node.op_type == "Transpose" else None
        if source is None:
            return None
        value = self.editor.constants[source.input[0]]
        order = list(attributes(node).get("perm", range(value.ndim)[::-1]))
        return self._placed(source, value.transpose(order), order, node.output[0])

    def _symmetric(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """Weights with the zero point 0, as integer kernels want them: less their own, and rounded again if that is wide."""
        source = self.constants.get(node.input[1]) if node.op_type in _LAYERS else None
        if source is None:
            return None
        value, scale, zero = (self.editor.constants[name] for name in source.input)
        if value.dtype != np.int8 or not zero.any():
            return None
        outputs = 0 if node.op_type == "Conv" or attributes(node).get("transB", 0) else value.ndim - 1
        if node.op_type == "ConvTranspose" or (scale.size > 1 and int(attributes(source)["axis"]) % value.ndim != outputs):
            return None
        shape = [-1 if axis == outputs else 1 for axis in range(value.ndim)]
        wide = value.astype(np.int16) - zero.astype(np.int16).reshape(shape if zero.size > 1 else ())
        if wide.min() < -127 or wide.max() > 127:
            largest = np.abs(wide).max(tuple(axis for axis in range(value.ndim) if axis != outputs))
            step = np.maximum(largest, 127) / 127.0
            wide, scale = np.rint(wide / step.reshape(shape)), (scale * step).astype(np.float32)
            self.editor.notes.append(f"weights of {node.name} rounded again: with a zero point they need 9 bits")
        stem = source.input[0]
        operands = [
            self._reshaped(source, wide.astype(np.int8)),
            self.editor.constant(f"{stem}_scale", scale),
            self.editor.constant(f"{stem}_zero_point", np.zeros(scale.shape, np.int8)),
        ]
        name = self.editor.fresh(f"{stem}_symmetric")
        new = self.editor.node("DequantizeLinear", operands, name, axis=outputs if scale.size > 1 else -1)
        self.constants[name] = new
        node.input[1] = name
        return [new, node]

    def _reshaped(self, source: onnx.NodeProto, value: np.ndarray) -> str:
        """Another form of a constant; the old one gives its name to it where nobody else reads it."""
        name = source.input[0]
        if len(self.readers.get(name, [])) == 1 == len(self.readers.get(source.output[0], [])):
            self.editor.constants[name] = value
            return name
        return self.editor.constant(name, value)

    def _placed(self, source: onnx.NodeProto, value: np.ndarray, order: list[int], output: str) -> list[onnx.NodeProto]:
        """A dequantized constant whose axes are in another order: the axis `order[i]` has become `i`."""
        name = self._reshaped(source, value)
        wide = self.editor.constants[source.input[1]].size > 1
        axis = order.index(int(attributes(source)["axis"])) if wide else -1
        new = self.editor.node("DequantizeLinear", [name, *source.input[1:]], output, axis=axis)
        self.constants[output] = new
        return [new]

    def _biased(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        if node.op_type not in _LAYERS:
            # A number needs no scale.
            for index, name in enumerate(node.input):
                if name in self.constants and self.editor.constants[self.constants[name].input[0]].size == 1:
                    node.input[index] = self._real(name)
        if node.op_type == "Conv" and len(node.input) > 2 and node.input[2] in self.constants:
            return self._conv(node)
        if node.op_type == "Gemm" and any(name in self.constants for name in node.input[1:]):
            return self._gemm(node)
        if node.op_type == "BatchNormalization":
            return self._batch_norm(node)
        if node.op_type == "Add" and node.input[0] in self.constants and node.input[1] not in self.constants:
            node.input[0], node.input[1] = node.input[1], node.input[0]
        return None

    def _conv(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        weight = self._value(node.input[1])
        if weight is None:
            return None
        bias = self.constants[node.input[2]]
        value = self.editor.constants[bias.input[0]].reshape((1, -1) + (1,) * (weight.ndim - 2))
        name = self._reshaped(bias, value)
        axis = 1 if self.editor.constants[bias.input[1]].size > 1 else -1
        wide = self.editor.node(
            "DequantizeLinear", [name, *bias.input[1:]], self.editor.fresh(f"{name}_dequantized"), axis=axis
        )
        product = self.editor.fresh(f"{node.output[0]}_product")
        return [
            self.editor.node("Conv", node.input[:2], product, **attributes(node)),
            wide,
            self.editor.node("Add", [product, wide.output[0]], node.output[0]),
        ]

    def _gemm(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        options = attributes(node)
        weight = self.constants.get(node.input[1])
        plain = options.get("alpha", 1.0) == 1.0 and options.get("beta", 1.0) == 1.0 and not options.get("transA", 0)
        if weight is None or not plain:
            return None
        made, matrix = [], node.input[1]
        if options.get("transB", 0):
            matrix = self.editor.fresh(f"{matrix}_transposed")
            made += self._placed(weight, self.editor.constants[weight.input[0]].T, [1, 0], matrix)
        bias = node.input[2] if len(node.input) > 2 else ""
        product = self.editor.fresh(f"{node.output[0]}_product") if bias else node.output[0]
        made.append(self.editor.node("MatMul", [node.input[0], matrix], product))
        if bias:
            made.append(self.editor.node("Add", [product, bias], node.output[0]))
        return made

    def _batch_norm(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """A normalization of integers multiplies every channel: a depthwise convolution with 1x1 kernels of 127 steps."""
        scale = self.constants[node.input[1]].input[0] if node.input[1] in self.constants else node.input[1]
        for index, name in enumerate(node.input[1:], start=1):
            if name in self.constants:
                node.input[index] = self._real(name)
        statistics = [self.editor.constants.get(name) for name in node.input[1:5]]
        shape = self.editor.shapes.get(node.output[0]) or self.editor.shapes.get(node.input[0]) or []
        if node.input[0] not in self.dequantized or len(shape) != 4 or any(value is None for value in statistics):
            return None
        gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in statistics)
        factor = gamma / np.sqrt(variance + float(attributes(node).get("epsilon", 1e-5)))
        shift = (beta - mean * factor).astype(np.float32)
        step = np.where(factor == 0, 1.0, np.abs(factor) / 127).astype(np.float32)
        stem = _NORMALIZATION.sub("", scale)
        operands = [
            self.editor.constant(f"{stem}.kernel", (127 * np.sign(factor)).astype(np.int8).reshape(-1, 1, 1, 1)),
            self.editor.constant(f"{stem}.step", step),
            self.editor.constant(f"{stem}.zero", np.zeros(step.shape, np.int8)),
        ]
        weight = self.editor.node("DequantizeLinear", operands, self.editor.fresh(f"{stem}.kernel_value"), axis=0)
        product = self.editor.fresh(f"{node.output[0]}_product")
        return [
            weight,
            self.editor.node("Conv", [node.input[0], weight.output[0]], product, group=step.size, kernel_shape=[1, 1]),
            self.editor.node(
                "Add", [product, self.editor.constant(f"{stem}.shift", shift.reshape(1, -1, 1, 1))], node.output[0]
            ),
        ]

    def _real(self, name: str) -> str:
        """A dequantized constant as a float one."""
        source = self.constants[name]
        value, scale, zero = (self.editor.constants[operand] for operand in source.input)
        shape = [-1 if axis == attributes(source)["axis"] and scale.size > 1 else 1 for axis in range(value.ndim)]
        real = (value.astype(np.int32) - zero.astype(np.int32).reshape(shape)) * scale.reshape(shape)
        return self.editor.constant(source.input[0], real.astype(np.float32))

    def _value(self, name: str) -> np.ndarray | None:
        source = self.constants.get(name)
        return self.editor.constants.get(source.input[0] if source is not None else name)


def _float_names(node: onnx.NodeProto) -> set[str]:
    return {node.output[0]} & {node.input[0].removesuffix("_quantized")}


def _along(value: np.ndarray, affine: _Affine) -> tuple[int, ...]:
    """The shape in which the parameters broadcast against a tensor."""
    return tuple(-1 if axis == affine.axis and affine.scale.size > 1 else 1 for axis in range(value.ndim))
