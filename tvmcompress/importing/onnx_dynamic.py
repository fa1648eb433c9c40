"""Dynamically quantized ONNX models, as `onnxruntime.quantization.quantize_dynamic` writes them, as float ones.

Their scales of activations are chosen at run time (DynamicQuantizeLinear), so that no scale can be kept: sums of integers
that are cast to float and multiplied by the product of both scales are the product of the real numbers, with the rounding of
the activations left out.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from .onnx_editing import GraphEditor, attributes

_FLOAT_KINDS = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}


def expand_dynamic(editor: GraphEditor) -> None:
    """Put float operators in the place of integer ones whose activations are quantized at run time.

    What has another form than DynamicQuantizeLinear, MatMulInteger or ConvInteger, Cast and Mul stays as it is.
    """
    _Dynamic(editor).run()


class _Dynamic:
    def __init__(self, editor: GraphEditor) -> None:
        self.editor = editor
        self.made = {name: node for node in editor.nodes for name in node.output}
        # Weights that are float now, by the names of the integers, of their zero point and of their scale.
        self.weights: dict[tuple[str, ...], str] = {}
        self.layers: dict[str, onnx.NodeProto] = {}

    def run(self) -> None:
        self.editor.rewrite(self._product)
        if self.layers:
            readers = self.editor.readers()
            self.editor.rewrite(lambda node: self._biased(node, readers))
            if not any(node.op_type == "QuantizeLinear" for node in self.editor.nodes):
                self.editor.rewrite(self._looked_up)
            self.editor.notes.append(
                "the scales of its activations are chosen at run time, so they and its quantized weights became float"
            )

    def _product(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """A float layer in the place of the Mul that ends an integer one."""
        if node.op_type != "Mul":
            return None
        for sums, factor in (node.input, node.input[::-1]):
            cast = self._maker(sums, "Cast")
            if cast is None or attributes(cast)["to"] != TensorProto.FLOAT:
                continue
            layer = self._maker(cast.input[0], *_FLOAT_KINDS)
            operands = None if layer is None else self._operands(layer, self._factors(factor))
            if layer is not None and operands is not None:
                new = self.editor.node(_FLOAT_KINDS[layer.op_type], operands, node.output[0], **attributes(layer))
                new.name = layer.name
                self.layers[node.output[0]] = new
                return [new]
        return None

    def _maker(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        node = self.made.get(name)
        return node if node is not None and node.op_type in kinds else None

    def _factors(self, name: str) -> list[str]:
        node = self._maker(name, "Mul")
        return [name] if node is None else list(node.input)

    def _operands(self, layer: onnx.NodeProto, factors: list[str]) -> list[str] | None:
        """The real operands of an integer layer whose sums are multiplied by `factors`; None where these are other scales."""
        real = ["", ""]
        for index, name in enumerate(layer.input[:2]):
            source = self._maker(name, "DynamicQuantizeLinear")
            if source is None:
                continue
            if (
                source.output[0] != name
                or self._zero_point(layer, index) != source.output[2]
                or source.output[1] not in factors
            ):
                return None
            factors.remove(source.output[1])
            real[index] = source.input[0]
        if all(real):
            return None if factors else real
        index = real.index("")
        if not any(real) or len(factors) > 1:
            return None
        weight = self._weight(layer, index, factors[0] if factors else "")
        real[index] = weight or ""
        return real if weight else None

    @staticmethod
    def _zero_point(layer: onnx.NodeProto, index: int) -> str:
        return layer.input[index + 2] if len(layer.input) > index + 2 else ""

    def _weight(self, layer: onnx.NodeProto, index: int, scale: str) -> str | None:
        """The name of a dequantized weight; None where it is none, or has parameters along an axis that is none of it."""
        name, zero = layer.input[index], self._zero_point(layer, index)
        key = (layer.op_type, name, zero, scale)
        if key in self.weights:
            return self.weights[key]
        constants = self.editor.constants
        if any(operand and operand not in constants for operand in key[1:]):
            return None
        integers = constants[name]
        zeros = constants[zero] if zero else np.zeros((), integers.dtype)
        scales = _channels(constants[scale], layer, integers, index) if scale else np.ones(1, np.float32)
        wide = zeros.size > 1 and not (_per_channel(layer, index) and zeros.shape == (integers.shape[_axis(layer)],))
        if scales is None or wide or integers.ndim < 2:
            return None
        shape = [-1, *[1] * (integers.ndim - 1)] if layer.op_type == "ConvInteger" else [-1]
        # Differences of 8-bit integers are exact in float32.
        real = (integers.astype(np.float32) - zeros.astype(np.float32).reshape(shape)) * scales.reshape(shape)
        stem = name.removesuffix("_quantized").removesuffix("_Transposed")
        self.weights[key] = self.editor.constant(stem, real.astype(np.float32))
        return self.weights[key]

    def _biased(self, node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]]) -> list[onnx.NodeProto] | None:
        """A convolution with the bias that is added behind it, and called like its weight."""
        if node.op_type != "Add":
            return None
        for name, bias in (node.input, node.input[::-1]):
            layer, value = self.layers.get(name), self.editor.constants.get(bias)
            if layer is None or value is None or layer.op_type != "Conv" or layer.input[1] not in self.editor.constants:
                continue
            shift = _channels(value, layer, self.editor.constants[layer.input[1]], 1)
            if shift is None or shift.size == 1 or len(readers[name]) > 1 or name in self.editor.outputs:
                continue
            layer.input.append(self.editor.constant(f"{layer.input[1].removesuffix('.weight')}.bias", shift))
            layer.output[0] = node.output[0]
            return []
        return None

    def _looked_up(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """A look-up in a float table in the place of one in a quantized table, whose results are dequantized."""
        gather = self._maker(node.input[0], "Gather") if node.op_type == "DequantizeLinear" else None
        if gather is None:
            return None
        names = [gather.input[0], *node.input[1:]]
        values = [self.editor.constants.get(name) for name in names]
        if any(value is None or (index and value.size != 1) for index, value in enumerate(values)):
            return None
        key = ("Gather", *names)
        if key not in self.weights:
            table, scale, *zero = [value.astype(np.float32) for value in values if value is not None]
            real = (table - (zero[0].reshape(()) if zero else 0)) * scale.reshape(())
            self.weights[key] = self.editor.constant(names[0].removesuffix("_quantized"), real)
        return [self.editor.node("Gather", [self.weights[key], gather.input[1]], node.output[0], **attributes(gather))]


def _axis(layer: onnx.NodeProto) -> int:
    """The axis of a weight along which its channels lie."""
    return 0 if layer.op_type in ("ConvInteger", "Conv") else -1


def _per_channel(layer: onnx.NodeProto, index: int) -> bool:
    return _axis(layer) == 0 or index == 1


def _channels(value: np.ndarray, layer: onnx.NodeProto, weight: np.ndarray, index: int) -> np.ndarray | None:
    """What multiplies, or is added to, a layer's results as a vector: one number, or one for each channel; else None."""
    count = weight.shape[_axis(layer)]
    spatial = [1] * (weight.ndim - 2)
    convolution = _axis(layer) == 0
    if value.size == 1 and value.ndim <= (weight.ndim if convolution else 1):
        return value.reshape(1)
    allowed = ([count, *spatial], [1, count, *spatial]) if convolution else ([count],)
    return value.reshape(-1) if _per_channel(layer, index) and [*value.shape] in allowed else None
