"""Integer kernels of x86: byte for byte what the NumPy reference computes, on every instruction set of this machine."""

# mypy: ignore-errors

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.integer import ops, quantize_multipliers
from tvmcompress.passes.integer.registry import is_integer_op
from tvmcompress.targets.x86 import host
from tvmcompress.targets.x86.compile import compile_module
from tvmcompress.targets.x86.kernels.intrinsics import (
    DOTS,
    MADD8,
    MADD16,
    MADDUBS8,
    MADDUBS16,
    VNNI8,
    VNNI16,
    best_dot,
    fits_int16,
)
from tvmcompress.targets.x86.kernels.requantize import shifts_simply
from tvmcompress.targets.x86.kernels.select import select_kernels
from tvmcompress.targets.x86.lower import call_sites, constant_arguments, lower, prim_funcs, workload
from tvmcompress.targets.x86.tuning import X86Tuning

NATIVE = host.cpu_features(host.host_cpu())
# Every product that there is, on whatever machine this runs, as far as it has the instructions.
TILES = "x86-64-v4,+avx512vnni,+amx-int8,+amx-tile"
SETS = ["x86-64-v3", "x86-64-v3,+avxvnni", "x86-64-v4", "x86-64-v4,+avx512vnni", "x86-64-v2", TILES]
OFFERED = host.kernel_features(Path("/proc/cpuinfo").read_text()) or NATIVE
if not host.tiles_granted():
    OFFERED -= {"amx-int8", "amx-tile"}
CPUS = [
    pytest.param(cpu, marks=pytest.mark.skipif(not host.cpu_features(cpu) <= OFFERED, reason=f"this machine is no {cpu}"))
    for cpu in SETS
]


class Layer:
    """A module of one integer layer with random constants that use the whole range of the output."""

    def __init__(self, shape, seed):
        self.random = np.random.default_rng(seed)
        self.x = relax.Var("x", relax.TensorType(shape, "int8"))
        self.params, self.vars = {}, []

    def param(self, name, value):
        var = relax.Var(name, relax.TensorType(value.shape, value.dtype.name))
        self.params[name] = value
        self.vars.append(var)
        return var

    def operands(self, weight_shape, channels, depth, rounding, gain=1.0):
        weight = self.random.integers(-128, 128, weight_shape).astype("int8")
        bias = self.random.integers(-3000, 3000, channels).astype("int32")
        factors = gain * self.random.uniform(0.5, 1.5, channels) / (80 * np.sqrt(depth))
        multiplier, shift = quantize_multipliers(factors, rounding)
        named = {"weight": weight, "bias": bias, "multiplier": multiplier, "shift": shift}
        return [self.param(name, value) for name, value in named.items()], int(shift.max())

    def finish(self, call):
        builder = relax.BlockBuilder()
        normal = builder.normalize(call)
        out = relax.Var("out", normal.ty)
        body = relax.SeqExpr([relax.DataflowBlock([relax.VarBinding(out, normal)])], out)
        attrs = tvm.ir.make_node("ir.DictAttrs", num_input=1, global_symbol="main")
        func = relax.Function([self.x, *self.vars], body, normal.ty, True, attrs)
        return attach_params(tvm.IRModule({"main": func}), self.params)

    def sample(self):
        return self.random.integers(-128, 128, [int(dim) for dim in self.x.ty.shape]).astype("int8")


def check(layer, mod, cpu):
    """Compile, and compare with the reference, which is returned."""
    x = layer.sample()
    compiled = compile_module(mod, cpu)
    assert not compiled.schedules.given_up
    machine = relax.VirtualMachine(compiled.executable, tvm.cpu())
    got = machine["main"](tvm.runtime.tensor(x)).numpy()
    (expected,) = run(mod, [x])
    assert got.dtype == np.int8
    np.testing.assert_array_equal(got, expected)
    return expected


def kernel_names(mod, features):
    chosen = select_kernels(mod, features)
    return [value.op.name.split(".")[1] for _, value in bindings(chosen["main"]) if is_integer_op(value)]


