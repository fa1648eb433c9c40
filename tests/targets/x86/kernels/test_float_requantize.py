"""Requantization by products in float32: every sum has the result of the definition, and the intrinsics compute it."""

# mypy: ignore-errors

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.s_tir import Schedule

from tests.targets.x86.kernels.test_kernels import CPUS, Layer, check
from tvmcompress.passes._tvm import te, tvm
from tvmcompress.passes.integer import ops
from tvmcompress.passes.integer.requantize import requantize
from tvmcompress.targets.x86.host import cpu_features, resolve_cpu, tvm_target
from tvmcompress.targets.x86.kernels.exact_factors import FLOAT, FLOAT_SIGNED, float_operands
from tvmcompress.targets.x86.kernels.float_requantize import NEAREST, float_requantized
from tvmcompress.targets.x86.lower import lower, prim_funcs

_CHANNELS = 16


def attributes(zero, low, high, rounding, form=None):
    return SimpleNamespace(rounding=rounding, output_zero_point=zero, qmin=low, qmax=high, wide=form)


def by_lanes(array):
    """(parts, O) of (O / lanes, parts, lanes)."""
    return array.transpose(1, 0, 2).reshape(array.shape[1], -1)


def nearest(operands, acc):
    """What the kernel computes of sums int64 (N, O), before they are clipped."""
    added, factors = by_lanes(operands.added), by_lanes(operands.factor)
    value = (acc + added[0]).astype("int32").astype("float32")  # sums are modulo 2**32
    total = np.broadcast_to(operands.offset, value.shape)
    if operands.form == FLOAT_SIGNED:
        total = np.copysign(total, value)
    for factor in factors[::-1]:
        # 64 bits hold the product, and the sum to within far less than what is left off float32.
        total = (value.astype(np.longdouble) * factor + total).astype("float32")
    return np.rint(total).astype("int64") + (added[1] if len(added) > 1 else 0)


def layer(random, right, gain, small):
    """Weights, biases and factors of channels; of the last ones what is left when training has given them up."""
    weight = random.integers(-128, 128, (_CHANNELS, small)).astype("int8")
    bias = random.integers(-(2**12), 2**12, _CHANNELS).astype("int32")
    multiplier = random.integers(2**30, 2**31, _CHANNELS).astype("int32")
    shift = (-right + random.integers(-gain, gain + 1, _CHANNELS)).astype("int32")
    weight[-2:], bias[-2:], shift[-2:] = 0, [2**28, -(2**28)], [-27, -28]
    return weight, bias, multiplier, np.minimum(shift, 0)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    zero=st.integers(-128, 127),
    low=st.sampled_from(["least", "zero", "above"]),
    rounding=st.sampled_from(["double", "single"]),
    right=st.integers(1, 9),
    gain=st.integers(0, 2),
    offset=st.sampled_from([0, 128]),
    lanes=st.sampled_from([8, 16]),
)
def test_every_sum_has_the_result_of_the_definition(seed, zero, low, rounding, right, gain, offset, lanes) -> None:
    random = np.random.default_rng(seed)
    weight, bias, multiplier, shift = layer(random, right, gain, 3)
    folded = (bias - offset * weight.astype("int64").sum(1)).astype("int32")
    attrs = attributes(zero, {"least": -128, "zero": zero, "above": min(zero + 3, 127)}[low], 127, rounding)
    operands = float_operands(weight, bias, folded, multiplier, shift, attrs, lanes)
    if operands is None:
        return
    assert operands.form == (FLOAT if rounding == "single" or attrs.qmin >= zero else FLOAT_SIGNED)
    largest = 255 * np.abs(weight.astype("int64")).sum(1)
    span = int(largest.max())
    x = bias + np.clip(np.arange(-span, span + 1)[:, None], -largest, largest)
    expected = requantize(x, multiplier, shift, zero, attrs.qmin, attrs.qmax, rounding)
    np.testing.assert_array_equal(np.clip(nearest(operands, x - folded), attrs.qmin, attrs.qmax), expected)


def forms_found(right, rounding, low):
    found = set()
    for seed in range(8):
        weight, bias, multiplier, shift = layer(np.random.default_rng(seed), right, 1, 200)
        operands = float_operands(weight, bias, bias, multiplier, shift, attributes(-5, low, 127, rounding), 8)
        found.add(None if operands is None else (operands.form, operands.added.shape[1], operands.factor.shape[1]))
    return found


def test_layers_take_as_few_instructions_as_are_exact() -> None:
    assert forms_found(8, "double", -5) == {(FLOAT, 1, 1)}
    assert forms_found(8, "double", -128) == {(FLOAT_SIGNED, 2, 1)}
    assert forms_found(10, "double", -5) == {(FLOAT, 1, 1), (FLOAT, 2, 1), (FLOAT, 2, 2)}
    assert (FLOAT_SIGNED, 2, 2) in forms_found(10, "double", -128)
    assert forms_found(12, "double", -5) == {None}  # steps too close together for float32


