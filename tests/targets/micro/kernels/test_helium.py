"""The Helium kernels against the NumPy reference of the operators, on the emulator, over shapes with every tail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tvmcompress
from tests.targets.kernels.layers import CONVOLUTIONS, DEPTHWISE, assert_kernel, channels, module, weights, zero_points
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.passes.integer.requantize import requantize
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import get_target
from tvmcompress.targets.kernels.layers import NotRepresentable
from tvmcompress.targets.kernels.taps import group_taps
from tvmcompress.targets.micro.kernels import legalize
from tvmcompress.targets.micro.kernels.helium_epilogue import HeliumEpilogue

TARGET = "cortex-m55"

needs_tools = pytest.mark.skipif(bool(get_target(TARGET).missing_tools()), reason="needs the Cortex-M tool chain")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the test only."""
    return np.random.default_rng(list(request.node.name.encode()))


@pytest.fixture
def _only_helium(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel of the DSP extension takes what Helium's do not."""
    monkeypatch.setattr(legalize, "KERNELS", {})


@needs_tools
@pytest.mark.usefixtures("_only_helium")
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case: str, tmp_path: Path, rng: np.random.Generator) -> None:
    height, width, depth, outputs, kernel, strides, padding = CONVOLUTIONS[case]
    params = {
        "weight": weights(rng, outputs, *kernel, depth),
        **channels(rng, outputs, kernel[0] * kernel[1] * depth),
    }
    attrs = zero_points(rng, clipped=bool(rng.integers(2)))
    mod = module(
        lambda *args: ops.qconv2d(*args, strides=strides, padding=padding, **attrs), [(1, height, width, depth)], params
    )
    assert_kernel(mod, "conv2d", tmp_path, rng, TARGET)


@needs_tools
@pytest.mark.usefixtures("_only_helium")
@pytest.mark.parametrize("seed", range(8))
def test_any_convolution(seed: int, tmp_path: Path, rng: np.random.Generator) -> None:
    height, width = (int(n) for n in rng.integers(1, 14, 2))
    depth, outputs = (int(n) for n in rng.choice([1, 2, 3, 4, 7, 8, 12, 16, 20, 32, 48], 2))
    kernel = tuple(int(rng.integers(1, min(6, size + 1))) for size in (height, width))
    strides = tuple(int(n) for n in rng.integers(1, 3, 2))
    padding = tuple(int(rng.integers(0, kernel[i % 2])) for i in range(4))
    params = {
        "weight": weights(rng, outputs, *kernel, depth),
        **channels(rng, outputs, kernel[0] * kernel[1] * depth),
    }
    attrs = zero_points(rng, clipped=bool(seed % 2))
    mod = module(
        lambda *args: ops.qconv2d(*args, strides=strides, padding=padding, **attrs), [(1, height, width, depth)], params
    )
    assert_kernel(mod, "", tmp_path, rng, TARGET)


