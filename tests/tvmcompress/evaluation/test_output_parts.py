"""Parts of an output that quantization loses are named, in Python and on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser

import tvmcompress

from ..cli.running import run

# The second output keeps the join in integers, where the scores are a few steps of the boxes' scale.
_HEAD = """
<ir_version: 8, opset_import: ["" : 17]>
head (float[1,3,6,6] x) => (float[1,10,6,6] found, float[1,2,6,6] choice)
<float[4,3,1,1] wb, float[6,3,1,1] ws, float[2,10,1,1] wc, float gain = {640.0}>
{
    boxes = Conv (x, wb)
    inside = Sigmoid (boxes)
    pixels = Mul (inside, gain)
    logits = Conv (x, ws)
    scores = Sigmoid (logits)
    found = Concat <axis = 1> (pixels, scores)
    choice = Conv (found, wc)
}
"""


def test_lost_scores_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(_HEAD)
    for name, shape in (("wb", (4, 3, 1, 1)), ("ws", (6, 3, 1, 1)), ("wc", (2, 10, 1, 1))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape).astype("float32"), name))
    onnx.save(proto, tmp_path / "head.onnx")
    x = rng.standard_normal((24, 3, 6, 6)).astype("float32")
    np.savez(tmp_path / "calib.npz", x=x)

    model = tvmcompress.load(tmp_path / "head.onnx")
    result = tvmcompress.compress(model, x, quantize="int8")
    poor = [remark for remark in result.remarks if remark.pass_name == "output parts"]
    wanted, found = (which.run(x)[0][:, 4:].astype("float64") for which in (model, result.model))
    ratio = 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum())
    assert [remark.subject for remark in poor] == ["found"]
    assert f"{ratio:.1f} dB" in poor[0].message
    assert not any(r.pass_name == "output parts" for r in tvmcompress.compress(model, x, quantize="int16x8").remarks)

    said = run(
        "compress", tmp_path / "head.onnx", "--calib", tmp_path / "calib.npz", "--quantize", "int8", "-o", tmp_path / "out"
    )
    assert said.code == 0
    assert "Warning: found:" in said.err
    assert f"{ratio:.1f} dB" in said.err


# Nothing is joined: one convolution gives boxes and scores.
_TRANSPOSED = """
<ir_version: 8, opset_import: ["" : 17]>
head (float[1,3,6,6] x) => (float[1,36,6] found)
<float[6,3,1,1] w, float[6] b, int64[3] flat = {1, 6, 36}>
{
    mixed = Conv (x, w, b)
    rows = Reshape (mixed, flat)
    found = Transpose <perm = [0, 2, 1]> (rows)
}
"""


def test_lost_channels_are_named_without_a_join() -> None:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(_TRANSPOSED)
    weight = rng.standard_normal((6, 3, 1, 1)).astype("float32")
    weight[:4] *= 500
    for name, value in (("w", weight), ("b", np.zeros(6, "float32"))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model = tvmcompress.importing.from_onnx(proto)
    x = rng.standard_normal((24, 3, 6, 6)).astype("float32")
    (poor,) = (r for r in tvmcompress.compress(model, x, quantize="int8").remarks if r.pass_name == "output parts")
    assert poor.subject == "found"
    assert poor.message.startswith("2 of 6 slices along axis 2 (")
    assert not any(r.pass_name == "output parts" for r in tvmcompress.compress(model, x, quantize="int16x8").remarks)
