"""The kernels of Cortex-A against the NumPy reference of the operators, on the emulator, over shapes with every tail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st

import tvmcompress
from tests.targets.kernels.layers import CONVOLUTIONS, DEPTHWISE, assert_kernel, channels, module, weights, zero_points
from tvmcompress.passes._tvm import relax, tirx
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.passes.integer.requantize import multiply
from tvmcompress.passes.integer.softmax import exponentials
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import get_target
from tvmcompress.targets.arm.artifact import CortexAArtifact
from tvmcompress.targets.arm.kernels.addition import Term
from tvmcompress.targets.arm.kernels.epilogue import Epilogue
from tvmcompress.targets.arm.kernels.products import Dot, Matrix, Pairs, Products, products_of
from tvmcompress.targets.kernels.decisions import by_default
from tvmcompress.targets.kernels.layers import NotRepresentable
from tvmcompress.targets.kernels.sums import Operand
from tvmcompress.targets.trials.tunable import TunableTarget

CORES = ["cortex-a72", "cortex-a76"]

needs_tools = pytest.mark.skipif(bool(get_target(CORES[0]).missing_tools()), reason="needs the Cortex-A tool chain")
on_cores = pytest.mark.parametrize("core", CORES)
# SMULL, SDOT, and SMMLA.
on_all_ways = pytest.mark.parametrize("core", [*CORES, "neoverse-n2"])


@needs_tools
@on_cores
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case: str, core: str, tmp_path: Path, rng: np.random.Generator) -> None:
    height, width, depth, outputs, kernel, strides, padding = CONVOLUTIONS[case]
    params = {"weight": weights(rng, outputs, *kernel, depth), **channels(rng, outputs, kernel[0] * kernel[1] * depth)}
    attrs = zero_points(rng, clipped=bool(rng.integers(2)))
    mod = module(
        lambda *args: ops.qconv2d(*args, strides=strides, padding=padding, **attrs), [(1, height, width, depth)], params
    )
    assert_kernel(mod, "conv2d", tmp_path, rng, core)


@needs_tools
@on_all_ways
@pytest.mark.parametrize("seed", range(6))
def test_any_convolution(seed: int, core: str, tmp_path: Path, rng: np.random.Generator) -> None:
    height, width = (int(n) for n in rng.integers(1, 14, 2))
    depth, outputs = (int(n) for n in rng.choice([1, 2, 3, 4, 7, 8, 12, 16, 20, 28, 32, 48], 2))
    kernel = tuple(int(rng.integers(1, min(6, size + 1))) for size in (height, width))
    strides = tuple(int(n) for n in rng.integers(1, 3, 2))
    padding = tuple(int(rng.integers(0, kernel[i % 2])) for i in range(4))
    params = {"weight": weights(rng, outputs, *kernel, depth), **channels(rng, outputs, kernel[0] * kernel[1] * depth)}
    attrs = zero_points(rng, clipped=bool(seed % 2))
    mod = module(
        lambda *args: ops.qconv2d(*args, strides=strides, padding=padding, **attrs), [(1, height, width, depth)], params
    )
    assert_kernel(mod, "", tmp_path, rng, core)


@needs_tools
@on_cores
@pytest.mark.parametrize("case", DEPTHWISE)
def test_depthwise(case: str, core: str, tmp_path: Path, rng: np.random.Generator) -> None:
    height, width, depth, kernel, strides, padding = DEPTHWISE[case]
    params = {"weight": weights(rng, 1, *kernel, depth), **channels(rng, depth, kernel[0] * kernel[1])}
    attrs = zero_points(rng, clipped=case == "5x5")
    mod = module(
        lambda *args: ops.qdepthwise(*args, strides=strides, padding=padding, **attrs),
        [(1, height, width, depth)],
        params,
    )
    assert_kernel(mod, "" if case == "four pixels" else "depthwise", tmp_path, rng, core)


def test_layers_that_differ_in_constants_share_a_function(rng: np.random.Generator) -> None:
    """And those that differ in anything else do not."""

    def function(size: int = 6, least: int = -128, core: str = "cortex-a76", **attrs: tuple[int, ...]) -> tirx.PrimFunc:
        params = {"weight": weights(rng, 16, 3, 3, 16), **channels(rng, 16, 144)}
        limits = {"input_zero_point": 3, "output_zero_point": -5, "qmin": least}
        mod = module(lambda *args: ops.qconv2d(*args, **attrs, **limits), [(1, size, size, 16)], params)
        target = get_target(core)
        assert isinstance(target, TunableTarget)
        (site,) = target.survey(mod)
        kernel = site.make(by_default)
        assert kernel is not None
        return kernel.func

    first = function()
    assert function().same_as(first)
    for other in (
        function(size=7),
        function(least=-5),
        function(strides=(2, 2)),
        function(padding=(1, 1, 1, 1)),
        function(core="cortex-a72"),
    ):
        assert not tvm_ffi.structural_equal(first, other, map_free_vars=True)


@needs_tools
@on_cores
@pytest.mark.parametrize("seed", range(4))
def test_any_depthwise(seed: int, core: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Vectors of several pixels, of half a vector's channels, and of channels that overlap."""
    height, width = (int(n) for n in rng.integers(3, 14, 2))
    depth = int(rng.choice([2, 4, 8, 9, 16, 24, 33, 48]))
    kernel = tuple(int(rng.integers(1, min(6, size + 1))) for size in (height, width))
    strides = tuple(int(n) for n in rng.integers(1, 3, 2))
    padding = tuple(int(rng.integers(0, kernel[i % 2])) for i in range(4))
    params = {"weight": weights(rng, 1, *kernel, depth), **channels(rng, depth, kernel[0] * kernel[1])}
    attrs = zero_points(rng, clipped=bool(seed % 2))
    mod = module(
        lambda *args: ops.qdepthwise(*args, strides=strides, padding=padding, **attrs), [(1, height, width, depth)], params
    )
    assert_kernel(mod, "", tmp_path, rng, core)


