"""The Cortex-M kernels against the NumPy reference of the operators, on the emulator, over shapes with every kind of tail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.passes.integer.requantize import requantize
from tvmcompress.targets import get_target
from tvmcompress.targets.kernels.layers import NotRepresentable
from tvmcompress.targets.micro.kernels import legalize, packing, panel, winograd
from tvmcompress.targets.micro.kernels.constant_channels import settle_constant_channels
from tvmcompress.targets.micro.kernels.epilogue import Epilogue
from tvmcompress.targets.micro.kernels.plans import plan_convolution, plan_winograd

RNG = np.random.default_rng(0)
Build = Callable[..., relax.Call]

pytestmark = pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")


def module(build: Build, shapes: list[tuple[int, ...]], params: dict[str, np.ndarray]) -> tvm.IRModule:
    """A module of one operator on int8 inputs."""
    inputs = [relax.Var(f"x{i}", relax.TensorType(shape, "int8")) for i, shape in enumerate(shapes)]
    variables = [relax.Var(name, relax.TensorType(v.shape, v.dtype.name)) for name, v in params.items()]
    builder = relax.BlockBuilder()
    with builder.function("main", [*inputs, *variables], attrs={"num_input": len(inputs)}):
        with builder.dataflow():
            out = builder.emit_output(build(*inputs, *variables))
        builder.emit_func_output(out)
    return attach_params(builder.get(), params)


def channels(count: int, least_shift: int = 6) -> dict[str, np.ndarray]:
    """Bias, multiplier and shift."""
    return {
        "bias": RNG.integers(-4000, 4000, count).astype("int32"),
        "multiplier": RNG.integers(1 << 30, (1 << 31) - 1, count).astype("int32"),
        "shift": -RNG.integers(least_shift, least_shift + 4, count).astype("int32"),
    }


def assert_kernel(mod: tvm.IRModule, name: str, folder: Path, target: str = "cortex-m4") -> None:
    """The kernel `name` is used and gives the bytes of the reference."""
    inputs = [
        RNG.integers(-128, 128, (3, *[int(dim) for dim in var.ty.shape][1:])).astype("int8")
        for var in list(mod["main"].params)[: int(mod["main"].attrs["num_input"])]
    ]
    expected = np.concatenate([run(mod, [x[i : i + 1] for x in inputs])[0] for i in range(3)])
    artifact = get_target(target).build(mod, folder)
    np.testing.assert_array_equal(artifact.run(inputs)[0], expected)
    functions = artifact.measure([x[:1] for x in inputs]).functions
    assert any(name in function for function in functions), functions


CONVOLUTIONS = {
    "3x3": ((9, 10, 8), 12, (3, 3), (1, 1), (1, 1, 1, 1), {}),
    "strided": ((12, 17, 4), 6, (3, 3), (2, 2), (0, 1, 1, 0), {}),
    "odd channels": ((10, 11, 5), 7, (3, 3), (1, 1), (1, 1, 1, 1), {"output_zero_point": 9}),
    "three channels": ((12, 12, 3), 8, (3, 3), (2, 2), (0, 0, 1, 1), {}),
    "one channel": ((13, 6, 1), 5, (5, 4), (2, 2), (2, 1, 2, 2), {"input_zero_point": 83}),
    "pointwise": ((5, 5, 12), 10, (1, 1), (1, 1), (0, 0, 0, 0), {}),
    "pointwise strided": ((8, 8, 8), 4, (1, 1), (2, 2), (0, 0, 0, 0), {}),
    "pointwise odd": ((4, 9, 6), 3, (1, 1), (1, 1), (0, 0, 0, 0), {}),
    "row": ((1, 20, 2), 4, (1, 5), (1, 1), (0, 2, 0, 2), {}),
    "column": ((20, 1, 2), 4, (5, 1), (2, 1), (2, 0, 2, 0), {}),
    "clipped": ((6, 6, 4), 4, (3, 3), (1, 1), (1, 1, 1, 1), {"output_zero_point": 0, "qmin": 0, "qmax": 90}),
    "two pixels": ((1, 2, 4), 4, (1, 1), (1, 1), (0, 0, 0, 0), {}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case: str, tmp_path: Path) -> None:
    (height, width, depth), outputs, kernel, strides, padding, extra = CONVOLUTIONS[case]
    params = {"weight": RNG.integers(-127, 128, (outputs, *kernel, depth)).astype("int8"), **channels(outputs)}
    attrs = {"input_zero_point": -128, "output_zero_point": -128, **extra}
    mod = module(
        lambda *args: ops.qconv2d(*args, strides=strides, padding=padding, **attrs), [(1, height, width, depth)], params
    )
    assert_kernel(mod, "conv2d", tmp_path)


@pytest.mark.parametrize(
    ("size", "outputs", "padding", "extra"),
    [
        ((12, 12, 8), 8, (1, 1, 1, 1), {}),
        ((9, 15, 12), 10, (1, 1, 1, 1), {"input_zero_point": 7, "output_zero_point": -3}),
        ((14, 13, 16), 8, (0, 0, 0, 0), {"qmin": -100, "qmax": 90}),
        ((8, 18, 8), 6, (2, 0, 0, 1), {"rounding": "single"}),
    ],
)
def test_minimal_filtering(
    size: tuple[int, ...], outputs: int, padding: tuple[int, ...], extra: dict[str, object], tmp_path: Path
) -> None:
    params = {"weight": RNG.integers(-127, 128, (outputs, 3, 3, size[2])).astype("int8"), **channels(outputs)}
    if extra.get("rounding") == "single":
        params["shift"] = np.full(outputs, -1, "int32")
        params["multiplier"] = RNG.integers(1 << 22, 1 << 24, outputs).astype("int32")
    attrs = {"input_zero_point": -128, "output_zero_point": -128, **extra}
    mod = module(lambda *args: ops.qconv2d(*args, padding=padding, **attrs), [(1, *size)], params)
    assert_kernel(mod, "conv2d_winograd", tmp_path)


@pytest.mark.parametrize("shifts", [[-3, -9, -2, -17, -6, -30], [-1, -4, -8, -2, -5, -7]])
@pytest.mark.parametrize("kind", ["conv2d", "depthwise", "dense"])
def test_single_rounding_with_shifts_of_their_own(kind: str, shifts: list[int], tmp_path: Path) -> None:
    outputs = 12
    params = channels(outputs)
    params["shift"] = np.resize(np.array(shifts, "int32"), outputs)
    # With the exponent -1 a factor is below 1/4 only if its digits are fewer.
    params["multiplier"] >>= np.where(params["shift"] == -1, 9, 0).astype("int32")
    attrs = {"input_zero_point": -7, "output_zero_point": 5, "rounding": "single"}
    if kind == "dense":
        weight, shape = RNG.integers(-127, 128, (outputs, 48)), (1, 48)
        mod = module(lambda *a: ops.qdense(*a, **attrs), [shape], {"weight": weight.astype("int8"), **params})
    elif kind == "depthwise":
        weight = RNG.integers(-127, 128, (1, 3, 3, outputs)).astype("int8")
        mod = module(
            lambda *a: ops.qdepthwise(*a, padding=(1, 1, 1, 1), **attrs), [(1, 9, 7, outputs)], {"weight": weight, **params}
        )
    else:
        weight = RNG.integers(-127, 128, (outputs, 1, 1, 8)).astype("int8")
        mod = module(lambda *a: ops.qconv2d(*a, **attrs), [(1, 5, 7, 8)], {"weight": weight, **params})
    assert_kernel(mod, kind, tmp_path)


def test_minimal_filtering_by_blocks_of_channels(tmp_path: Path) -> None:
    """Little workspace: weights and inputs are transformed a part at a time. And ample: inputs all at once."""
    conv = panel.Convolution(8, 8, 16, 8, 8, 16, (3, 3), (1, 1), 1, 1, 0, Epilogue("double", 0))
    assert plan_winograd(conv, 1000) is None
    little, ample = plan_winograd(conv, 2400), plan_winograd(conv, 1 << 20)
    assert little is not None
    assert (little.block < 16, little.rows < 8, little.whole) == (True, True, False)
    assert ample is not None
    assert ample.whole
    for plan in (little, ample):
        sizes = winograd.WinogradConvolution(conv, plan).workspaces
        assert sum(sizes.values()) <= (2400 if plan is little else 1 << 20)
    params = {"weight": RNG.integers(-127, 128, (16, 3, 3, 16)).astype("int8"), **channels(16)}
    mod = module(
        lambda *args: ops.qconv2d(*args, padding=(1, 1, 1, 1), input_zero_point=-3, output_zero_point=-128),
        [(1, 8, 8, 16)],
        params,
    )
    with pytest.MonkeyPatch.context() as patch:
        for index, room in enumerate((2400, 1 << 20)):
            patch.setattr(legalize, "plan_winograd", lambda conv, spare, room=room: plan_winograd(conv, room))
            assert_kernel(mod, "conv2d_winograd", tmp_path / str(index))


def test_constant_channels_fit_the_kernels(tmp_path: Path) -> None:
    """A dead channel: weights next to nothing, a bias near 2**30, a scale to match."""
    params = {"weight": RNG.integers(-127, 128, (6, 1, 1, 8)).astype("int8"), **channels(6)}
    params["weight"][1] = 0
    params["weight"][4] = [0, 0, 0, 1, 0, 0, 0, 0]
    params["bias"][[1, 4]] = 1 << 30, -(1 << 30)
    params["shift"][[1, 4]] = -24
    mod = module(
        lambda *args: ops.qconv2d(*args, input_zero_point=-128, output_zero_point=-7), [(1, 3, 3, 8)], params
    )
    assert_kernel(mod, "conv2d", tmp_path)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["double", "single"]), st.integers(0, 2**16))
def test_settled_channels_give_the_same_outputs(rounding: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-2, 3, (8, 3)).astype("int8")
    bias = rng.integers(-(1 << 30), 1 << 30, 8).astype("int32") >> rng.integers(0, 31, 8)
    multiplier = rng.integers(1 << 30, (1 << 31) - 1, 8).astype("int32")
    shift = -rng.integers(1, 30, 8).astype("int32")
    epilogue = Epilogue(rounding, int(rng.integers(-128, 128)), int(rng.integers(-128, 0)), int(rng.integers(0, 128)))
    settled = settle_constant_channels(weights, bias.astype("int32"), multiplier, shift, epilogue)
    x = rng.integers(-128, 128, (3, 50))
    outputs = [
        requantize((w.astype(int) @ x + b[:, None]).T, q, s, epilogue.zero_point, epilogue.qmin, epilogue.qmax, rounding)
        for w, b, q, s in ((weights, bias, multiplier, shift), settled)
    ]
    np.testing.assert_array_equal(*outputs)


def _row(x: relax.Expr) -> relax.Expr:
    """A tensor as the input of a fully connected layer."""
    return relax.BlockBuilder.current().emit(relax.op.reshape(x, (1, -1)))


def random_network(seed: int) -> tvm.IRModule:
    """Layers of random shapes one after another, each of them an output: every template, with every kind of tail."""
    rng = np.random.default_rng(seed)
    params: dict[str, np.ndarray] = {}
    height, width, depth = (int(n) for n in (rng.integers(9, 14), rng.integers(9, 14), 4 * rng.integers(2, 4)))

    def layer(*shape: int, count: int) -> list[relax.Var]:
        number = len(params)
        taps = int(np.prod(shape)) // (1 if shape[0] == 1 else count)
        values = {
            "weight": rng.integers(-127, 128, shape).astype("int8"),
            "bias": rng.integers(-2000, 2000, count).astype("int32"),
            "multiplier": rng.integers(1 << 30, (1 << 31) - 1, count).astype("int32"),
            "shift": np.full(count, -max(2, round(np.log2(60 * np.sqrt(taps)))), "int32"),
        }
        named = {f"{name}{number}": value for name, value in values.items()}
        params.update(named)
        return [relax.Var(name, relax.TensorType(v.shape, v.dtype.name)) for name, v in named.items()]

    x = relax.Var("x", relax.TensorType((1, height, width, depth), "int8"))
    odd = int(2 * rng.integers(2, 6) + 1)
    stride = int(rng.integers(1, 3))
    points = {"input_zero_point": int(rng.integers(-128, 128)), "output_zero_point": int(rng.integers(-128, 128))}
    plans = [
        ("filtered", layer(depth, 3, 3, depth, count=depth)),
        ("wise", layer(1, 3, 3, depth, count=depth)),
        ("wide", layer(12, 1, 5, depth, count=12)),
        ("point", layer(odd, 1, 1, 12, count=odd)),
        ("odd", layer(8, 5, 3, odd, count=8)),
    ]
    # Fully connected layers: few inputs and many, which the template unpacks differently, and a number that it does not take.
    rows, columns = ((size + stride - 1) // stride for size in (height, width))
    few, many, uneven = (int(rng.integers(10, 24)) for _ in range(3))
    plans += [
        ("few", layer(few, depth, count=few)),
        ("many", layer(many, rows * columns * depth, count=many)),
        ("uneven", layer(uneven, odd, count=uneven)),
    ]
    # All outputs of one of them share a scale, as they do where weights are quantized by tensor.
    params[plans[6][1][2].name][:] = 1 << 30
    builder = relax.BlockBuilder()
    variables = [var for _, made in plans for var in made]
    with builder.function("main", [x, *variables], attrs={"num_input": 1}):
        with builder.dataflow():
            first = builder.emit(ops.qconv2d(x, *plans[0][1], padding=(1, 1, 1, 1), **points))
            scales = ops.add_parameters(0.1, 0.07, 0.12)
            added = builder.emit(
                ops.qadd(
                    x,
                    first,
                    input1_zero_point=3,
                    input2_zero_point=points["output_zero_point"],
                    output_zero_point=-9,
                    **scales,
                )
            )
            wise = builder.emit(
                ops.qdepthwise(added, *plans[1][1], strides=(stride, stride), padding=(1, 1, 1, 1), **points)
            )
            wide = builder.emit(ops.qconv2d(wise, *plans[2][1], padding=(0, 2, 0, 2), **points))
            point = builder.emit(ops.qconv2d(wide, *plans[3][1], **points))
            last = builder.emit(ops.qconv2d(point, *plans[4][1], padding=(2, 1, 2, 1), strides=(2, 1), **points))
            window = {"pool_size": (2, 3), "strides": (int(rng.integers(1, 3)), 2), "padding": (1, 0, 0, 2)}
            largest = builder.emit(ops.qmaxpool(wise, **window, qmax=100))
            windowed = builder.emit(ops.qavgpool(point, **window, qmin=-90))
            average = builder.emit(ops.qavgpool(added, pool_size=(height, width), strides=(1, 1)))
            few_inputs = builder.emit(ops.qdense(_row(average), *plans[5][1], **points))
            many_inputs = builder.emit(ops.qdense(_row(wise), *plans[6][1], **points))
            corner = builder.emit(relax.op.strided_slice(point, [1, 2], [0, 0], [1, 1]))
            uneven_inputs = builder.emit(ops.qdense(_row(corner), *plans[7][1], **points))
            made = (added, wise, wide, point, last, largest, windowed, average, few_inputs, many_inputs, uneven_inputs)
            outputs = [builder.emit_output(value) for value in made]
        builder.emit_func_output(relax.Tuple(outputs))
    return relax.transform.Normalize()(attach_params(builder.get(), params))


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"])
def test_random_layers_on_every_core(target: str, tmp_path: Path) -> None:
    mod = random_network(sum(target.encode()))
    x = RNG.integers(-128, 128, (2, *[int(dim) for dim in mod["main"].params[0].ty.shape][1:])).astype("int8")
    artifact = get_target(target).build(mod, tmp_path)
    got = artifact.run([x])
    for index, expected in enumerate(zip(*(run(mod, [x[i : i + 1]]) for i in range(2)), strict=True)):
        assert len(np.unique(np.concatenate(expected))) > 8
        np.testing.assert_array_equal(got[index], np.concatenate(expected), err_msg=f"output {index}")


@pytest.mark.parametrize(
    ("size", "stride", "padding", "zero_point"),
    [
        ((7, 8), 1, (1, 1, 1, 1), -128),
        ((25, 5), 1, (1, 1, 1, 1), 5),
        ((8, 8), 2, (0, 0, 1, 1), -128),
        ((9, 7), 2, (1, 1, 1, 1), 5),
        ((6, 9), 1, (0, 0, 0, 0), -128),
        ((3, 3), 1, (1, 1, 1, 1), -128),
        ((4, 13), 1, (1, 1, 1, 1), -9),
        ((5, 27), 2, (1, 1, 1, 1), 5),
    ],
)
def test_depthwise(
    size: tuple[int, int], stride: int, padding: tuple[int, ...], zero_point: int, tmp_path: Path
) -> None:
    params = {"weight": RNG.integers(-127, 128, (1, 3, 3, 8)).astype("int8"), **channels(8, 5)}
    mod = module(
        lambda *args: ops.qdepthwise(
            *args, strides=(stride, stride), padding=padding, input_zero_point=zero_point, output_zero_point=zero_point
        ),
        [(1, *size, 8)],
        params,
    )
    assert_kernel(mod, "depthwise", tmp_path)


@pytest.mark.parametrize(("kernel", "depth"), [((5, 5), 8), ((3, 3), 6), ((3, 1), 4)])
def test_depthwise_of_another_size(kernel: tuple[int, int], depth: int, tmp_path: Path) -> None:
    """There is no kernel; the result is right."""
    params = {"weight": RNG.integers(-127, 128, (1, *kernel, depth)).astype("int8"), **channels(depth, 5)}
    points = {"input_zero_point": 3, "output_zero_point": -5}
    mod = module(lambda *a: ops.qdepthwise(*a, padding=(1, 1, 1, 1), **points), [(1, 8, 9, depth)], params)
    assert_kernel(mod, "qdepthwise", tmp_path)


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 10), (12, 3), (640, 16), (128, 13)])
def test_dense(inputs: int, outputs: int, tmp_path: Path) -> None:
    params = {"weight": RNG.integers(-127, 128, (outputs, inputs)).astype("int8"), **channels(outputs)}
    mod = module(
        lambda *args: ops.qdense(*args, input_zero_point=89, output_zero_point=-20), [(1, inputs)], params
    )
    assert_kernel(mod, "dense", tmp_path)


@pytest.mark.parametrize("kind", ["conv2d", "dense"])
def test_large_bias_is_added_late(kind: str, tmp_path: Path) -> None:
    """256 times a bias of 2**24 would leave 32 bits."""
    params = {"weight": RNG.integers(-127, 128, (6, 1, 1, 8)).astype("int8"), **channels(6, 12)}
    params["bias"] = (params["bias"] + (1 << 24)).astype("int32")
    if kind == "dense":
        params["weight"] = params["weight"].reshape(6, 8)
    operator, shape = (ops.qconv2d, (1, 3, 3, 8)) if kind == "conv2d" else (ops.qdense, (1, 8))
    mod = module(lambda *args: operator(*args, input_zero_point=3, output_zero_point=-7), [shape], params)
    assert_kernel(mod, kind, tmp_path)


def test_sum_joins_the_convolution_before_it(tmp_path: Path) -> None:
    params = {"weight": RNG.integers(-127, 128, (8, 3, 3, 8)).astype("int8"), **channels(8)}

    def build(x: relax.Expr, *args: relax.Expr) -> relax.Call:
        made = relax.BlockBuilder.current().emit(
            ops.qconv2d(x, *args, padding=(1, 1, 1, 1), input_zero_point=-128, output_zero_point=5)
        )
        scales = ops.add_parameters(0.1, 0.07, 0.12)
        return ops.qadd(x, made, input1_zero_point=-128, input2_zero_point=5, output_zero_point=-128, **scales)

    mod = relax.transform.Normalize()(module(build, [(1, 5, 5, 8)], params))
    assert_kernel(mod, "conv2d_add", tmp_path)


@pytest.mark.parametrize("shape", [(1, 4, 4, 8), (1, 3, 3, 3)])
def test_addition(shape: tuple[int, ...], tmp_path: Path) -> None:
    mod = module(
        lambda a, b: ops.qadd(
            a, b, input1_zero_point=5, input2_zero_point=-128, output_zero_point=-4, **ops.add_parameters(0.1, 0.07, 0.2)
        ),
        [shape, shape],
        {},
    )
    assert_kernel(mod, "add", tmp_path)


def test_global_average(tmp_path: Path) -> None:
    mod = module(lambda x: ops.qavgpool(x, pool_size=(5, 7), strides=(5, 7)), [(1, 5, 7, 12)], {})
    assert_kernel(mod, "average", tmp_path)


def test_large_scales_keep_the_generic_kernel(tmp_path: Path) -> None:
    """A factor of 1/4 or more has no place in the fast arithmetic; the result is still right."""
    params = {"weight": RNG.integers(-2, 3, (4, 1, 1, 4)).astype("int8"), **channels(4)}
    params["shift"] = np.zeros(4, "int32")
    mod = module(
        lambda *args: ops.qconv2d(*args, input_zero_point=0, output_zero_point=0), [(1, 4, 4, 4)], params
    )
    with pytest.raises(NotRepresentable):
        Epilogue("double", 0).parameters(params["multiplier"], params["shift"])
    x = RNG.integers(-128, 128, (1, 4, 4, 4)).astype("int8")
    artifact = get_target("cortex-m4").build(mod, tmp_path)
    np.testing.assert_array_equal(artifact.run([x])[0], run(mod, [x])[0])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**16))
def test_byte_planes_hold_both_channels(outputs: int, words: int, seed: int) -> None:
    """raw = 256 A + B and the low bytes alone give B: checked in Python integers against the packed words."""
    rng = np.random.default_rng(seed)
    w = rng.integers(-127, 128, (outputs, 4 * words)).astype("int8")
    x = rng.integers(-128, 128, 4 * words).astype("int8")
    assert packing.planes_are_exact(w)
    packed = packing.byte_planes(w)
    order = np.array([0, 2, 1, 3])
    for pair in range(-(-outputs // 2)):
        halfwords = packed[pair].view(np.int16).astype(int).ravel()
        activations = x.reshape(-1, 4)[:, order].astype(int).ravel()
        raw = int((halfwords * activations).sum())
        low = int((((halfwords & 0xFF) ^ 0x80) - 0x80) @ activations)
        assert low == (int(w[2 * pair + 1].astype(int) @ x.astype(int)) if 2 * pair + 1 < outputs else 0)
        assert (raw - low) >> 8 == int(w[2 * pair].astype(int) @ x.astype(int))
        assert abs(raw) < 1 << 31


def test_planes_are_refused_where_they_overflow() -> None:
    assert not packing.planes_are_exact(np.full((2, 66000), 127, "int8"))
    assert not packing.planes_are_exact(np.array([[-128], [-128]], "int8"))


def test_plan_of_a_single_pixel_is_left_to_dense() -> None:
    conv = panel.Convolution(1, 1, 8, 1, 1, 4, (1, 1), (1, 1), 0, 0, 0, Epilogue("double", 0))
    assert plan_convolution(conv) is None
