"""Operators with definitions of our own: infinite values, and indices out of range."""

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
rows (float[1,3,4] x) => (float[1,3,1] most, float[1,4] least, float[1,3] half)
{
    most = ReduceMax <axes = [2]> (x)
    least = ReduceMin <axes = [1], keepdims = 0> (x)
    twice = Add (x, x)
    half = ReduceMax <axes = [2], keepdims = 0> (twice)
}
"""


@pytest.mark.parametrize("name", ["x86", "cortex-m4"])
def test_infinite_rows(name: str, tmp_path: Path) -> None:
    if get_target(name).missing_tools():
        pytest.skip(f"needs the tools of {name}")
    model = from_onnx(onnx.parser.parse_model(_MODEL))
    x = np.random.default_rng(0).standard_normal((1, 3, 4)).astype("float32")
    x[0, 1], x[0, :, 2] = -np.inf, np.inf
    x[0, 1, 2] = -np.inf
    wanted = [x.max(2, keepdims=True), x.min(1), (x + x).max(2)]
    found = tvmcompress.build(model, name, tmp_path).run([x])
    for value, expected in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("name", ["x86", "cortex-m4"])
def test_remainders_of_infinite_divisors(name: str, tmp_path: Path) -> None:
    if get_target(name).missing_tools():
        pytest.skip(f"needs the tools of {name}")
    text = '<ir_version: 8, opset_import: ["" : 17]> rests (float[6] x, float[6] y) => (float[6] z) { z = Mod (x, y) }'
    model = from_onnx(onnx.parser.parse_model(text))
    x = np.array([5.5, -5.5, 3, -3, 3, 0], "float32")
    y = np.array([2, 2, np.inf, np.inf, -np.inf, np.inf], "float32")
    (found,) = tvmcompress.build(model, name, tmp_path).run([x, y])
    np.testing.assert_array_equal(found, np.mod(x, y))


_LOOKUPS = """
<ir_version: 8, opset_import: ["" : 17]>
lookups (float[2,5] x, int64[2,5] ids, int64[3,2] places) => (float[2,5] picked, float[3] found)
<int64 half = {2}, int64 none = {0}>
{
    masked = Less (half, ids)
    kept = Where (masked, none, ids)
    picked = GatherElements <axis = 1> (x, kept)
    far = Mul (places, half)
    found = GatherND (x, far)
}
"""
_WRITES = """
<ir_version: 8, opset_import: ["" : 17]>
writes (float[2,5] x, int64[2,5] ids, int64[3,2] places, float[3] new) => (float[2,5] put, float[2,5] dropped)
<int64 half = {2}>
{
    outside = Add (ids, half)
    put = ScatterElements <axis = 1> (x, outside, x)
    far = Mul (places, half)
    dropped = ScatterND (x, far, new)
}
"""
_X = np.arange(10, dtype="float32").reshape(2, 5)
_IDS, _PLACES = np.array([[0, 1, 2, 900, 4], [4, 2, 700, 0, 1]]), np.array([[0, 1], [5, 9], [1, 0]])


@pytest.mark.parametrize("name", ["x86", "cortex-m4"])
def test_lookups_out_of_range_stay_inside(name: str, tmp_path: Path) -> None:
    if get_target(name).missing_tools():
        pytest.skip(f"needs the tools of {name}")
    model = from_onnx(onnx.parser.parse_model(_LOOKUPS))
    picked, found = tvmcompress.build(model, name, tmp_path).run([_X, _IDS, _PLACES])
    np.testing.assert_array_equal(picked, np.take_along_axis(_X, np.where(_IDS > 2, 0, _IDS), 1))
    np.testing.assert_array_equal(found, [_X[0, 2], _X[1, 4], _X[1, 0]])


def test_writes_out_of_range_stay_inside(tmp_path: Path) -> None:
    model, new = from_onnx(onnx.parser.parse_model(_WRITES)), np.array([20, 21, 22], "float32")
    put, dropped = tvmcompress.build(model, "x86", tmp_path / "x86").run([_X, _IDS, _PLACES, new])
    assert set(put.ravel()) <= set(_X.ravel())
    wanted = _X.copy()
    wanted[[0, 1, 1], [2, 4, 0]] = new
    np.testing.assert_array_equal(dropped, wanted)
    with pytest.raises(tvmcompress.UserError, match="scatter_elements .*cannot be compiled ahead of time"):
        tvmcompress.build(model, "cortex-m4", tmp_path / "m4")