def test_what_float32_is_not_for() -> None:
    weight, bias, multiplier, shift = layer(np.random.default_rng(0), 5, 0, 3)
    attrs = attributes(-5, -5, 127, "double")
    assert float_operands(weight, bias, bias, multiplier, shift, attrs, 8) is not None
    assert float_operands(weight, bias, bias, multiplier, shift + 28, attrs, 8) is None  # to the left
    assert float_operands(weight[:12], bias[:12], bias[:12], multiplier[:12], shift[:12], attrs, 8) is None
    assert float_operands(weight, bias, bias, multiplier, shift, attributes(-5, -5, 127, "reduced"), 8) is None
    heavy = np.full((_CHANNELS, 1 << 17), 127, "int8")
    assert float_operands(heavy, bias, bias, multiplier, shift, attrs, 8) is None  # sums may leave int32


@pytest.mark.parametrize("cpu", [CPUS[0], CPUS[2]])
@pytest.mark.parametrize("key", NEAREST)
def test_intrinsics_compute_what_they_take_the_place_of(cpu, key) -> None:
    form, terms, factors, lanes = key
    if lanes == 16 and "avx512f" not in cpu_features(cpu):
        pytest.skip("registers of 512 bits")
    random, blocks = np.random.default_rng(0), 2
    acc = random.integers(-(2**18), 2**18, (200, blocks * lanes)).astype("int32")
    added = random.integers(-100, 100, (blocks, terms, lanes)).astype("int32")
    acc[:9] = np.arange(-4, 5)[:, None] - by_lanes(added)[0]  # both signs of small sums, and none
    factor = random.uniform(1e-4, 1e-3, (blocks, factors, lanes)).astype("float32")
    factor[:, 1:] *= 2.0**-24
    offset = random.uniform(0.4, 0.6, blocks * lanes).astype("float32")
    given = [acc, added, factor, offset]
    inputs = [te.placeholder(x.shape, x.dtype.name, name=f"x{index}") for index, x in enumerate(given)]
    result = float_requantized(*inputs, attributes(0, -128, 127, "double", form))
    schedule = Schedule(tvm.IRModule({"main": te.create_prim_func([*inputs, result]).with_attr("global_symbol", "main")}))
    loop = schedule.split(schedule.get_loops(schedule.get_sblock("high"))[-1], [None, lanes])[1]
    plain = schedule.mod
    schedule.tensorize(loop, NEAREST[key])
    expected = np.clip(nearest(SimpleNamespace(form=form, added=added, factor=factor, offset=offset), acc), -128, 127)
    assert len(set(expected.ravel().tolist())) > 200
    for mod in (plain, schedule.mod):
        tensors = [tvm.runtime.tensor(x) for x in (*given, np.zeros(acc.shape, "int8"))]
        tvm.tirx.build(mod, target=tvm_target(cpu, 1))["main"](*tensors)
        np.testing.assert_array_equal(tensors[-1].numpy(), expected)


@pytest.mark.parametrize("cpu", CPUS[:5])
@pytest.mark.parametrize("rounding", ["double", "single"])
@pytest.mark.parametrize("low", [-128, -7])
@pytest.mark.parametrize("kind", ["conv", "filtered", "depthwise", "dense"])
def test_kernels_that_take_it(cpu, rounding, low, kind) -> None:
    made = Layer({"dense": (5, 16), "filtered": (1, 8, 8, 16)}.get(kind, (1, 5, 6, 16)), 1)
    shapes = {"depthwise": (1, 3, 3, 16), "dense": (24, 16)}
    make = {"depthwise": ops.qdepthwise, "dense": ops.qdense}.get(kind, ops.qconv2d)
    channels, depth = {"dense": (24, 16), "depthwise": (16, 9)}.get(kind, (16, 144))
    operands, max_shift = made.operands(shapes.get(kind, (16, 3, 3, 16)), channels, depth, rounding, gain=4.0)
    options = {"input_zero_point": -3, "output_zero_point": -7, "qmin": low, "rounding": rounding, "max_shift": max_shift}
    if kind != "dense":
        options.update(padding=(1, 1, 1, 1), strides=(1, 1) if kind == "filtered" else (2, 2))
    mod = made.finish(make(made.x, *operands, **options))
    features = cpu_features(resolve_cpu(cpu))
    functions = prim_funcs(lower(mod, features)).values()
    taken = any(str(param.ty.dtype) == "float32" for func in functions for param in func.params)
    assert taken == ("avx2" in features)
    check(made, mod, cpu)
