"""ONNX files in forms that exporters and people write: old operator sets, odd names, weights stored otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvmcompress
from tvmcompress.importing import from_onnx

_RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape).astype("float32")


def text(nodes: str, opset: int, inputs: str = "float[1,4,9,11] x", **weights: np.ndarray) -> onnx.ModelProto:
    head = f'<ir_version: {4 if opset < 9 else 8}, opset_import: ["" : {opset}]> net ({inputs}) => (float[a,b,c,d] y)'
    proto = onnx.parser.parse_model(head + "{" + nodes + "}")
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return proto


def scales(*values: float) -> np.ndarray:
    return np.asarray(values, "float32")


def sparse() -> onnx.ModelProto:
    proto = text("y = MatMul (x, w)", 13)
    values, places = helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2, 3]), [1, 9, 30]
    indices = helper.make_tensor("places", TensorProto.INT64, [3], places)
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [11, 3]))
    return proto


def odd_names() -> onnx.ModelProto:
    proto = text("a = Relu (x) y = Conv (a, w)", 13, w=normal(6, 4, 3, 3))
    for name, new in {"a": "model/a:0", "w": "1weight[0] \u00e9", "y": "int"}.items():
        for tensors in (node_names for node in proto.graph.node for node_names in (node.input, node.output)):
            tensors[:] = [new if found == name else found for found in tensors]
    proto.graph.initializer[0].name, proto.graph.output[0].name = "1weight[0] \u00e9", "int"
    return proto


FORMS = {
    # Before opset 11 a Resize knew no modes: ONNX's converter takes those of today for it.
    "upsample 7": text('y = Upsample <mode = "linear", scales = [1.0, 1.0, 2.0, 3.0]> (x)', 7),
    "upsample 9": text('y = Upsample <mode = "nearest"> (x, s)', 9, s=scales(1, 1, 2, 1.6)),
    "upsample 9, linear": text('y = Upsample <mode = "linear"> (x, s)', 9, s=scales(1, 1, 2, 1.6)),
    "resize 10": text('y = Resize <mode = "linear"> (x, s)', 10, s=scales(1, 1, 2, 1.5)),
    "resize 10, nearest": text('y = Resize <mode = "nearest"> (x, s)', 10, s=scales(1, 1, 0.6, 1.7)),
    "resize 13, ties": text(
        'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , s)',
        13, s=scales(1, 1, 1.6, 1.6),
    ),
    "resize 13, one row": text(
        'y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (x, , , s)',
        13, s=np.array([1, 4, 1, 5]),
    ),
    "slice 9": text("y = Slice <axes = [2, -1], starts = [1, -6], ends = [-1, 9999]> (x)", 9),
    "softmax 11": text("y = Softmax <axis = 1> (x)", 11),
    "pad 9": text("y = Pad <pads = [0, 0, 1, 2, 0, 0, 3, 0], value = 1.5> (x)", 9),
    "gemm 7": text(
        "f = Flatten (x) g = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (f, w, c) y = Unsqueeze <axes = [0, 3]> (g)", 7,
        w=normal(5, 396), c=normal(1, 5),
    ),
    "batch normalization 7": text(
        "c = Conv <pads = [0, 1, 2, 1]> (x, w) y = BatchNormalization (c, s, t, s, v)", 7,
        w=normal(6, 4, 3, 3), s=normal(6), t=normal(6), v=np.abs(normal(6)) + 0.5,
    ),
    "clip 9": text("y = Clip <max = 0.5> (x)", 9),
    "pad 18": text("y = Pad (x, p, v, a)", 18, p=np.array([1, 2, 0, 1]), v=np.array(0.5, "float32"), a=np.array([-1, 2])),
    "reduce 18": text("y = ReduceLogSumExp (x, a)", 18, a=np.array([-1, 1])),
    "sparse weight": sparse(),
    "names": odd_names(),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_as_onnx_runtime(name: str, tmp_path: Path) -> None:
    proto, x = FORMS[name], normal(1, 4, 9, 11)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": x})
    model = from_onnx(proto)
    np.testing.assert_allclose(model.run(x)[0], wanted, rtol=1e-5, atol=1e-5)
    if "size" in name or "sample" in name:
        built = tvmcompress.build(model, "x86", tmp_path, tuning_log=False)
        np.testing.assert_allclose(built.run([x])[0], wanted, rtol=1e-5, atol=1e-5)
