"""Normalizations with gains far apart: in integers each channel keeps its values, for what reads them weighs them back."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from tvmcompress import compress
from tvmcompress.importing import from_onnx

_CHANNELS = 16
_IMAGE, _ROWS = "float[1,16,6,6] x) => (float[1,8,6,6] y)", "float[1,10,16] x) => (float[1,10,8] y)"
_NETS = {
    "layer": _ROWS + "{ n = LayerNormalization <axis = -1> (x, g, b)  y = MatMul (n, w) }",
    "batch": _IMAGE + "{ n = BatchNormalization (x, g, b, b, one)  r = Relu (n)  y = Conv (r, w) }",
    "instance": _IMAGE + "{ n = InstanceNormalization (x, g, b)  r = Relu (n)  y = Conv (r, w) }",
    "scaled": _ROWS + "{ n = Mul (x, g)  y = MatMul (n, w) }",
}


@pytest.mark.parametrize("kind", _NETS)
def test_gains_far_apart(kind: str) -> None:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> net ({_NETS[kind]}')
    gains = 10.0 ** rng.uniform(-2, 2, _CHANNELS)
    weight = rng.standard_normal((8, _CHANNELS)) / gains
    shaped = weight.T if "MatMul" in _NETS[kind] else weight[:, :, None, None]
    values = {"g": gains, "b": gains * rng.normal(size=_CHANNELS) / 5, "one": np.ones(_CHANNELS), "w": shaped}
    for name, value in values.items():
        if any(name in node.input for node in proto.graph.node):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(value.astype("float32"), name))
    model = from_onnx(proto)
    x = rng.standard_normal((32, *model.inputs[0].shape[1:])).astype("float32")
    wanted = model.run(x)[0]

    def ratio(**options: object) -> float:
        found = compress(model, x, quantize={"precision": "int8", **options}).model.run(x)[0]
        return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))

    assert ratio() > 30
    assert ratio(repair=[]) < 10