@needs_tools
@pytest.mark.usefixtures("_only_helium")
@pytest.mark.parametrize(
    ("shape", "kernel", "depthwise"),
    [
        ((5, 5, 16), 1, False),
        ((6, 4, 64), 1, False),
        ((30, 16, 16), 3, False),
        ((40, 16, 12), 5, False),
        ((32, 24, 12), 4, False),
        ((40, 24, 16), 3, True),
        ((26, 30, 8), 3, True),
    ],
)
def test_outputs_take_the_place_of_inputs(
    shape: tuple[int, int, int], kernel: int, depthwise: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    before = (kernel - 1) // 2
    padding = (before, before, kernel - 1 - before, kernel - 1 - before)
    size = (1, kernel, kernel, shape[2]) if depthwise else (shape[2], kernel, kernel, shape[2])
    params = {
        "weight": weights(rng, *size),
        **channels(rng, shape[2], kernel * kernel * (1 if depthwise else shape[2])),
    }
    operator = ops.qdepthwise if depthwise else ops.qconv2d
    mod = module(
        lambda *args: operator(*args, padding=padding, input_zero_point=7, output_zero_point=-11), [(1, *shape)], params
    )
    assert_kernel(mod, "depthwise" if depthwise else "conv2d", tmp_path, rng, TARGET)
    assert get_target(TARGET).load(tmp_path).info.arena_bytes < 2 * np.prod(shape)


@needs_tools
@pytest.mark.usefixtures("_only_helium")
@pytest.mark.parametrize("case", DEPTHWISE)
def test_depthwise(case: str, tmp_path: Path, rng: np.random.Generator) -> None:
    height, width, depth, kernel, strides, padding = DEPTHWISE[case]
    params = {"weight": weights(rng, 1, *kernel, depth), **channels(rng, depth, kernel[0] * kernel[1])}
    attrs = zero_points(rng, clipped=case == "5x5")
    mod = module(
        lambda *args: ops.qdepthwise(*args, strides=strides, padding=padding, **attrs),
        [(1, height, width, depth)],
        params,
    )
    assert_kernel(mod, "depthwise", tmp_path, rng, TARGET)


@needs_tools
@pytest.mark.usefixtures("_only_helium")
@pytest.mark.parametrize("size", [(8, 8, 6, (3, 3), (1, 1)), (8, 8, 8, (3, 3), (2, 2)), (9, 9, 16, (6, 6), (1, 1))])
def test_depthwise_that_another_kernel_takes(
    size: tuple[int, int, int, tuple[int, int], tuple[int, int]], tmp_path: Path, rng: np.random.Generator
) -> None:
    height, width, depth, kernel, strides = size
    params = {"weight": weights(rng, 1, *kernel, depth), **channels(rng, depth, 9)}
    mod = module(
        lambda *args: ops.qdepthwise(
            *args, strides=strides, padding=(1, 1, 1, 1), input_zero_point=3, output_zero_point=-9
        ),
        [(1, height, width, depth)],
        params,
    )
    assert_kernel(mod, "", tmp_path, rng, TARGET)


@needs_tools
@pytest.mark.usefixtures("_only_helium")
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 10), (12, 3), (640, 16), (130, 13), (8, 32), (208, 5)])
@pytest.mark.parametrize("one_scale", [False, True])
def test_dense(inputs: int, outputs: int, one_scale: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    params = {"weight": weights(rng, outputs, inputs), **channels(rng, outputs, inputs)}
    if one_scale:
        params["multiplier"][:], params["shift"][:] = params["multiplier"][0], params["shift"][0]
    attrs = zero_points(rng, clipped=False)
    mod = module(lambda *args: ops.qdense(*args, **attrs), [(1, inputs)], params)
    assert_kernel(mod, "dense", tmp_path, rng, TARGET)


@needs_tools
@pytest.mark.usefixtures("_only_helium")
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("size", [(5, 5), (4, 6)])
def test_sum_joins_the_convolution_before_it(
    size: tuple[int, int], order: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    """The sum lies where its other operand lay, whose last pixel must not be added twice."""
    params = {"weight": weights(rng, 8, 3, 3, 8), **channels(rng, 8, 72)}

    def build(x: relax.Expr, *args: relax.Expr) -> relax.Call:
        made = ops.qconv2d(x, *args, padding=(1, 1, 1, 1), input_zero_point=-128, output_zero_point=5)
        made = relax.BlockBuilder().normalize(made)
        scales = ops.add_parameters(0.1, 0.07, 0.12) if order else ops.add_parameters(0.07, 0.1, 0.12)
        points = {"input1_zero_point": 5 if order else -128, "input2_zero_point": -128 if order else 5}
        operands = (made, x) if order else (x, made)
        return ops.qadd(*operands, **points, output_zero_point=-128 if order else 7, **scales)

    assert_kernel(module(build, [(1, *size, 8)], params), "conv2d_add", tmp_path, rng, TARGET)


@needs_tools
@pytest.mark.usefixtures("_only_helium")
@pytest.mark.parametrize("scales", [(0.1, 0.07, 0.2), (0.07, 0.1, 0.15), (0.1, 0.1, 0.2)])
def test_addition(scales: tuple[float, float, float], tmp_path: Path, rng: np.random.Generator) -> None:
    mod = module(
        lambda a, b: ops.qadd(
            a, b, input1_zero_point=5, input2_zero_point=-128, output_zero_point=-4, **ops.add_parameters(*scales)
        ),
        [(1, 3, 5, 4)] * 2,
        {},
    )
    assert_kernel(mod, "add", tmp_path, rng, TARGET)


@needs_tools
@pytest.mark.usefixtures("_only_helium")
@pytest.mark.parametrize("shape", [(5, 7, 12), (1, 2, 8), (15, 17, 16), (3, 3, 11)])
def test_global_average(shape: tuple[int, int, int], tmp_path: Path, rng: np.random.Generator) -> None:
    mod = module(lambda x: ops.qavgpool(x, pool_size=shape[:2], strides=shape[:2]), [(1, *shape)], {})
    assert_kernel(mod, "average", tmp_path, rng, TARGET)


@needs_tools
@pytest.mark.usefixtures("_only_helium")
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("shared_shift", [False, True])
def test_single_rounding(shared_shift: bool, depthwise: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    if depthwise:
        params = {"weight": weights(rng, 1, 3, 3, 16), **channels(rng, 16, 9)}
    else:
        params = {"weight": weights(rng, 8, 3, 3, 16), **channels(rng, 8, 144)}
    if shared_shift:
        params["multiplier"] = (params["multiplier"] >> 9).astype("int32")
        params["shift"] = np.full(len(params["shift"]), -1, "int32")
    points = {"input_zero_point": 4, "output_zero_point": 9}
    operator = ops.qdepthwise if depthwise else ops.qconv2d
    mod = module(
        lambda *args: operator(*args, padding=(1, 1, 1, 1), **points, rounding="single"), [(1, 6, 7, 16)], params
    )
    assert_kernel(mod, "depthwise" if depthwise else "conv2d", tmp_path, rng, TARGET)


@needs_tools
@pytest.mark.usefixtures("_only_helium")
def test_large_scales_keep_another_kernel(tmp_path: Path, rng: np.random.Generator) -> None:
    """A factor of 1/2 or more has no place in the fast arithmetic; the result is still right."""
    params = {"weight": rng.integers(-2, 3, (4, 1, 1, 16)).astype("int8"), **channels(rng, 4, 16)}
    params["bias"][:] = 0
    params["shift"] = np.zeros(4, "int32")
    mod = module(lambda *args: ops.qconv2d(*args, input_zero_point=0, output_zero_point=0), [(1, 4, 4, 16)], params)
    with pytest.raises(NotRepresentable):
        HeliumEpilogue("double", 0).parameters(params["multiplier"], params["shift"])
    assert_kernel(mod, "", tmp_path, rng, TARGET)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(-(1 << 26), 1 << 26),
    st.integers(1 << 20, (1 << 31) - 1),
    st.integers(1, 31),
    st.integers(-128, 127),
    st.sampled_from(["double", "single"]),
)
def test_two_instructions_round_as_the_reference(
    acc: int, multiplier: int, shift: int, zero_point: int, rounding: str
) -> None:
    """VQRDMULH or VQDMULH, and VQRDMLASH, in Python integers, with the words that the epilogue packs."""
    epilogue = HeliumEpilogue(rounding, zero_point)
    q, power = (int(word) for word in epilogue.parameters(np.array([multiplier]), np.array([-shift]))[:, 0])
    high = (2 * acc * q + ((1 << 31) if rounding == "double" else 0)) >> 32
    if rounding == "double" and epilogue.keeps_sign:
        high += high >> 31
    value = (2 * high * power + (zero_point << 32) + (1 << 31)) >> 32
    expected = requantize(np.array([acc]), multiplier, -shift, zero_point, -128, 127, rounding)
    assert min(max(value, -128), 127) == int(expected[0])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 25), st.integers(1, 20), st.integers(0, 2**16), st.sampled_from([20, 60, 128]))
