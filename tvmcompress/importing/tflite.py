"""From a fully integer TFLite file to integer operators.

The result is what `LowerQDQ` makes: a quantize at each input, integer operators, a dequantize at each output. With the
default rounding it computes, bit for bit, what TensorFlow Lite's reference kernels compute.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..errors import UnsupportedOperatorError, UserError
from ..model import InputSpec, Model
from ..passes import Affine, attach_params
from ..passes._tvm import relax
from ..passes.integer.lower_qdq import SCALES_ATTR
from . import tflite_schema
from .tflite_operators import RULES, Importer


def load_tflite(path: Path, rounding: str = "double", dense_rounding: str = "single") -> Model:
    """Import a TFLite file whose operators all work on int8.

    Args:
        path: The file.
        rounding: "double", TensorFlow Lite's, or "single".
        dense_rounding: That of fully connected layers. The reference kernel of LiteRT 2 multiplies their sums in double
            precision and rounds once, which is "single"; TensorFlow Lite before it, and CMSIS-NN, round twice.

    Returns:
        The model: float inputs and outputs in the file's layout (NHWC), integer operators between them.

    Raises:
        UnsupportedOperatorError: An operator cannot be imported, or works on other than int8; the message names it.
        UserError: The file cannot be read.
    """
    graph = tflite_schema.read(path)
    importer = Importer(graph, rounding, dense_rounding)
    shapes = [graph.tensors[index].shape for index in graph.inputs]
    names = [_plain(graph.tensors[index].name, f"input{i}") for i, index in enumerate(graph.inputs)]
    variables = [relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in zip(names, shapes)]
    for index in (*graph.inputs, *graph.outputs):
        info = graph.tensors[index]
        if info.dtype != "int8" or len(info.scales) != 1:
            raise UserError(
                f"{path} has the {info.dtype} tensor {info.name} at its ends; only models with int8 inputs and outputs "
                "can be imported, so convert with inference_input_type and inference_output_type int8"
            )
    builder = importer.builder
    with builder.function("main"):
        with builder.dataflow():
            for var, index in zip(variables, graph.inputs):
                scale, zero = _constants(importer.affine(index))
                quantized = relax.op.quantize(var, scale, zero, out_dtype="int8")
                importer.values[index] = builder.emit(quantized, f"{var.name}.quantized")
            for node in graph.nodes:
                rule = RULES.get(node.kind)
                where = graph.tensors[node.outputs[0]].name
                if rule is None:
                    raise UnsupportedOperatorError(f"{path}: operator {node.kind} at {where} cannot be imported")
                try:
                    rule(importer, node)
                except ValueError as error:
                    raise UnsupportedOperatorError(f"{path}: {node.kind} at {where}: {error}") from error
            results = [
                builder.emit(relax.op.dequantize(importer.values[index], *_constants(importer.affine(index))))
                for index in graph.outputs
            ]
            output = builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
        builder.emit_func_output(output, [*variables, *importer.variables])
    module = builder.get()
    module["main"] = module["main"].with_attr("num_input", len(variables))
    scales = {name: [a.scale, a.zero_point] for name, a in importer.scales.items()}
    module = attach_params(module.with_attr(SCALES_ATTR, json.dumps(scales)), importer.params)
    inputs = tuple(
        InputSpec(name=name, shape=shape, layout="NHWC" if len(shape) == 4 else None)
        for name, shape in zip(names, shapes)
    )
    outputs = tuple(f"output{i}" if i else "output" for i in range(len(graph.outputs)))
    return Model(module, inputs, outputs, (f"imported from {path.name}",))


def _constants(affine: Affine) -> tuple[relax.Expr, relax.Expr]:
    return relax.const(np.float32(affine.scale)), relax.const(np.int8(affine.zero_point))


def _plain(name: str, fallback: str) -> str:
    """A variable's name from a tensor's: what stands before the port number."""
    return name.split(":")[0].split("/")[-1] or fallback