convolutions = st.fixed_dictionaries(
    {
        "size": st.tuples(st.integers(1, 7), st.integers(1, 9)),
        "channels": st.sampled_from([1, 2, 3, 4, 5, 8, 12, 16]),
        "out": st.sampled_from([1, 3, 8, 10, 16, 24, 32, 40]),
        "kernel": st.tuples(st.integers(1, 4), st.integers(1, 3)),
        "strides": st.tuples(st.integers(1, 2), st.integers(1, 3)),
        "padding": st.tuples(*[st.integers(0, 2)] * 4),
        "dilation": st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)]),
        "zero": st.sampled_from([-128, -3, 0, 127]),
        "rounding": st.sampled_from(["double", "single"]),
        "limits": st.sampled_from([(-128, 127), (-128, 40), (-20, 127)]),
        "seed": st.integers(0, 9),
    }
)


def fits(c):
    reach = [(k - 1) * d + 1 for k, d in zip(c["kernel"], c["dilation"])]
    padded = (c["size"][0] + c["padding"][0] + c["padding"][2], c["size"][1] + c["padding"][1] + c["padding"][3])
    return padded[0] >= reach[0] and padded[1] >= reach[1]


@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=convolutions.filter(fits))
def test_convolution(cpu, case) -> None:
    layer = Layer((1, *case["size"], case["channels"]), case["seed"])
    shape = (case["out"], *case["kernel"], case["channels"])
    operands, max_shift = layer.operands(shape, case["out"], np.prod(shape[1:]), case["rounding"])
    call = ops.qconv2d(
        layer.x,
        *operands,
        strides=case["strides"],
        padding=case["padding"],
        dilation=case["dilation"],
        input_zero_point=case["zero"],
        output_zero_point=-7,
        qmin=case["limits"][0],
        qmax=case["limits"][1],
        rounding=case["rounding"],
        max_shift=max_shift,
    )
    check(layer, layer.finish(call), cpu)


@pytest.mark.parametrize("cpu", ["x86-64", *SETS])
def test_every_set_compiles_on_every_machine(cpu) -> None:
    """None of its kernels is given up for generic code; those that this machine can run are compared above and below."""
    for shape, call in (
        ((32, 3, 3, 32), partial(ops.qconv2d, padding=(1, 1, 1, 1))),
        ((1, 3, 3, 32), partial(ops.qdepthwise, padding=(1, 1, 1, 1))),
        ((24, 1, 1, 32), ops.qconv2d),
    ):
        layer = Layer((1, 6, 6, 32), 3)
        channels = 32 if shape[0] == 1 else shape[0]
        operands, most = layer.operands(shape, channels, np.prod(shape[1:]), "double")
        made = call(layer.x, *operands, input_zero_point=3, output_zero_point=-7, max_shift=most)
        schedules = compile_module(layer.finish(made), cpu).schedules
        assert not schedules.given_up
        assert not schedules.unscheduled


@pytest.mark.parametrize("cpu", ["x86-64-v2", "x86-64-v3", "alderlake", "znver4"])
@pytest.mark.parametrize("zero", [-128, 5, 127])
def test_borders_of_depthwise_whatever_this_machine_has(cpu, zero) -> None:
    """What kernels of each instruction set mean, computed without their instructions."""
    layer = Layer((1, 4, 5, 16), 0)
    operands, max_shift = layer.operands((1, 3, 3, 16), 16, 9, "double")
    call = ops.qdepthwise(
        layer.x, *operands, padding=(1, 2, 2, 1), input_zero_point=zero, output_zero_point=-7, max_shift=max_shift
    )
    mod, x = layer.finish(call), layer.sample()
    features = host.cpu_features(cpu)
    assert kernel_names(mod, features) == ["x86_qdepthwise"]
    target = host.tvm_target("x86-64")
    with target:
        machine = relax.VirtualMachine(relax.build(lower(mod, features), target), tvm.cpu())
    np.testing.assert_array_equal(machine["main"](tvm.runtime.tensor(x)).numpy(), run(mod, [x])[0])


@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=convolutions.filter(fits))
def test_depthwise(cpu, case) -> None:
    channels = {1: 1, 2: 8, 3: 13, 4: 16, 5: 24, 8: 32, 12: 48, 16: 64}[case["channels"]]
    layer = Layer((1, *case["size"], channels), case["seed"])
    kernel = (case["kernel"][0] + (case["seed"] % 2) * 3, case["kernel"][1])
    padding = (case["padding"][0] + 3, *case["padding"][1:])
    operands, max_shift = layer.operands((1, *kernel, channels), channels, np.prod(kernel), case["rounding"])
    call = ops.qdepthwise(
        layer.x,
        *operands,
        strides=case["strides"],
        padding=(padding[0], padding[1], padding[2] + 6, padding[3]),
        dilation=case["dilation"],
        input_zero_point=case["zero"],
        output_zero_point=-7,
        qmin=case["limits"][0],
        qmax=case["limits"][1],
        rounding=case["rounding"],
        max_shift=max_shift,
    )
    check(layer, layer.finish(call), cpu)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(("samples", "k", "o"), [((1,), 7, 2), ((1,), 64, 10), ((3,), 33, 16), ((1, 7), 128, 48)])