def test_groups_of_taps_fit_halfwords(taps: int, depth: int, seed: int, largest: int) -> None:
    values = np.random.default_rng(seed).integers(-largest, min(largest, 127) + 1, (taps, depth)).astype("int8")
    groups = group_taps(values)
    assert sorted(tap for group in groups for tap in group) == list(range(taps))
    for group in groups:
        part = values[list(group)].astype(int)
        # Every product at its greatest or at its least.
        assert np.where(part > 0, 127 * part, -128 * part).sum(0).max() < 1 << 15
        assert np.where(part > 0, -128 * part, 127 * part).sum(0).min() >= -(1 << 15)
    if np.abs(values.astype(int)).max() <= 127:
        assert len(groups) <= -(-taps // 2)


@needs_tools
@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "instructions", "flash", "arena"),
    [
        # 0.55 times the executed instructions of CMSIS-NN, 1.05 times its code and constants, its arena;
        # benchmarks/cortex_m_vs_cmsis_nn.py has larger models, too.
        ("ic_resnet8", 2_644_400, 99_756, 49_728),
        ("kws_dscnn", 981_745, 50_217, 20_464),
        ("ad_autoencoder", 80_751, 288_105, 768),
    ],
)
def test_whole_models_beat_cmsis_nn(
    name: str, instructions: int, flash: int, arena: int, shared: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """The official int8 models: the bytes of the reference kernels."""
    model = tvmcompress.load(shared / "models" / f"{name}_int8.tflite")
    artifact = get_target(TARGET).build(model.module, tmp_path)
    x = rng.integers(-128, 128, (2, *artifact.inputs[0].shape[1:])).astype("int8")
    core = IntegerCore()(model.module)
    expected = np.concatenate([run(core, [x[i : i + 1]])[0] for i in range(2)])
    np.testing.assert_array_equal(artifact.run([x])[0], expected)
    measured = artifact.measure([x[:1]])
    assert (measured.instructions or 0) <= instructions
    assert (measured.flash_bytes or 0) <= flash
    assert (measured.arena_bytes or 0) <= arena
    assert measured.instructions
