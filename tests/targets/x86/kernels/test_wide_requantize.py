"""Requantization from one 64-bit sum: its operands against the definition, its intrinsics, and where it is used."""

# mypy: ignore-errors

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.s_tir import Schedule

from tests.targets.x86.kernels.test_kernels import CPUS, Layer
from tvmcompress.passes._tvm import te, tirx, tvm
from tvmcompress.passes.integer import ops
from tvmcompress.passes.integer.requantize import requantize
from tvmcompress.targets.x86.host import cpu_features, resolve_cpu, tvm_target
from tvmcompress.targets.x86.kernels.intrinsics import HIGH_LANES
from tvmcompress.targets.x86.kernels.wide_requantize import LINEAR, SIGNED, UPPER, wide_operands
from tvmcompress.targets.x86.lower import lower, prim_funcs

_CHANNELS = 16


def attributes(zero, low, high, rounding):
    return SimpleNamespace(rounding=rounding, output_zero_point=zero, qmin=low, qmax=high)


def results(operands, acc):
    """What the kernel computes of sums int64 (N, O), as the module's head says it."""
    r = operands.rounding.transpose(0, 2, 1).reshape(-1)
    sums = acc * operands.multiplier.astype(np.int64) + r
    assert (np.abs(sums.astype(float) - acc.astype(float) * operands.multiplier - r) < 1e5).all()  # within 64 bits
    upper = sums >> 32
    if operands.form == SIGNED:
        upper = upper + acc - (acc < operands.shift[1])
    assert (np.abs(upper) < 2**31).all()
    return upper >> operands.shift[0]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    zero=st.integers(-128, 127),
    low=st.sampled_from(["least", "zero", "above"]),
    rounding=st.sampled_from(["double", "single"]),
    right=st.integers(1, 18),
    offset=st.sampled_from([0, 128]),
    lanes=st.sampled_from(HIGH_LANES),
)
def test_operands_stand_for_the_definition(seed, zero, low, rounding, right, offset, lanes) -> None:
    random = np.random.default_rng(seed)
    weight = random.integers(-128, 128, (_CHANNELS, 40)).astype("int8")
    bias = random.integers(-(2**20), 2**20, _CHANNELS).astype("int32")
    multiplier = random.integers(2**30, 2**31, _CHANNELS).astype("int32")
    multiplier[:2] = [2**30, 2**31 - 1]
    shift = np.full(_CHANNELS, -right, "int32")
    folded = (bias - offset * weight.astype("int64").sum(1)).astype("int32")
    attrs = attributes(zero, {"least": -128, "zero": zero, "above": min(zero + 3, 127)}[low], 127, rounding)
    operands = wide_operands(weight, bias, folded, multiplier, shift, attrs, lanes)
    assert operands.rounding.shape == (_CHANNELS // lanes, 2, lanes // 2)
    assert operands.form == (LINEAR if rounding == "single" or attrs.qmin >= zero else SIGNED)
    # Around every step of the result, where a tie or a rounding shows, and anywhere.
    steps = (np.arange(-257, 258)[:, None] + 0.5) * 2.0 ** (31 + right) / multiplier
    near = [np.rint(steps).astype("int64") + by for by in range(-3, 4)]
    largest = 255 * np.abs(weight.astype("int64")).sum(1)
    x = np.concatenate([*near, random.integers(-largest, largest + 1, (300, _CHANNELS)), [np.zeros(_CHANNELS, "int64")]])
    x = np.clip(x, bias - largest, bias + largest)
    expected = requantize(x, multiplier, shift, zero, attrs.qmin, attrs.qmax, rounding)
    np.testing.assert_array_equal(np.clip(results(operands, x - folded), attrs.qmin, attrs.qmax), expected)


def test_layers_that_keep_their_form() -> None:
    weight, bias = np.ones((_CHANNELS, 4), "int8"), np.zeros(_CHANNELS, "int32")
    multiplier, shift = np.full(_CHANNELS, 2**30, "int32"), np.full(_CHANNELS, -5, "int32")
    behind_relu, signed = attributes(-128, -128, 127, "double"), attributes(3, -128, 127, "double")

    def form(bias=bias, multiplier=multiplier, shift=shift, attrs=signed, lanes=16):
        operands = wide_operands(weight[: len(bias)], bias, bias, multiplier, shift, attrs, lanes)
        return None if operands is None else operands.form

    assert (form(), form(attrs=behind_relu)) == (SIGNED, LINEAR)
    assert form(bias=bias + 2**29) is None
    assert form(shift=shift - 20, attrs=behind_relu) is form(shift=shift - 23) is None
    assert form(shift=np.append(shift[1:], 0).astype("int32")) is None
    no_factor = np.append(multiplier[1:], 0).astype("int32")
    assert (form(multiplier=no_factor), form(multiplier=no_factor, attrs=behind_relu)) == (None, LINEAR)
    eight = {"bias": bias[:8], "multiplier": multiplier[:8], "shift": shift[:8]}
    assert (form(**eight), form(**eight, lanes=8)) == (None, SIGNED)


@pytest.mark.parametrize("cpu", [CPUS[0], CPUS[2]])
@pytest.mark.parametrize("form", [LINEAR, SIGNED])
@pytest.mark.parametrize("lanes", HIGH_LANES)
def test_upper_halves_of_all_signs_and_sizes(cpu, form, lanes) -> None:
    extremes = np.array([-(2**30), 2**30 - 1, -1, 0, 1, 2**29, -(2**29), 2**16 + 1], "int32")
    values = np.concatenate([extremes, np.random.default_rng(0).integers(-(2**30), 2**30, 120).astype("int32")])
    first, second = (np.ascontiguousarray(grid).reshape(-1, lanes) for grid in np.meshgrid(values, values))
    rounding = np.random.default_rng(1).integers(-(2**60), 2**60, (2, lanes // 2))
    a, b = (te.placeholder(first.shape, "int32", name=name) for name in "ab")
    r = te.placeholder(rounding.shape, "int64", name="r")

    def element(i, j):
        added = a[i, j].astype("int64") * b[i, j].astype("int64") + r[j % 2, j // 2]
        upper = tirx.shift_right(added, tirx.const(32, "int64")).astype("int32")
        return upper + a[i, j] if form == SIGNED else upper

    high = te.compute(first.shape, element, name="high")
    schedule = Schedule(tvm.IRModule({"main": te.create_prim_func([a, b, r, high]).with_attr("global_symbol", "main")}))
    schedule.tensorize(schedule.get_loops(schedule.get_sblock("high"))[-1], UPPER[form, lanes])
    library = tvm.tirx.build(schedule.mod, target=tvm_target(cpu, 1))
    tensors = [tvm.runtime.tensor(x) for x in (first, second, rounding, np.zeros_like(first))]
    library["main"](*tensors)
    added = first.astype("int64") * second + np.tile(rounding.T.reshape(-1), (len(first), 1))
    np.testing.assert_array_equal(tensors[-1].numpy(), (added >> 32) + (first if form == SIGNED else 0))


@pytest.mark.parametrize("cpu", CPUS[:4])
@pytest.mark.parametrize(("channels", "width"), [(32, 6), (50, 6), (32, 17), (40, 6)])
def test_kernels_of_whole_registers_take_it(cpu, channels, width) -> None:
    layer = Layer((1, 5, width, 16), 1)
    operands, max_shift = layer.operands((channels, 1, 1, 16), channels, 16, "double")
    call = ops.qconv2d(layer.x, *operands, input_zero_point=-3, output_zero_point=-7, max_shift=max_shift)
    features = cpu_features(resolve_cpu(cpu))
    functions = prim_funcs(lower(layer.finish(call), features)).values()
    # Rounding in int64, or factors in float32 where those are exact.
    taken = any(str(param.ty.dtype) in ("int64", "float32") for func in functions for param in func.params)
    assert taken == ("avx2" in features)
