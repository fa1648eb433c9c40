"""From a model to ONNX: float, or quantized as QuantizeLinear and DequantizeLinear around float operators (QDQ).

Quantized weights are int8 with a scale for each output channel, biases int32, activations int8, uint8 or int16. That is
the form in which ONNX Runtime and others take quantized models; on x86 without VNNI instructions, ONNX Runtime's own
kernels for it saturate sums of 16 bits if activations are unsigned, which ours are only on request.
"""

from __future__ import annotations

from os import PathLike

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import UnsupportedOperatorError, UserError
from ..files.whole_file import whole_file
from ..model import Model
from ..passes._tvm import relax, tvm
from ..passes.graph.decode_weights import DecodeWeights
from ..passes.graph.rebuild import bindings
from . import rules_elementwise, rules_layers, rules_shape  # noqa: F401  (register the rules)
from .writer import IR_VERSION, OPSET, WIDE_IR_VERSION, WIDE_OPSET, Writer


def export_onnx(model: Model, path: str | PathLike[str]) -> None:
    """Write a model, float or in QDQ form, as an ONNX file (opset 17; 21 where activations are int16).

    Args:
        model: Its batch size is fixed in the file.
        path: The file; replaced if it is there.

    Raises:
        UnsupportedOperatorError: An operator has no form in ONNX, or the model consists of integer operators.
        UserError: The file cannot be written.
    """
    proto = to_onnx(model)
    try:
        data = proto.SerializeToString()
    except ValueError as error:  # protobuf's limit
        raise UserError(f"{path} would be larger than 2 GB, the limit of an ONNX file") from error
    with whole_file(path) as partial:
        partial.write_bytes(data)


def to_onnx(model: Model) -> onnx.ModelProto:
    """A model, float or in QDQ form, as an ONNX model.

    Inputs and outputs keep their names, layers are named as in the model.

    Raises:
        UnsupportedOperatorError: An operator has no form in ONNX, or the model consists of integer operators.
    """
    # ONNX has four bits from opset 21 on only, and few run them; eight hold the same numbers.
    module = tvm.transform.Sequential([DecodeWeights(["int4"])])(model.module)
    main = module["main"]
    for var, value in bindings(main):
        if isinstance(value, relax.Call) and getattr(value.op, "name", "").startswith("tvmcompress."):
            raise UnsupportedOperatorError(
                f"layer '{var.name}' uses the integer operator {value.op.name}; export the model in QDQ form, before it is "
                "lowered to integer operators (`CompressionResult.qdq_model`)"
            )
    ty = main.ret_ty
    count = len(ty.fields) if isinstance(ty, relax.TupleType) else 1
    names = [spec.name for spec in model.inputs]
    outputs = list(model.outputs) if len(model.outputs) == count else [f"output{index}" for index in range(count)]
    if len(set(names + outputs)) < len(names) + count:
        outputs = [f"{name}.result{index}" for index, name in enumerate(outputs)]
    graph = Writer(module).write("tvmcompress", names, outputs)
    opset, version = OPSET, IR_VERSION
    if any(tensor.data_type == onnx.TensorProto.INT16 for tensor in graph.initializer) or any(map(_is_new, graph.node)):
        opset, version = WIDE_OPSET, WIDE_IR_VERSION
        _raise_opset(graph)
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version, producer_name="tvmcompress"
    )
    if model.provenance:
        helper.set_model_props(proto, {"provenance": "; ".join(model.provenance)})
    return proto


def _is_new(node: onnx.NodeProto) -> bool:
    """Whether an operator, or what is asked of it, came after opset 17."""
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    late = options.get("reduction") in (b"min", b"max") or (node.op_type == "AveragePool" and "dilations" in options)
    return late or node.op_type.startswith("Bitwise") or node.op_type == "GridSample"


def _raise_opset(graph: onnx.GraphProto) -> None:
    """From opset 17 to 21: the axes of reductions are an operand from 18 on; all else that is written stays as it is."""
    for node in graph.node:
        given = [attribute for attribute in node.attribute if attribute.name == "axes"]
        if node.op_type.startswith("Reduce") and given:
            label = f"{node.output[0]}.axes"
            graph.initializer.append(numpy_helper.from_array(np.array(given[0].ints, np.int64), label))
            node.input.append(label)
            node.attribute.remove(given[0])


def can_export(model: Model) -> bool:
    """Whether every operator of a model has a form in ONNX."""
    try:
        to_onnx(model)
    except UnsupportedOperatorError:
        return False
    return True