@needs_tools
@on_all_ways
@pytest.mark.parametrize(("shape", "outputs"), [((1, 64), 3), ((1, 49, 64), 64), ((1, 7, 12), 10), ((1, 3, 2, 130), 5)])
def test_dense(shape: tuple[int, ...], outputs: int, core: str, tmp_path: Path, rng: np.random.Generator) -> None:
    params = {"weight": weights(rng, outputs, shape[-1]), **channels(rng, outputs, shape[-1])}
    mod = module(lambda *args: ops.qdense(*args, **zero_points(rng, clipped=False)), [shape], params)
    assert_kernel(mod, "dense", tmp_path, rng, core)


@needs_tools
@on_cores
@pytest.mark.parametrize(
    ("scales", "shape", "rounding"),
    [
        ((0.1, 0.07, 0.2), (4, 8, 3), "double"),
        ((0.07, 0.1, 0.15), (3, 7, 5), "single"),
        ((0.1, 0.1, 0.2), (4, 8, 5), "double"),
        ((0.1, 0.0123, 0.2), (3, 7, 5), "double"),
        ((0.1, 0.0123, 0.2), (3, 7, 5), "single"),
    ],
)
def test_addition(
    scales: tuple[float, float, float],
    shape: tuple[int, ...],
    rounding: str,
    core: str,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    points = {"input1_zero_point": 5, "input2_zero_point": -128, "output_zero_point": -4}
    mod = module(
        lambda a, b: ops.qadd(a, b, **points, rounding=rounding, **ops.add_parameters(*scales, rounding)), [(1, *shape)] * 2, {}
    )
    assert_kernel(mod, "add", tmp_path, rng, core)


@needs_tools
@on_cores
@pytest.mark.parametrize(
    ("shape", "axes", "centred", "epsilon"),
    [
        ((1, 7, 64), (2,), True, 300),
        ((1, 3, 2, 40), (3,), True, 1),
        ((1, 4, 16), (1, 2), True, 0),
        ((1, 2, 300), (2,), True, 1 << 20),
        ((1, 5, 64), (2,), True, 1 << 40),
        ((1, 5, 96), (2,), False, 5),
        ((1, 3, 19), (2,), False, 0),
    ],
)
def test_normalization(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    centred: bool,
    epsilon: int,
    core: str,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    """Rows whose products fit 32 bits and rows whose products do not, of any length, spread widely and not at all."""
    inner = tuple(size if axis in axes else 1 for axis, size in enumerate(shape))
    params = {
        "factor": rng.integers(-32767, 32768, inner).astype("int16"),
        "offset": rng.integers(-(1 << 26), 1 << 26, inner).astype("int32"),
    }
    numbers = {"input_zero_point": -7, "output_zero_point": 11, "multiplier": 1 << 30, "shift": -20}
    mod = module(lambda *args: ops.qnormalize(*args, axes=axes, centred=centred, epsilon=epsilon, **numbers), [shape], params)
    artifact = assert_kernel(mod, "normalize", tmp_path, rng, core)
    constant, ends = np.full(shape, 5, np.int8), rng.choice([-128, 127], shape).astype(np.int8)
    for x in (constant, ends, np.full(shape, -128, np.int8)):
        np.testing.assert_array_equal(artifact.run([x])[0], run(mod, [x])[0])


@needs_tools
@on_cores
@pytest.mark.parametrize(("shape", "scale"), [((1, 3, 49), 0.1), ((1, 5, 2, 16), 0.9), ((1, 2, 131), 0.02)])
def test_softmax(shape: tuple[int, ...], scale: float, core: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Rows with any rest, with one element far above the others, and with all of them equal."""
    mod = module(ops.qsoftmax, [shape], {"table": exponentials(scale)})
    artifact = assert_kernel(mod, "softmax", tmp_path, rng, core)
    one = np.full(shape, -128, np.int8)
    one[..., -1] = 127
    for x in (
        one,
        np.full(shape, -128, np.int8),
        np.full(shape, 127, np.int8),
        np.sort(one + rng.integers(0, 99, shape, np.int8)),
    ):
        np.testing.assert_array_equal(artifact.run([x])[0], run(mod, [x])[0])


@needs_tools
@on_cores
@pytest.mark.parametrize(("shape", "constant"), [((1, 5, 7), (1, 5, 7)), ((1, 3, 4, 6), (1, 1, 1, 6)), ((1, 4, 8), (1, 4, 1))])
@pytest.mark.parametrize("first", [True, False])
def test_addition_of_a_constant(
    shape: tuple[int, ...], constant: tuple[int, ...], first: bool, core: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Of the tensor's shape or broadcast, on either side."""
    numbers = {"input1_zero_point": 3, "input2_zero_point": -20, "output_zero_point": -5}
    numbers |= ops.add_parameters(0.05, 0.1, 0.12)
    params = {"constant": rng.integers(-128, 128, constant).astype("int8")}

    def build(x: relax.Expr, c: relax.Expr) -> relax.Call:
        return ops.qadd(*((c, x) if first else (x, c)), **numbers)

    assert_kernel(module(build, [shape], params), "add", tmp_path, rng, core)


@needs_tools
def test_additions_share_their_code(tmp_path: Path, rng: np.random.Generator) -> None:
    """Sums of equal sizes with other scales and zero points."""
    shape = (1, 4, 20)

    def build(x: relax.Expr, y: relax.Expr) -> relax.Call:
        for i, scale in enumerate((0.011, 0.023, 0.037)):
            numbers = {"input1_zero_point": i, "input2_zero_point": 2 - i, "output_zero_point": i + 1}
            sum_ = ops.qadd(x, y, **numbers, **ops.add_parameters(scale, 0.1, 0.15))
            x = relax.BlockBuilder.current().emit(sum_)
        return x

    artifact = get_target("cortex-a76").build(module(build, [shape, shape], {}), tmp_path)
    assert isinstance(artifact, CortexAArtifact)
    assert [len(layers) for layers in artifact.info.layers.values()] == [3]
    x = [rng.integers(-128, 128, shape).astype("int8") for _ in range(2)]
    np.testing.assert_array_equal(artifact.run(x)[0], run(module(build, [shape, shape], {}), x)[0])


@needs_tools
@on_cores
@pytest.mark.parametrize("rounding", ["double", "single"])
def test_change_of_scale(rounding: str, core: str, tmp_path: Path, rng: np.random.Generator) -> None:
    numbers = {"multiplier": 1518500250, "shift": -1, "output_zero_point": 5, "rounding": rounding, "qmin": -100}
    mod = module(lambda x: ops.qrequantize(x, input_zero_point=-17, **numbers), [(1, 5, 7)], {})
    assert_kernel(mod, "requantize", tmp_path, rng, core)


MASKS = {
    "causal": np.tril(np.ones((1, 1, 19, 19), bool)),
    "of each head": np.random.default_rng(1).integers(0, 2, (1, 2, 19, 19)).astype(bool),
    "of columns": np.arange(19)[None] < 11,
    "of nothing in one row": np.arange(19)[:, None] != np.full(19, 4)[None],
}


@needs_tools
@on_cores
@pytest.mark.parametrize("kind", MASKS)
def test_masked_softmax(kind: str, core: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Masks that rows or heads share; a row of which nothing is left; what is masked is far greater than the rest."""
    shape, mask = (1, 2, 19, 19), MASKS[kind].copy()
    if kind != "of columns":
        mask[..., 3, :] = False
    params = {"mask": mask, "table": exponentials(0.1)}
    mod = module(ops.qmaskedsoftmax, [shape], params)
    artifact = assert_kernel(mod, "masked_softmax", tmp_path, rng, core)
    x = np.where(np.broadcast_to(mask, shape), rng.integers(-128, -60, shape), 127).astype(np.int8)
    for values in (x, np.full(shape, -128, np.int8), np.full(shape, 127, np.int8)):
        np.testing.assert_array_equal(artifact.run([values])[0], run(mod, [values])[0])


@needs_tools
def test_normalizations_share_their_code(tmp_path: Path, rng: np.random.Generator) -> None:
    """Equal layers of other weights, ranges and epsilons."""
    shape, count = (1, 3, 64), 2
    params = {
        name: rng.integers(-1000, 1000, (1, 1, 64)).astype(dtype)
        for name, dtype in [("f0", "int16"), ("o0", "int32"), ("f1", "int16"), ("o1", "int32")]
    }

    def build(x: relax.Expr, *args: relax.Expr) -> relax.Call:
        for i in range(count):
            numbers = {"output_zero_point": 3 + i, "multiplier": (1 << 30) + i, "shift": -9 - i}
            x = ops.qnormalize(
                x, *args[2 * i : 2 * i + 2], axes=(2,), centred=True, input_zero_point=i, epsilon=7 + i, **numbers
            )
        return x

    artifact = assert_kernel(module(build, [shape], params), "normalize", tmp_path, rng, "cortex-a76")
    assert isinstance(artifact, CortexAArtifact)
    assert [len(layers) for layers in artifact.info.layers.values()] == [count]


@needs_tools
@on_cores
@pytest.mark.parametrize(
    ("shifts", "rounding"),
    [((0, 0), "double"), ((1, 0), "double"), ((2, -3), "double"), ((0, -6), "double"), ((0, 0), "single"), ((1, -3), "single")],
)
def test_shifts_of_both_directions(
    shifts: tuple[int, int], rounding: str, core: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    params = {"weight": weights(rng, 8, 3, 3, 8), **channels(rng, 8, 72)}
    params["multiplier"] = np.where(np.arange(8) % 2, *[params["multiplier"] >> max(0, 9 + s) for s in shifts]).astype("int32")
    params["shift"] = np.where(np.arange(8) % 2, *shifts).astype("int32")
    points = {"input_zero_point": 4, "output_zero_point": 9}
    mod = module(lambda *args: ops.qconv2d(*args, padding=(1, 1, 1, 1), **points, rounding=rounding), [(1, 6, 7, 8)], params)
    generic = rounding == "single" and max(shifts) >= 0 and shifts != (0, 0)
    assert_kernel(mod, "qconv2d" if generic else "conv2d", tmp_path, rng, core)


@needs_tools
@on_cores
def test_weights_of_which_two_products_leave_16_bits(core: str, tmp_path: Path, rng: np.random.Generator) -> None:
    params = {"weight": np.full((4, 1, 1, 16), -128, "int8"), **channels(rng, 4, 16)}
    build = lambda *args: ops.qconv2d(*args, input_zero_point=0, output_zero_point=0)  # noqa: E731
    assert_kernel(module(build, [(1, 4, 4, 16)], params), "conv2d", tmp_path, rng, core)


@needs_tools
@on_cores
@pytest.mark.parametrize(
    "sizes", [(1, 49, 64, 49), (1, 49, 49, 64), (2, 5, 7, 3), (3, 4, 12, 18), (1, 1, 33, 9), (2, 6, 20, 40)]
)
def test_product_of_two_tensors(sizes: tuple[int, int, int, int], core: str, tmp_path: Path, rng: np.random.Generator) -> None:
    count, rows, depth, columns = sizes
    points = {f"input{i}_zero_point": int(rng.integers(-20, 20)) for i in (1, 2)}
    factor = {"multiplier": 1518500250, "shift": -int(np.log2(60 * np.sqrt(depth)))}
    build = lambda a, b: ops.qmatmul(a, b, **points, output_zero_point=int(rng.choice([-128, 4])), **factor)  # noqa: E731
    assert_kernel(module(build, [(1, count, rows, depth), (1, count, depth, columns)], {}), "matmul", tmp_path, rng, core)


@needs_tools
@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 7, 5)])
def test_lookup(shape: tuple[int, ...], tmp_path: Path, rng: np.random.Generator) -> None:
    params = {"table": rng.permutation(256).astype("uint8").view("int8")}
    assert_kernel(module(ops.qlut, [(1, *shape)], params), "lut", tmp_path, rng, "cortex-a72")


@needs_tools
@on_cores
def test_equal_layers_share_code(core: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Layers of one shape, whatever their weights and zero points."""
    params = {}
    for i in range(3):
        layer = {"weight": weights(rng, 16, 16), **channels(rng, 16, 16)}
        params.update({f"{name}{i}": value for name, value in layer.items()})

    def build(x: relax.Expr, *args: relax.Expr) -> relax.Call:
        for i in range(0, 12, 4):
            x = relax.BlockBuilder.current().emit(ops.qdense(x, *args[i : i + 4], input_zero_point=i, output_zero_point=i + 4))
        return x

    artifact = get_target(core).build(module(build, [(1, 9, 16)], params), tmp_path)
    assert [len(layers) for layers in artifact.info.layers.values()] == [3]


@pytest.mark.parametrize(
    ("target", "products"),
    [
        *((name, Pairs) for name in ("cortex-a53", "raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-zero-2w", "imx8m-plus")),
        *((name, Dot) for name in ("raspberry-pi-5", "jetson-orin", "neoverse-n1")),
        *((name, Matrix) for name in ("neoverse-n2", "neoverse-v1", "cortex-a510", "cortex-a710", "cortex-a715")),
        ("armv8-a", Pairs),
    ],
)
def test_the_core_decides_what_multiplies(target: str, products: type[Products]) -> None:
    assert isinstance(products_of(get_target(target).description.tvm), products)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(-(1 << 26), 1 << 26),
    st.integers(1 << 20, (1 << 31) - 1),
    st.integers(-31, 4),
    st.integers(-128, 127),
    st.sampled_from(["double", "single"]),
)
def test_the_instructions_round_as_the_reference(acc: int, multiplier: int, shift: int, zero_point: int, rounding: str) -> None:
    """SQSHL, SQRDMULH or SQDMULH, SSRA, SRSHL, in Python integers, on the words that the epilogue packs."""
    try:
        epilogue = Epilogue.of(rounding, zero_point, -128, 127, np.array([shift]))
    except NotRepresentable:
        assert rounding == "single"
        return
    q, *shifts = (int(word) for word in epilogue.parameters(np.array([multiplier]), np.array([shift]))[:, 0])
    value = acc
    if epilogue.left:
        value = min(max(value << shifts[0], -(1 << 31)), (1 << 31) - 1)
    halve = rounding == "single" and epilogue.right
    value = (2 * value * q + (0 if halve else 1 << 31)) >> 32
    if epilogue.right:
        if rounding == "double" and epilogue.keeps_sign:
            value += value >> 31
        right = -shifts[-1]
        value = (value + ((1 << right) >> 1)) >> right
    expected = int(multiply(np.array([acc]), multiplier, shift, rounding)[0])
    clipped, wanted = (min(max(v + zero_point, -128), 127) for v in (value, expected))
    assert clipped == wanted


@settings(max_examples=200, deadline=None)
@given(st.floats(0.001, 1), st.integers(-128, 127), st.sampled_from(["double", "single"]))
def test_an_operand_multiplied_once(ratio: float, zero_point: int, rounding: str) -> None:
    parameters = ops.add_parameters(ratio, 1.0, 1.0, rounding)
    operand = Operand(zero_point, parameters["input1_multiplier"], parameters["input1_shift"])
    once = Term(operand, 20, rounding).once
    values = (np.arange(-128, 128) - zero_point) << 20
    if once is not None:
        wanted = multiply(values, operand.multiplier, operand.shift, rounding)
        np.testing.assert_array_equal((values * once + (1 << 30)) >> 31, wanted)


@needs_tools
@pytest.mark.shared
@pytest.mark.parametrize(
    ("core", "name", "instructions"),
    [
        # The best of ONNX Runtime and LiteRT, executed instructions; benchmarks/cortex_a.py has all models on both cores.
        ("cortex-a72", "kws_dscnn", 1_389_000),
        ("cortex-a76", "kws_dscnn", 713_000),
        ("cortex-a76", "ic_resnet8", 1_500_000),
    ],
)
def test_whole_models_take_four_fifths_of_the_best_peer(
    core: str, name: str, instructions: int, shared: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """The official int8 models: the bytes of the reference kernels."""
    model = tvmcompress.load(shared / "models" / f"{name}_int8.tflite")
    artifact = get_target(core).build(model.module, tmp_path)
    x = rng.integers(-128, 128, (2, *artifact.inputs[0].shape[1:])).astype("int8")
    expected = np.concatenate([run(IntegerCore()(model.module), [x[i : i + 1]])[0] for i in range(2)])
    np.testing.assert_array_equal(artifact.run([x])[0], expected)
    assert (artifact.measure([x[:1]]).instructions or 0) <= 0.8 * instructions