def test_dense(cpu, samples, k, o) -> None:
    layer = Layer((*samples, k), k)
    operands, max_shift = layer.operands((o, k), o, k, "double")
    call = ops.qdense(layer.x, *operands, input_zero_point=5, output_zero_point=3, max_shift=max_shift)
    mod = layer.finish(call)
    assert kernel_names(mod, host.cpu_features(cpu)) == ["x86_qconv2d"]
    check(layer, mod, cpu)


@pytest.mark.parametrize("gain", [200.0, 800.0])
def test_factors_above_one_half_take_the_general_form(gain) -> None:
    layer = Layer((1, 4, 4, 8), 0)
    operands, max_shift = layer.operands((8, 1, 1, 8), 8, 8, "double", gain)
    assert max_shift >= 0
    assert not shifts_simply(layer.params["weight"], layer.params["bias"], layer.params["shift"], "double")
    call = ops.qconv2d(layer.x, *operands, input_zero_point=1, output_zero_point=0, max_shift=max_shift)
    check(layer, layer.finish(call), "x86-64-v3")


def test_accumulators_that_could_overflow_take_the_general_form() -> None:
    weight, shift = np.full((1, 4), 127, "int8"), np.array([-8], "int32")
    assert shifts_simply(weight, np.array([1000], "int32"), shift, "double")
    assert not shifts_simply(weight, np.array([2**31 - 1], "int32"), shift, "double")
    assert not shifts_simply(weight, np.array([1000], "int32"), np.array([0], "int32"), "double")
    assert not shifts_simply(weight, np.array([1000], "int32"), shift, "single")


def test_whole_range_of_outputs_is_reached() -> None:
    layer = Layer((1, 8, 8, 16), 0)
    operands, max_shift = layer.operands((16, 3, 3, 16), 16, 144, "double")
    padding = (1, 1, 1, 1)
    call = ops.qconv2d(layer.x, *operands, padding=padding, input_zero_point=-3, output_zero_point=0, max_shift=max_shift)
    expected = check(layer, layer.finish(call), "native")
    assert np.unique(expected).size > 200


