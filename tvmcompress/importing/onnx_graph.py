"""Cleaning an ONNX graph before it becomes Relax.

Exporters leave shape arithmetic, constants in nodes, initializers shared by accident and ones nobody reads. What is
constant is evaluated here with ONNX's own reference implementation, so that the importer sees plain tensors and numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from ..errors import UserError
from .onnx_control_flow import decide_control_flow
from .onnx_names import name_weights

# Dequantized weights must stay int8 with a DequantizeLinear: the exchange form of quantized models.
_NEVER_FOLDED = {"DequantizeLinear", "QuantizeLinear", "RandomNormal", "RandomUniform", "Loop", "If", "Scan"}
# Folding must not blow a small graph up into large constants.
_FOLD_LIMIT = 1 << 26


def clean(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], batch: int) -> onnx.ModelProto:
    """A copy of `model` with fixed input shapes, no constant subgraphs, no shared vectors, no nameless weights and no unused
    initializers.

    Raises:
        UserError: An input's shape is open in more than its leading dimension, or `shapes` does not fit the graph.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    _fix_shapes(model.graph, shapes, batch)
    _constants_to_initializers(model.graph)
    name_weights(model.graph)
    for _ in range(16):
        model = _infer(model)
        folded = _fold_once(model)
        if not decide_control_flow(model.graph, _static_shapes(model.graph)) and not folded:
            break
        # Branches and bodies bring more of them.
        _constants_to_initializers(model.graph)
    _drop_empty_operands(model.graph)
    _drop_unused(model.graph)
    _unshare_vectors(model.graph)
    return model


def _fix_shapes(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]], batch: int) -> None:
    names = [value.name for value in graph.input]
    for name in shapes:
        if name not in names:
            raise UserError(f"a shape is given for input '{name}', but the model's inputs are {', '.join(names)}")
    for value in graph.input:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            if value.name not in shapes:
                raise UserError(f"input '{value.name}' has no shape; give one with --shape {value.name}:1,3,224,224")
            tensor.shape.SetInParent()
        given = shapes.get(value.name)
        dims = tensor.shape.dim
        if given is not None:
            if dims and len(dims) != len(given):
                raise UserError(f"input '{value.name}' has {len(dims)} dimensions, the shape given has {len(given)}")
            for _ in range(len(given) - len(dims)):
                dims.add()
            for dim, size in zip(dims, given):
                if dim.dim_value > 0 and dim.dim_value != size:
                    raise UserError(
                        f"input '{value.name}' is fixed to {[d.dim_value or d.dim_param or '?' for d in dims]} "
                        f"in the file; the shape given, {list(given)}, differs"
                    )
                dim.dim_value = int(size)
        for axis, dim in enumerate(dims):
            if dim.HasField("dim_value") and dim.dim_value == 0:
                raise UserError(f"input '{value.name}' has no elements; tensors without elements are not imported")
            if dim.dim_value <= 0:
                if axis != 0:
                    raise UserError(
                        f"dimension {axis} of input '{value.name}' is open ({dim.dim_param or '?'}); "
                        f"give the whole shape with --shape {value.name}:..."
                    )
                dim.dim_value = batch
    # Old shapes downstream would contradict the new ones.
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        tensor = _constant_value(node)
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.append(numpy_helper.from_array(tensor, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)


def _constant_value(node: onnx.NodeProto) -> np.ndarray | None:
    if node.op_type != "Constant":
        return None
    for attribute in node.attribute:
        if attribute.name == "value":
            return numpy_helper.to_array(attribute.t)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(onnx.helper.get_attribute_value(attribute), np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(onnx.helper.get_attribute_value(attribute), np.int64)
    return None


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the shapes of the ONNX graph contradict each other: {reason}") from error


def _fold_once(model: onnx.ModelProto) -> bool:
    """Evaluate every node whose inputs are all constant, and every Shape of a tensor of known shape."""
    graph = model.graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    arrays: dict[str, np.ndarray] = {}
    shapes = _static_shapes(graph)
    kept, changed = [], False

    def array(name: str) -> np.ndarray:
        if name not in arrays:
            arrays[name] = numpy_helper.to_array(known[name])
        return arrays[name]

    for node in graph.node:
        results: list[np.ndarray] | None = None
        if node.op_type == "Shape" and node.input[0] in shapes:
            attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            shape = shapes[node.input[0]][attrs.get("start", 0) : attrs.get("end")]
            results = [np.asarray(shape, np.int64)]
        elif node.op_type not in _NEVER_FOLDED and all(name in known or not name for name in node.input) and node.input:
            results = evaluate(node, {name: array(name) for name in node.input if name}, model)
        if results is None or sum(result.nbytes for result in results) > _FOLD_LIMIT:
            kept.append(node)
            continue
        changed = True
        for name, result in zip(node.output, results):
            tensor = numpy_helper.from_array(np.asarray(result), name)
            known[name], arrays[name] = tensor, np.asarray(result)
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(kept)
    return changed


def _static_shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = [dim.dim_value for dim in dims]
    return shapes


def evaluate(node: onnx.NodeProto, inputs: dict[str, np.ndarray], model: onnx.ModelProto) -> list[np.ndarray] | None:
    """What a node gives on constants; None where ONNX's reference implementation lacks it."""
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "constant", infos, outputs)
    single = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        results = ReferenceEvaluator(single).run(None, inputs)
    except Exception:  # what the reference implementation lacks stays in the graph
        return None
    return [np.asarray(result) for result in results]


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _drop_empty_operands(graph: onnx.GraphProto) -> None:
    """Leave out the empty region and scales of a Resize to given sizes, which opset 11 could not leave out."""
    empty = {tensor.name for tensor in graph.initializer if 0 in tensor.dims}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if node.op_type == "Resize" and name in empty:
                node.input[index] = ""


def _unshare_vectors(graph: onnx.GraphProto) -> None:
    """Give every reader of a vector a copy of its own.

    Exporters merge equal vectors (fresh scales and biases), which would tie layers that have nothing to do with each
    other. A shared matrix or kernel is left alone: there sharing is meant.
    """
    vectors = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 1 and tensor.dims[0] > 1}
    readers = Counter(name for node in graph.node for name in node.input if name in vectors)
    taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    taken.update(name for node in graph.node for name in node.output)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if readers.get(name, 0) <= 1:
                continue
            readers[name] -= 1
            copy = onnx.TensorProto()
            copy.CopyFrom(vectors[name])
            count = readers[name]
            while f"{name}.copy{count}" in taken:
                count += 1
            copy.name = f"{name}.copy{count}"
            taken.add(copy.name)
            graph.initializer.append(copy)
            node.input[index] = copy.name
