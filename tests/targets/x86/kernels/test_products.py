"""Products of two tensors, and layers whose rows no tile divides: byte for byte the reference, on every set of this machine."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tests.targets.x86.kernels.test_kernels import CPUS, Layer, check, kernel_names
from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops, quantize_multipliers
from tvmcompress.targets.x86.compile import compile_module
from tvmcompress.targets.x86.kernels.widths import padded_width


def module(shapes, dtype, make, params=()):
    """A module of one call: all shapes but those with values are inputs."""
    given = [relax.Var(f"x{index}", relax.TensorType(shape, dtype)) for index, shape in enumerate(shapes)]
    builder, inputs = relax.BlockBuilder(), len(given) - len(params)
    with builder.function("main", given, attrs={"num_input": inputs}):
        with builder.dataflow():
            out = builder.emit_output(builder.emit(make(*given)))
        builder.emit_func_output(out)
    values = {given[inputs + index].name: value for index, value in enumerate(params)}
    return attach_params(builder.get(), values)


def computed(mod, inputs, cpu):
    compiled = compile_module(mod, cpu)
    assert not compiled.schedules.unscheduled
    machine = relax.VirtualMachine(compiled.executable, tvm.cpu())
    return machine["main"](*(tvm.runtime.tensor(x) for x in inputs)).numpy()


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(
    ("outer", "rows", "depth", "columns", "rounding", "gain"),
    [
        ((1, 2), 17, 33, 19, "double", 1.0),
        ((3,), 16, 8, 16, "double", 1.0),
        ((), 1, 5, 40, "single", 1.0),
        ((2,), 23, 6, 3, "double", 900.0),
    ],
)
def test_integer_product(cpu, outer, rows, depth, columns, rounding, gain) -> None:
    random = np.random.default_rng(rows)
    (multiplier,), (shift,) = quantize_multipliers([gain / (90 * np.sqrt(depth))], rounding)
    options = {"input1_zero_point": -128, "input2_zero_point": 127, "output_zero_point": 5, "rounding": rounding}
    mod = module(
        [(*outer, rows, depth), (*outer, depth, columns)],
        "int8",
        lambda a, b: ops.qmatmul(a, b, multiplier=int(multiplier), shift=int(shift), **options),
    )
    a = random.integers(-128, 128, (*outer, rows, depth)).astype("int8")
    b = random.integers(-128, 128, (*outer, depth, columns)).astype("int8")
    a[..., 0, :], b[..., 0] = 127, -128  # the largest sum
    (expected,) = run(mod, [a, b])
    got = computed(mod, [a, b], cpu)
    assert got.dtype == np.int8
    np.testing.assert_array_equal(got, expected)


def test_products_that_broadcast_keep_their_definition() -> None:
    mod = module(
        [(2, 3, 4), (4, 5)],
        "int8",
        lambda a, b: ops.qmatmul(
            a, b, input1_zero_point=0, input2_zero_point=0, output_zero_point=0, multiplier=2**30, shift=-6
        ),
    )
    assert kernel_names(mod, frozenset()) == ["qmatmul"]


@pytest.mark.parametrize("cpu", [CPUS[0], CPUS[2]])
@pytest.mark.parametrize(("outer", "rows", "depth", "columns"), [((1, 2), 17, 33, 19), ((2,), 5, 16, 32), ((), 37, 3, 7)])
def test_float_product(cpu, outer, rows, depth, columns) -> None:
    random = np.random.default_rng(depth)
    a, b = (random.normal(size=(*outer, *shape)).astype("float32") for shape in ((rows, depth), (depth, columns)))
    mod = module([a.shape, b.shape], "float32", relax.op.matmul)
    np.testing.assert_allclose(computed(mod, [a, b], cpu), a.astype("float64") @ b.astype("float64"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cpu", [CPUS[0], CPUS[2]])
@pytest.mark.parametrize(("tokens", "columns"), [(17, 48), (197, 48), (1, 10), (40, 25), (3, 5)])
def test_float_layer_over_tokens(cpu, tokens, columns) -> None:
    random = np.random.default_rng(tokens)
    x, weight = random.normal(size=(1, tokens, 12)).astype("float32"), random.normal(size=(12, columns)).astype("float32")
    mod = module([x.shape, weight.shape], "float32", lambda a, w: relax.op.nn.relu(relax.op.matmul(a, w)), [weight])
    expected = np.maximum(x.astype("float64") @ weight.astype("float64"), 0)
    np.testing.assert_allclose(computed(mod, [x], cpu), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(
    ("width", "channels", "out", "kernel", "stride"), [(17, 5, 16, 3, 1), (39, 8, 10, 3, 2), (23, 16, 40, 1, 1)]
)
def test_rows_that_no_tile_divides(cpu, width, channels, out, kernel, stride) -> None:
    layer = Layer((1, 3, width, channels), width)
    operands, max_shift = layer.operands((out, kernel, kernel, channels), out, kernel * kernel * channels, "double")
    pad = [kernel // 2] * 4
    options = {"padding": pad, "strides": (1, stride), "input_zero_point": -3, "output_zero_point": 4, "max_shift": max_shift}
    check(layer, layer.finish(ops.qconv2d(layer.x, *operands, **options)), cpu)


@pytest.mark.parametrize("cpu", [CPUS[0], CPUS[2]])
@pytest.mark.parametrize(("width", "channels", "out", "stride"), [(17, 3, 16, 1), (39, 8, 10, 2), (9, 16, 60, 1), (5, 4, 3, 1)])
def test_float_rows_and_channels_that_nothing_divides(cpu, width, channels, out, stride) -> None:
    random = np.random.default_rng(width)
    x = random.normal(size=(1, channels, 4, width)).astype("float32")
    weight = random.normal(size=(out, channels, 3, 3)).astype("float32")
    options = {"padding": [1, 1, 1, 1], "strides": [1, stride]}
    mod = module(
        [x.shape, weight.shape], "float32", lambda a, w: relax.op.nn.relu(relax.op.nn.conv2d(a, w, **options)), [weight]
    )
    (expected,) = run(mod, [x])
    np.testing.assert_allclose(computed(mod, [x], cpu), expected, rtol=1e-4, atol=1e-4)


def test_computed_positions() -> None:
    for width in range(1, 400):
        wide = padded_width(width)
        assert width <= wide <= max(width, 1.06 * width + 1)
        assert wide <= 14 or any(wide % tile == 0 for tile in range(4, 15))
    assert [padded_width(width) for width in (7, 13, 56, 17, 197)] == [7, 13, 56, 18, 198]
