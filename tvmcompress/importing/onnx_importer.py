"""From a cleaned ONNX graph to Relax, node by node: our rules first, TVM's own conversion where there is none."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tvm.relax.frontend.onnx import onnx_frontend

from ..errors import UnsupportedOperatorError, UserError
from ..passes._tvm import Constant, relax, tvm
from .onnx_graph import evaluate
from .onnx_rules.registry import RULES, CannotImportError, Node, constant

_OF_TVM = onnx_frontend._get_convert_map()


class Importer(onnx_frontend.ONNXGraphImporter):
    """TVM's importer with rules of our own, constants folded, and errors that name the node.

    Args:
        model: The cleaned model.
        source: What to call it in messages.
        opset: The version of ONNX's operators.
    """

    def __init__(self, model: onnx.ModelProto, source: str, opset: int) -> None:
        super().__init__({}, {}, keep_params_in_input=True, sanitize=False)
        self._model = model
        self._source = source
        self._version = opset
        self._weights: dict[str, np.ndarray] = {}

    def convert(self) -> tvm.IRModule:
        """The Relax module of the graph."""
        try:
            return self.from_onnx(self._model.graph, self._version)
        except Exception:
            # TVM complains on standard error of a builder that is left with an open block.
            with contextlib.suppress(Exception):
                while True:
                    self.bb._end_block()
            raise

    def _parse_graph_initializers(self, graph: onnx.GraphProto) -> None:
        taken = {value.name for value in graph.input}
        for tensor in graph.initializer:
            value = numpy_helper.to_array(tensor)
            # PyTorch's prefix says nothing.
            short = tensor.name.removeprefix("onnx::")
            name = tensor.name if short in taken else short
            taken.add(name)
            var = self._new_var(name, shape=value.shape, dtype=value.dtype.name)
            self._nodes[tensor.name] = var
            self._weights[name] = value
            self._params[name] = (var, tvm.runtime.tensor(np.array(value, order="C")))

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        pass  # done before, by name

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            unknown = next((name for name in node.input if name and name not in self._nodes), None)
            if unknown is not None:
                raise UserError(
                    f"{self._label(node)} reads '{unknown}', which is no input, no weight and no result of a node before it"
                )
            try:
                results = self._results(node)
            except CannotImportError as error:
                raise UnsupportedOperatorError(f"{self._label(node)} cannot be imported: {error}") from None
            except UserError as error:
                raise type(error)(f"{self._label(node)} cannot be imported: {error}") from None
            except Exception as error:
                raise UnsupportedOperatorError(
                    f"{self._label(node)} cannot be imported in the form in which it is used there; replace it in the model or "
                    "export the part without it"
                ) from error
            for name, result in zip(node.output, results):
                if name:
                    self._nodes[name] = result
            if any(name and index >= len(results) for index, name in enumerate(node.output)):
                raise UnsupportedOperatorError(f"{self._label(node)} cannot be imported: it has more results than are imported")

    def _label(self, node: onnx.NodeProto) -> str:
        name = node.name or next((output for output in node.output if output), node.op_type)
        return f"node '{name}' ({node.op_type}) of {self._source}"

    def _results(self, proto: onnx.NodeProto) -> list[relax.Expr]:
        """What a node computes."""
        inputs = [self._nodes[name] if name else None for name in proto.input]
        folded = self._folded(proto, inputs)
        if folded is not None:
            return folded
        options = {attribute.name: helper.get_attribute_value(attribute) for attribute in proto.attribute}
        if proto.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return [self._affine(proto.op_type, inputs, options)]
        node = Node(proto.op_type, inputs, options, list(proto.output), self._version, self.bb, self._weights)
        rule = RULES.get(proto.op_type)
        made = rule(node) if rule is not None else None
        if made is None:
            made = self._by_tvm(proto, inputs)
        made = [made] if isinstance(made, relax.Expr) else list(made)
        results = [self._bound(expr) for expr in made]
        if len(results) == 1 and isinstance(results[0].ty, relax.TupleType):
            parts = range(len(results[0].ty.fields))
            results = [self.bb.emit(relax.TupleGetItem(results[0], index)) for index in parts]
        for result in results:
            self._check(result)
        return results

    def _bound(self, expr: relax.Expr) -> relax.Expr:
        return expr if isinstance(expr, (relax.Var, Constant)) else self.bb.emit(expr)

    def _check(self, result: relax.Expr) -> None:
        """Memory is planned before the model runs: every size must be known."""
        ty = result.ty
        if not isinstance(ty, relax.TensorType) or ty.shape is None:
            raise CannotImportError("the shape of its result depends on values that are computed at run time")
        sizes = list(ty.shape)
        if not all(isinstance(size, (int, tvm.tirx.IntImm)) for size in sizes):
            raise CannotImportError("the shape of its result depends on values that are computed at run time")
        if any(int(size) == 0 for size in sizes):
            raise CannotImportError("its result has no elements; tensors without elements are not imported")

    def _folded(self, proto: onnx.NodeProto, inputs: list[relax.Expr | None]) -> list[relax.Expr] | None:
        """The results of a node whose operands stand in the graph itself, as shapes do that were not known before."""
        known = {name: expr.value.numpy() for name, expr in zip(proto.input, inputs) if name and isinstance(expr, Constant)}
        if not known or len(known) < len({name for name in proto.input if name}) or "Quantize" in proto.op_type:
            return None
        values = evaluate(proto, known, self._model)
        return None if values is None else [constant(value) for value in values]

    def _by_tvm(self, proto: onnx.NodeProto, inputs: list[relax.Expr | None]) -> relax.Expr:
        if proto.op_type not in _OF_TVM:
            raise CannotImportError("there is no rule for it; replace it in the model or export the part without it")
        options = self._parse_attr(proto.attribute)
        options["tvm_custom"] = {"name": proto.name, "num_outputs": len(proto.output)}
        operands = onnx_frontend.onnx_input()
        for expr in inputs:
            value = self._weights.get(expr.name) if isinstance(expr, relax.Var) else None
            # Indices, shapes and masks belong into the graph: shapes that depend on parameters are not static.
            inline = value is not None and value.dtype in (np.int64, np.bool_)
            operands.append(relax.const(value, value.dtype.name) if inline and value is not None else expr)
        convert = _OF_TVM[proto.op_type].get_converter(self._version)
        made = convert(self.bb, operands, options, [self._nodes, self._params])
        return self.bb.normalize(made) if isinstance(made, relax.Expr) else made

    def _affine(self, kind: str, inputs: list[Any], options: dict[str, Any]) -> relax.Expr:
        """Quantize and dequantize with constants for scale and zero point, which TVM's own would make parameters."""
        scale, zero = (self._constant(given) for given in (*inputs, None)[1:3])
        if scale is None or zero is None:
            raise CannotImportError("its scale and zero point must be constant")
        parameters = (constant(scale), constant(zero))
        if kind == "QuantizeLinear":
            return self.bb.normalize(relax.op.quantize(inputs[0], *parameters, out_dtype=str(zero.dtype)))
        axis = int(options.get("axis", -1))
        return self.bb.normalize(relax.op.dequantize(inputs[0], *parameters, axis=axis))

    def _constant(self, expr: Any) -> np.ndarray | None:
        if isinstance(expr, Constant):
            return expr.value.numpy()
        return self._weights.get(expr.name) if isinstance(expr, relax.Var) else None


def can_import(kind: str) -> bool:
    """Whether there is a rule for an operator."""
    return kind in RULES or kind in _OF_TVM or kind in ("Constant", "QuantizeLinear", "DequantizeLinear")
