"""Matrix products and normalizations."""

from __future__ import annotations

import numpy as np

from ...passes._tvm import relax
from .registry import CannotImportError, Node, Result, constant, onnx_op


@onnx_op("Gemm")
def _gemm(node: Node) -> Result:
    """A matrix product with its factors in the weight and in the bias, where those are constant."""
    alpha, beta = (float(node.options.get(name, 1.0)) for name in ("alpha", "beta"))
    a, b = node.operand(0), node.operand(1)
    if node.options.get("transA", 0):
        a = node.call(relax.op.permute_dims, a, [1, 0])
    if node.options.get("transB", 0):
        b = node.call(relax.op.permute_dims, b, [1, 0])
    if alpha != 1.0:
        if node.value(1) is not None:
            b = node.call(relax.op.multiply, b, node.scalar(alpha))
        else:
            a = node.call(relax.op.multiply, a, node.scalar(alpha))
    product = relax.op.matmul(a, b)
    if not node.given(2) or beta == 0:
        return product
    bias, columns = node.operand(2), int(b.ty.shape[1])
    if beta != 1.0:
        bias = node.call(relax.op.multiply, bias, node.scalar(beta))
    shape = node.shape(2)
    if shape in ((), (1,), (1, 1)) and node.value(2) is not None:
        bias = node.call(relax.op.broadcast_to, node.call(relax.op.reshape, bias, [1]), [columns])
    elif shape == (1, columns):
        bias = node.call(relax.op.reshape, bias, [columns])
    return relax.op.add(node.emit(product), bias)


@onnx_op("MatMul")
def _matmul(node: Node) -> Result:
    """A weight with leading axes of size one is a matrix."""
    x, weight, shape = node.operand(0), node.operand(1), node.shape(1) if node.given(1) else ()
    if node.value(1) is not None and len(shape) > 2 and len(node.shape()) >= len(shape) and set(shape[:-2]) == {1}:
        weight = node.call(relax.op.reshape, weight, list(shape[-2:]))
    return relax.op.matmul(x, weight)


@onnx_op("InstanceNormalization")
def _instance_norm(node: Node) -> Result:
    axes = list(range(2, len(node.shape())))
    if not axes:
        raise CannotImportError("it has no axes of space")
    operands = [node.operand(index) for index in range(3)]
    epsilon = float(node.options.get("epsilon", 1e-5))
    return relax.op.nn.instance_norm(*operands, channel_axis=1, axes=axes, epsilon=epsilon)


@onnx_op("BatchNormalization")
def _batch_norm(node: Node) -> Result:
    if node.options.get("training_mode", 0):
        raise CannotImportError("it is in training mode; export the model in evaluation mode")
    if any(node.outputs[1:]):
        raise CannotImportError("its statistics are read; export the model in evaluation mode")
    operands = [node.operand(index) for index in range(5)]
    epsilon = float(node.options.get("epsilon", 1e-5))
    normal = node.emit(relax.op.nn.batch_norm(*operands, axis=1, epsilon=epsilon, training=False))
    return relax.TupleGetItem(normal, 0)


@onnx_op("LayerNormalization")
def _layer_norm(node: Node) -> Result:
    """With the mean and the reciprocal deviation, where they are read."""
    first, rank, x = node.axis(-1), len(node.shape()), node.operand(0)
    axes, epsilon = list(range(first, rank)), float(node.options.get("epsilon", 1e-5))
    gamma = node.operand(1)
    beta = node.operand(2) if node.given(2) else constant(np.zeros(node.shape(1), node.dtype()))
    shape = node.shape()[first:]
    gamma, beta = (
        expr if tuple(int(dim) for dim in expr.ty.shape) == shape else node.call(relax.op.broadcast_to, expr, list(shape))
        for expr in (gamma, beta)
    )
    normal = node.emit(relax.op.nn.layer_norm(x, gamma, beta, axes=axes, epsilon=epsilon))
    if not any(node.outputs[1:]):
        return normal
    mean = node.call(relax.op.mean, x, axes, True)
    off = node.call(relax.op.subtract, x, mean)
    variance = node.call(relax.op.mean, node.call(relax.op.multiply, off, off), axes, True)
    inverse = node.call(relax.op.rsqrt, node.call(relax.op.add, variance, node.scalar(epsilon)))
    return [normal, mean, inverse]


@onnx_op("RMSNormalization")
def _rms_norm(node: Node) -> Result:
    """Over one axis TVM has an operator; over several it is put together."""
    first, rank, x = node.axis(-1), len(node.shape()), node.operand(0)
    if first == rank - 1:
        return None
    mean = node.call(relax.op.mean, node.call(relax.op.multiply, x, x), list(range(first, rank)), True)
    root = node.call(relax.op.sqrt, node.call(relax.op.add, mean, node.scalar(node.options.get("epsilon", 1e-5))))
    return relax.op.multiply(node.call(relax.op.divide, x, root), node.operand(1))


@onnx_op("Einsum")
def _einsum(node: Node) -> Result:
    text = node.text("equation", "").replace(" ", "")
    if "->" not in text:
        # Without a result it is made of the letters that occur once, in alphabetical order.
        letters = sorted({letter for letter in text if letter.isalpha() and text.count(letter) == 1})
        text += "->" + ("..." if "..." in text else "") + "".join(letters)
    return relax.op.einsum([node.operand(index) for index in range(len(node.inputs))], text)


@onnx_op("RoiAlign")
def _roi_align(node: Node) -> Result:
    if node.text("mode", "avg") != "avg":
        raise CannotImportError("it takes the maximum of its samples; only averages are imported")
    scale = float(node.options.get("spatial_scale", 1.0))
    mode = node.text("coordinate_transformation_mode", "half_pixel" if node.opset >= 16 else "output_half_pixel")
    regions, aligned = node.operand(1), mode == "half_pixel"
    if aligned:
        # Relax's operator leaves out half a pixel of the scaled image; TVM's importer takes it off before it scales.
        regions = node.call(relax.op.subtract, regions, node.scalar(0.5 / scale))
    images = node.call(relax.op.expand_dims, node.cast(node.operand(2), node.dtype(1)), 1)
    size = (int(node.options.get("output_height", 1)), int(node.options.get("output_width", 1)))
    rows = node.call(relax.op.concat, [images, regions], 1)
    ratio = int(node.options.get("sampling_ratio", 0))
    return relax.op.vision.roi_align(node.operand(0), rows, size, scale, ratio, aligned, layout="NCHW", mode="avg")