@pytest.mark.parametrize("kind", ["conv", "depthwise"])
def test_every_candidate_of_the_tuner_is_exact(kind) -> None:
    layer = Layer((1, 3, 6, 32), 0)
    if kind == "conv":
        operands, max_shift = layer.operands((32, 3, 3, 32), 32, 288, "double")
        make = ops.qconv2d
    else:
        operands, max_shift = layer.operands((1, 3, 3, 32), 32, 9, "double")
        make = ops.qdepthwise
    options = {"padding": (1, 1, 1, 1), "input_zero_point": -3, "output_zero_point": 4, "max_shift": max_shift}
    tuning = X86Tuning()
    lowered = tuning.lower(layer.finish(make(layer.x, *operands, **options)))
    (func,) = prim_funcs(lowered).values()
    mod = workload(func)
    (call,) = next(iter(call_sites(lowered).values()))
    constants = constant_arguments(call)
    arguments = [constants.get(index, layer.sample()) for index in range(len(mod["main"].params) - 1)]
    results = []
    space = tuning.choice(mod).space
    for point in [space[0], *space[1 :: max(1, len(space) // 12)]]:
        library = tvm.tirx.build(tuning.schedule(mod, point).mod, target=tuning.target)
        out = tvm.runtime.tensor(np.zeros((1, 3, 6, 32), "int8"))
        getattr(library, "mod", library)["main"](*(tvm.runtime.tensor(value) for value in arguments), out)
        results.append(out.numpy())
    (expected,) = run(layer.finish(make(layer.x, *operands, **options)), [arguments[0]])
    assert len(results) >= 12
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("scales", "zeros", "limits"),
    [
        ((0.02, 0.02, 0.03), (-128, -128, -128), (-128, 127)),
        ((0.9, 0.0004, 0.5), (127, -3, 0), (-128, 127)),
        ((0.01, 0.07, 0.002), (5, -128, 100), (-100, 90)),
    ],
)
def test_addition_of_every_pair(scales, zeros, limits) -> None:
    layer = Layer((1, 256, 256), 0)
    other = relax.Var("other", relax.TensorType((1, 256, 256), "int8"))
    call = ops.qadd(
        layer.x,
        other,
        **ops.add_parameters(*scales),
        input1_zero_point=zeros[0],
        input2_zero_point=zeros[1],
        output_zero_point=zeros[2],
        qmin=limits[0],
        qmax=limits[1],
    )
    layer.vars.append(other)
    layer.params["other"] = np.broadcast_to(np.arange(-128, 128, dtype="int8"), (1, 256, 256)).copy()
    mod = layer.finish(call)
    assert kernel_names(mod, NATIVE) == ["x86_qadd"]
    x = layer.params["other"].transpose(0, 2, 1).copy()
    machine = relax.VirtualMachine(compile_module(mod).executable, tvm.cpu())
    (expected,) = run(mod, [x])
    np.testing.assert_array_equal(machine["main"](tvm.runtime.tensor(x)).numpy(), expected)
    assert np.unique(expected).size > 30


def test_the_widest_instruction_is_chosen() -> None:
    v3, v4 = host.cpu_features("x86-64-v3"), host.cpu_features("znver4")
    assert best_dot(v3, 64) == MADD8
    assert best_dot(v4, 64) == VNNI16
    assert best_dot(v4, 8) == VNNI8
    assert best_dot(host.cpu_features("alderlake"), 64) == VNNI8
    assert len({dot.broadcast for dot in DOTS}) == len(DOTS)


@pytest.mark.parametrize("cpu", [CPUS[0], CPUS[2]])
@pytest.mark.parametrize(("channels", "out", "kernel"), [(8, 16, (3, 3)), (3, 8, (3, 2)), (64, 24, (1, 1))])
def test_products_of_bytes_where_weights_are_small(cpu, channels, out, kernel) -> None:
    layer = Layer((1, 6, 7, channels), 1)
    operands, max_shift = layer.operands((out, *kernel, channels), out, channels * kernel[0] * kernel[1], "single")
    options = {"input_zero_point": -128, "output_zero_point": 0, "max_shift": max_shift, "rounding": "single"}
    mod = layer.finish(ops.qconv2d(layer.x, *operands, **options))
    wide, narrow = (MADD8, MADDUBS8) if cpu == "x86-64-v3" or out % 16 else (MADD16, MADDUBS16)
    assert _dots(mod, cpu) == [wide]
    # Seven bits, and the largest sums that they have.
    layer.params["weight"] = (layer.params["weight"] // 2).clip(-63, 63)
    layer.params["weight"][:3] = 63
    layer.params["weight"][3:5] = -63
    image = np.where(np.arange(channels) % 3 == 2, -5, 127).astype("int8")
    layer.sample = lambda: np.broadcast_to(image, (1, 6, 7, channels)).copy()
    small = layer.finish(ops.qconv2d(layer.x, *operands, **options))
    assert _dots(small, cpu) == [narrow]
    check(layer, small, cpu)
    del layer.sample
    check(layer, small, cpu)


def test_pairs_of_weights_that_vpmaddubsw_would_saturate() -> None:
    def held(*weights):
        return fits_int16(np.array([weights], "int8"))

    assert held(64, 64, -64, -64)
    assert held(127, -128, 1, 127)
    assert not held(64, 65, 0, 0)
    assert not held(0, 0, -128, -1)


def _dots(mod, cpu):
    chosen = select_kernels(mod, host.cpu_features(cpu))
    return [DOTS[int(value.attrs.dot)] for _, value in bindings(chosen["main"]) if is_integer_op(value)]


def test_what_has_no_kernel_keeps_its_definition() -> None:
    layer = Layer((1, 4, 4, 8), 0)
    operands, max_shift = layer.operands((8, 3, 3, 4), 8, 36, "double")
    options = {"padding": (1, 1, 1, 1), "input_zero_point": 0, "output_zero_point": 0, "max_shift": max_shift}
    grouped = layer.finish(ops.qconv2d(layer.x, *operands, groups=2, **options))
    assert kernel_names(grouped, NATIVE) == ["qconv2d"]
    check(layer, grouped, "native")
