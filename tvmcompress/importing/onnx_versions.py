"""Bringing an ONNX model to the one dialect that is imported: operator sets, functions, and kinds of numbers.

Old operator sets are raised with ONNX's own version converter, functions (a model's own, and operators that ONNX defines by
simpler ones) are inlined with its inliner. float16 and bfloat16 become float32: that is what compression starts from.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper, shape_inference, version_converter

from ..errors import UnsupportedOperatorError, UserError
from .onnx_editing import node_graphs

MIN_OPSET, MAX_OPSET = 7, 28
OUTWARDS = "outwards"
"""The rounding of nearest pixels before opset 11, as ONNX Runtime has it: down where an axis grows, up where it shrinks."""

# From here on axes, limits and sizes are operands, as the rules expect them.
_LOWEST = 13
_HALVES = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_NUMBERS = _HALVES | {
    *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.UNDEFINED),
    *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
}
# Operators that ONNX defines by others, and that have no form of their own here.
_BY_OTHERS = {
    *("AffineGrid", "Attention", "BlackmanWindow", "CastLike", "CausalConvWithState", "Celu", "CenterCropPad", "HammingWindow"),
    *("HannWindow", "LinearAttention", "MeanVarianceNormalization", "NegativeLogLikelihoodLoss", "RotaryEmbedding"),
    *("SoftmaxCrossEntropyLoss", "SwiGLU", "Swish"),
}


def modern(model: onnx.ModelProto, source: str) -> tuple[onnx.ModelProto, list[str]]:
    """A copy of `model` of opset 13 or higher, in float32, without functions; and what that changed, one sentence each.

    Raises:
        UserError: The opset is out of range, two tensors have one name, or a tensor is of a kind that is not imported.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if not opset and any(node.domain for node in model.graph.node):
        opset = MAX_OPSET  # the operators are refused by name
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UserError(f"{source} uses ONNX opset {opset}; opsets {MIN_OPSET} to {MAX_OPSET} can be imported")
    _refuse_kinds(model.graph, source)
    _refuse_duplicates(model.graph, source)
    model = onnx.ModelProto.FromString(model.SerializeToString())
    # Since version 4 initializers need not be inputs, too; what is read here is of one form.
    model.ir_version = max(model.ir_version, 8)
    _to_dense(model.graph)
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in known]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    if opset < _LOWEST:
        if opset < 9 and any(node.op_type == "Scan" for node in model.graph.node):
            raise UnsupportedOperatorError(f"{source} uses operator Scan as it was before opset 9; export the model again")
        try:
            model = version_converter.convert_version(model, _LOWEST)
        except Exception as error:
            raise UserError(
                f"{source} uses ONNX opset {opset}, and ONNX's own converter cannot raise it to {_LOWEST}; "
                "export the model again with a newer opset"
            ) from error
        if opset < 11:
            _as_before_opset_11(model.graph)
    notes = []
    if _to_float32(model.graph):
        notes.append("float16 and bfloat16 became float32")
    return _inline(model, source), notes


def _to_dense(graph: onnx.GraphProto) -> None:
    """Write weights that are stored sparsely as ordinary ones."""
    for sparse in graph.sparse_initializer:
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        dense[np.unravel_index(indices, dense.shape) if indices.ndim == 1 else tuple(indices.T)] = values
        graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del graph.sparse_initializer[:]


def _as_before_opset_11(graph: onnx.GraphProto) -> None:
    """Say of every Resize how it was meant before there were modes; the converter leaves it to the defaults of today."""
    for node in graph.node:
        if node.op_type == "Resize":
            kept = [attribute for attribute in node.attribute if attribute.name == "mode"]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(helper.make_attribute("nearest_mode", OUTWARDS))
        for inner in node_graphs(node):
            _as_before_opset_11(inner)


def _refuse_kinds(graph: onnx.GraphProto, source: str) -> None:
    for tensor in graph.initializer:
        # Weights of four bits are read where they are dequantized.
        if tensor.data_type not in (TensorProto.INT4, TensorProto.UINT4):
            _check_kind(tensor.data_type, f"initializer '{tensor.name}'", source)
    for value in (*graph.input, *graph.output):
        if not value.type.HasField("tensor_type") and value.type.WhichOneof("value"):
            raise UserError(
                f"'{value.name}' of {source} is no tensor but a sequence, map or optional; export the model without it"
            )
        _check_kind(value.type.tensor_type.elem_type, f"'{value.name}'", source)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and node.op_type in ("Cast", "EyeLike"):
                _check_kind(attribute.i, f"the result of node '{node.name or node.output[0]}' ({node.op_type})", source)


def _check_kind(kind: int, what: str, source: str) -> None:
    if kind not in _NUMBERS:
        name = TensorProto.DataType.Name(kind).lower()
        raise UserError(f"{what} of {source} is of type {name}, which is not imported; export the model in float32")


def _refuse_duplicates(graph: onnx.GraphProto, source: str) -> None:
    seen = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        for name in node.output:
            if name and name in seen:
                raise UserError(
                    f"{source} computes tensor '{name}' twice (again in node '{node.name or node.op_type}'); names of tensors "
                    "must be unique: export the model again"
                )
            seen.add(name)


def _to_float32(graph: onnx.GraphProto) -> bool:
    """Make every tensor of 16 bits one of 32; whether there was one."""
    changed = False
    for tensor in graph.initializer:
        changed |= _widen(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            changed = True
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "output_dtype", "stash_type") and attribute.i in _HALVES:
                attribute.i = TensorProto.FLOAT
                changed = True
            if attribute.HasField("t"):
                changed |= _widen(attribute.t)
        for inner in node_graphs(node):
            changed |= _to_float32(inner)
    return changed


def _widen(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in _HALVES:
        return False
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    return True


def _inline(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    if model.functions:
        model = inliner.inline_local_functions(model, convert_version=True)
    wanted = {node.op_type for node in model.graph.node} & _BY_OTHERS
    for node in model.graph.node:
        if node.op_type in wanted:
            _write_defaults(node, default_opset(model))
    for kind in sorted(wanted):
        try:
            # The definitions of some depend on the types of their operands.
            typed = shape_inference.infer_shapes(_with_types(model), data_prop=True)
            model = inliner.inline_selected_functions(typed, [("", kind)], inline_schema_functions=True)
        except Exception as error:
            node = next(node for node in model.graph.node if node.op_type == kind)
            raise UnsupportedOperatorError(
                f"node '{node.name or node.output[0]}' of {source} uses operator {kind} in a form that cannot be imported; "
                "replace it in the model or export the part without it"
            ) from error
    return model


def _write_defaults(node: onnx.NodeProto, opset: int) -> None:
    """Give a node the attributes that it leaves to their defaults; the inliner leaves those out."""
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in onnx.defs.get_schema(node.op_type, opset, node.domain).attributes.items():
        if name not in given and attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
            node.attribute.append(attribute.default_value)


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that says the types of initializers as it does those of other tensors; the inliner asks for them."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        copy.graph.value_info.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return copy


def default_opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), MAX_OPSET)


def tensor_dtype(kind: int) -> str:
    """The dtype of a kind of tensor, as NumPy names it."""
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(kind)).name)
