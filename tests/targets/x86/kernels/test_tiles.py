"""Convolutions on the tiles of AMX: the bytes of the reference where this machine has them, compiled everywhere."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tests.targets.x86.kernels.test_kernels import CPUS, TILES, Layer, check, kernel_names
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.integer import ops
from tvmcompress.targets.object_code import object_code
from tvmcompress.targets.x86 import host
from tvmcompress.targets.x86.kernels import tiles
from tvmcompress.targets.x86.kernels.tiles import Shape, pack_tiles
from tvmcompress.targets.x86.lower import lower, prim_funcs

# Input, weights, strides, padding: whole tiles, overlapping ones down and across, one block of channels, one tile alone, rows
# whose runs fill no tile, borders of different widths, weights that come before positions in the loops.
CASES = {
    "whole": ((1, 8, 8, 64), (64, 3, 3, 64), (1, 1), (1, 1, 1, 1)),
    "overlapping": ((1, 9, 37, 16), (48, 3, 3, 16), (1, 1), (1, 1, 1, 1)),
    "narrow": ((1, 7, 7, 128), (32, 3, 3, 128), (1, 1), (1, 1, 1, 1)),
    "one block": ((1, 12, 30, 32), (16, 1, 1, 32), (1, 1), (0, 0, 0, 0)),
    "one tile": ((1, 1, 9, 32), (16, 1, 1, 32), (1, 1), (0, 0, 0, 0)),
    "strides": ((1, 13, 29, 24), (80, 3, 2, 24), (2, 2), (0, 1, 2, 1)),
    "large weights": ((1, 3, 6, 512), (160, 2, 2, 512), (1, 1), (0, 0, 1, 1)),
}


@pytest.fixture(autouse=True)
def small_layers(monkeypatch) -> None:
    """On tiles, though they would take less time without."""
    monkeypatch.setattr(tiles, "_LEAST_SUM", 1)
    monkeypatch.setattr(tiles, "_LEAST_PRODUCTS", 1)


def made(case, rounding="double", gain=1.0):
    size, weight, strides, padding = CASES[case]
    layer = Layer(size, 1)
    operands, max_shift = layer.operands(weight, weight[0], np.prod(weight[1:]), rounding, gain)
    options = {"strides": strides, "padding": padding, "max_shift": max_shift, "rounding": rounding}
    call = ops.qconv2d(layer.x, *operands, input_zero_point=-3, output_zero_point=4, qmin=-100, qmax=120, **options)
    return layer, layer.finish(call)


@pytest.mark.parametrize("cpu", CPUS[-1:])
@pytest.mark.parametrize("case", CASES)
def test_the_bytes_of_the_reference(cpu, case) -> None:
    layer, mod = made(case)
    expected = check(layer, mod, cpu)
    assert np.unique(expected).size > 50


@pytest.mark.parametrize("cpu", CPUS[-1:])
@pytest.mark.parametrize(("rounding", "gain"), [("single", 1.0), ("double", 400.0)])
def test_other_roundings(cpu, rounding, gain) -> None:
    layer, mod = made("overlapping", rounding, gain)
    check(layer, mod, cpu)


@pytest.mark.parametrize("case", CASES)
def test_they_compile_on_every_machine(case) -> None:
    _, mod = made(case)
    features = host.cpu_features(TILES)
    assert kernel_names(mod, features) == ["x86_tile_conv2d"]
    without = "x86_qwinograd" if case in ("whole", "narrow") else "x86_qconv2d"
    assert kernel_names(mod, host.cpu_features("x86-64-v4,+avx512vnni")) == [without]
    (func,) = (func for name, func in prim_funcs(lower(mod, features)).items() if name.startswith("x86_tile"))
    code = object_code(
        tvm.tirx.build(tvm.IRModule({"layer": func.with_attr("global_symbol", "layer")}), target=host.tvm_target(TILES, 1))
    )
    assert b"\x5e" in code  # the last byte of the opcode of tdpbusd


def test_tiles_that_would_be_nearly_empty_are_not_used() -> None:
    assert not Shape((32, 32), 3, (32, 32), 16, (3, 3), (1, 1), (1, 1, 1, 1)).pays
    assert not Shape((4, 4), 64, (4, 4), 64, (3, 3), (1, 1), (1, 1, 1, 1)).pays
    assert not Shape((32, 32), 64, (32, 32), 24, (3, 3), (1, 1), (1, 1, 1, 1)).pays
    assert Shape((32, 32), 16, (32, 32), 16, (3, 3), (1, 1), (1, 1, 1, 1)).pays


def test_short_sums_are_left_to_other_products(monkeypatch) -> None:
    layer = Shape((56, 56), 24, (56, 56), 144, (1, 1), (1, 1), (0, 0, 0, 0))
    assert layer.pays
    assert layer.products == 56 * 56 * 24 * 144
    monkeypatch.setattr(tiles, "_LEAST_SUM", 96)
    assert not layer.pays


def test_tiles_of_weights() -> None:
    random = np.random.default_rng(0)
    weight, bias = random.integers(-128, 128, (32, 2, 3, 30)).astype("int8"), random.integers(-9, 9, 32).astype("int32")
    packed, folded = pack_tiles(weight, bias, -5)
    assert packed.shape == (2, 2, 2, 16, 64)
    run = np.zeros((32, 2, 128), "int64")
    run[:, :, :90] = weight.reshape(32, 2, 90)
    for o, row, step in random.integers(0, (32, 2, 128), (200, 3)):
        tile, place = divmod(int(step), 64)
        assert packed[o // 16, row, tile, place // 4, o % 16 * 4 + place % 4] == run[o, row, step]
    np.testing.assert_array_equal(folded, bias - 123 * weight.astype("int64").sum((1, 2, 3)))
