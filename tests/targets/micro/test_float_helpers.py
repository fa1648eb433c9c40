"""Doubles and integers of 64 bits beside floats: what no floating-point unit of single precision computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import tvmcompress
from tvmcompress.importing import from_onnx
from tvmcompress.targets import get_target

_MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
numbers (float[1,4] x, double[1,4] d) => (
    int64[1,4] whole, uint64[1,4] natural, float[1,4] back, double[1,4] wide, double[1,4] sum, double[1,4] product,
    bool[1,4] less, bool[1,4] equal, int32[1,4] short, float[1,4] narrow, double[1,4] again)
{
    whole = Cast <to = 7> (x)
    natural = Cast <to = 13> (x)
    back = Cast <to = 1> (whole)
    wide = Cast <to = 11> (x)
    sum = Add (d, wide)
    quotient = Div (sum, d)
    product = Mul (quotient, d)
    less = Less (d, wide)
    equal = Equal (d, wide)
    short = Cast <to = 6> (d)
    narrow = Cast <to = 1> (product)
    long = Cast <to = 7> (d)
    again = Cast <to = 11> (long)
}
"""


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m7", "cortex-m55"])
def test_library_functions_get_their_arguments(name: str, tmp_path: Path) -> None:
    if get_target(name).missing_tools():
        pytest.skip(f"needs the tools of {name}")
    model = from_onnx(onnx.parser.parse_model(_MODEL))
    x, d = np.array([[1.5, 2.25, 1e10, 0]], "float32"), np.array([[1.5, -2.25, 7, 1e-3]])
    artifact = tvmcompress.build(model, name, tmp_path)
    for value, expected in zip(artifact.run([x, d]), model.run(x, d), strict=True):
        np.testing.assert_array_equal(value, expected)
    assert "model_floats.c" in (tmp_path / "CMakeLists.txt").read_text()


def test_constants_of_64_bits(tmp_path: Path) -> None:
    """Each as it is: a double is not rounded, and the ends of the ranges have literals."""
    if get_target("cortex-m4").missing_tools():
        pytest.skip("needs the tools of cortex-m4")
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    sums (double[1,2] d, int64[1,2] i, uint64[1,2] u) => (double[1,2] a, int64[1,2] b, bool[1,2] c)
    <double[1,2] third = {0.3333333333333333, 1e300}, int64[1,2] low = {-9223372036854775808, 5000000000}>
    { a = Mul (d, third) b = Max (i, low) c = Less (u, high) }
    """
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([[2**64 - 1, 7]], np.uint64), "high"))
    model = from_onnx(proto)
    inputs = [np.array([[1.0, 1]]), np.array([[-(2**63), 1]]), np.array([[2**63, 8]], np.uint64)]
    for value, expected in zip(tvmcompress.build(model, "cortex-m4", tmp_path).run(inputs), model.run(*inputs), strict=True):
        np.testing.assert_array_equal(value, expected)
