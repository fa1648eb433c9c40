"""The interpreter against compiled TVM: every reference in the table, and batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import Interpreter, run
from tvmcompress.passes.reference import reference_of

op = relax.op
Build = Callable[..., relax.Expr]


def _module(build: Build, *shapes: tuple[int, ...], dtype: str = "float32") -> tvm.IRModule:
    inputs = [relax.Var(f"x{i}", relax.TensorType(shape, dtype)) for i, shape in enumerate(shapes)]
    builder = relax.BlockBuilder()
    with builder.function("main", inputs, attrs={"num_input": len(inputs)}):
        with builder.dataflow():
            out = builder.emit_output(build(*inputs))
        builder.emit_func_output(out)
    return attach_params(builder.get(), {})


def _compiled(mod: tvm.IRModule, inputs: list[np.ndarray]) -> list[np.ndarray]:
    # Without this TVM compiles batch normalization as in training.
    bare = relax.transform.DecomposeOpsForInference()(mod.without_attr("tvmcompress.params"))
    machine = relax.VirtualMachine(tvm.compile(bare, target="llvm"), tvm.cpu())
    result = machine["main"](*(tvm.runtime.tensor(value) for value in inputs))
    return [result.numpy()] if isinstance(result, tvm.runtime.Tensor) else [part.numpy() for part in result]


_AXES = [2, 3]
CASES: dict[str, tuple[Build, list[tuple[int, ...]]]] = {
    "conv2d": (lambda x, w: op.nn.conv2d(x, w, (2, 1), (1, 2, 0, 1), (1, 2)), [(1, 3, 9, 11), (4, 3, 3, 2)]),
    "grouped": (lambda x, w: op.nn.conv2d(x, w, padding=1, groups=2), [(1, 4, 6, 6), (6, 2, 3, 3)]),
    "depthwise": (lambda x, w: op.nn.conv2d(x, w, 2, 1, groups=4), [(1, 4, 7, 6), (4, 1, 3, 3)]),
    "multiplier": (lambda x, w: op.nn.conv2d(x, w, groups=2), [(1, 2, 5, 5), (6, 1, 3, 3)]),
    "one channel": (lambda x, w: op.nn.conv2d(x, w), [(1, 1, 5, 5), (3, 1, 3, 3)]),
    "conv2d nhwc": (
        lambda x, w: op.nn.conv2d(x, w, padding=1, data_layout="NHWC", kernel_layout="OHWI"),
        [(1, 6, 5, 3), (4, 3, 3, 3)],
    ),
    "conv1d": (lambda x, w: op.nn.conv1d(x, w, 2, 1), [(1, 3, 12), (5, 3, 3)]),
    "conv3d": (lambda x, w: op.nn.conv3d(x, w, (1, 2, 1), (0, 1, 2, 0, 1, 0)), [(1, 2, 4, 6, 5), (4, 2, 1, 3, 3)]),
    "conv transpose": (lambda x, w: op.nn.conv2d_transpose(x, w, 2, 1), [(1, 3, 5, 5), (3, 4, 3, 3)]),
    "conv transpose in groups": (
        lambda x, w: op.nn.conv2d_transpose(x, w, (2, 3), (1, 0, 0, 1), (1, 2), groups=2),
        [(1, 6, 4, 5), (6, 2, 3, 4)],
    ),
    "conv transpose that cuts off more than the kernel": (
        lambda x, w: op.nn.conv2d_transpose(x, w, 1, 2),
        [(1, 3, 7, 7), (3, 4, 2, 2)],
    ),
    "conv1d transpose": (lambda x, w: op.nn.conv1d_transpose(x, w, 2, 1, 1), [(1, 4, 7), (4, 3, 4)]),
    "matmul": (op.matmul, [(1, 5, 6), (6, 3)]),
    "batch matmul": (op.matmul, [(1, 2, 5, 6), (1, 2, 6, 3)]),
    "einsum": (lambda x, y: op.einsum((x, y), "bij,bjk->bik"), [(1, 3, 4), (1, 4, 5)]),
    "batch norm": (
        lambda x, g, b, m, v: relax.TupleGetItem(op.nn.batch_norm(x, g, b, m, op.abs(v), axis=1), 0),
        [(1, 3, 4, 4), (3,), (3,), (3,), (3,)],
    ),
    "layer norm": (lambda x, g, b: op.nn.layer_norm(x, g, b, [-1]), [(1, 5, 6), (6,), (6,)]),
    "rms norm": (lambda x, g: op.nn.rms_norm(x, g, [-1]), [(1, 5, 6), (6,)]),
    "group norm": (lambda x, g, b: op.nn.group_norm(x, g, b, 2, 1, _AXES), [(1, 4, 3, 3), (4,), (4,)]),
    "instance norm": (lambda x, g, b: op.nn.instance_norm(x, g, b, 1, _AXES), [(1, 4, 3, 3), (4,), (4,)]),
    "softmax": (lambda x: op.nn.softmax(x, -1), [(1, 7)]),
    "log softmax": (lambda x: op.nn.log_softmax(x, -1), [(1, 7)]),
    "max pool": (lambda x: op.nn.max_pool2d(x, (3, 2), (2, 1), (1, 0, 1, 1)), [(1, 2, 7, 6)]),
    "max pool ceil": (lambda x: op.nn.max_pool2d(x, 3, 2, ceil_mode=True), [(1, 2, 8, 8)]),
    "max pool nhwc": (lambda x: op.nn.max_pool2d(x, 2, 2, layout="NHWC"), [(1, 4, 4, 3)]),
    "avg pool": (lambda x: op.nn.avg_pool2d(x, 3, 2, 1), [(1, 2, 7, 7)]),
    "avg pool padded": (lambda x: op.nn.avg_pool2d(x, 3, 2, 1, count_include_pad=True), [(1, 2, 7, 7)]),
    "adaptive": (lambda x: op.nn.adaptive_avg_pool2d(x, (2, 3)), [(1, 2, 7, 7)]),
    "mean": (lambda x: op.mean(x, _AXES, keepdims=True), [(1, 3, 4, 5)]),
    "sum": (lambda x: op.sum(x, [-1]), [(1, 3, 4)]),
    "max": (lambda x: op.max(x, [1]), [(1, 3, 4)]),
    "variance": (lambda x: op.variance(x, [1]), [(1, 3, 4)]),
    "argmax": (lambda x: op.argmax(x, 1), [(1, 9)]),
    "reshape": (lambda x: op.reshape(x, (1, 12)), [(1, 3, 4)]),
    "permute": (lambda x: op.permute_dims(x, [0, 2, 3, 1]), [(1, 3, 4, 5)]),
    "concat": (lambda x, y: op.concat([x, y], 1), [(1, 3, 4), (1, 2, 4)]),
    "split": (lambda x: op.split(x, [1, 3], 1), [(1, 5, 2)]),
    "sections": (lambda x: op.split(x, 3, 1), [(1, 6, 2)]),
    "slice": (lambda x: op.strided_slice(x, [1, 2], [1, 0], [5, 4], [2, 1]), [(1, 6, 4)]),
    "take": (lambda x: op.take(x, relax.const([2, 0], "int64"), 1), [(1, 4, 2)]),
    "squeeze": (lambda x: op.squeeze(x, [2]), [(1, 4, 1)]),
    "expand": (lambda x: op.expand_dims(x, [1]), [(1, 4)]),
    "broadcast": (lambda x: op.broadcast_to(x, (1, 4, 3)), [(1, 4, 1)]),
    "flip": (lambda x: op.flip(x, 1), [(1, 4, 2)]),
    "tile": (lambda x: op.tile(x, (1, 2, 1)), [(1, 2, 3)]),
    "repeat": (lambda x: op.repeat(x, 2, 1), [(1, 2, 3)]),
    "pad": (lambda x: op.nn.pad(x, [0, 0, 1, 2], "constant", 0.5), [(1, 4)]),
    "resize": (lambda x: op.image.resize2d(x, (8, 8), layout="NCHW", method="nearest_neighbor"), [(1, 2, 4, 4)]),
    "resize linear": (
        lambda x: op.image.resize2d(x, (7, 9), layout="NCHW", method="linear", coordinate_transformation_mode="half_pixel"),
        [(1, 2, 4, 4)],
    ),
    "resize corners": (
        lambda x: op.image.resize2d(
            x, (7, 9), layout="NHWC", method="linear", coordinate_transformation_mode="align_corners"
        ),
        [(1, 4, 4, 2)],
    ),
    "resize down": (
        lambda x: op.image.resize2d(
            x,
            (3, 5),
            layout="NCHW",
            method="nearest_neighbor",
            coordinate_transformation_mode="asymmetric",
            rounding_method="floor",
        ),
        [(1, 2, 8, 8)],
    ),
    "where": (lambda x, y: op.where(op.less(x, y), x, y), [(1, 5), (1, 5)]),
    "clip": (lambda x: op.clip(x, -0.25, 0.5), [(1, 50)]),
    "leaky": (lambda x: op.nn.leakyrelu(x, 0.1), [(1, 50)]),
    "prelu": (lambda x, a: op.nn.prelu(x, a, 1), [(1, 3, 4), (3,)]),
    "softplus": (lambda x: op.nn.softplus(x), [(1, 50)]),
    "hard swish": (
        lambda x: op.multiply(x, op.divide(op.clip(op.add(x, relax.const(3.0)), 0, 6), relax.const(6.0))),
        [(1, 50)],
    ),
    "quantize": (lambda x: op.quantize(x, relax.const(0.02), relax.const(3, "int8"), out_dtype="int8"), [(1, 500)]),
}
for _name in ("relu", "relu6", "silu", "gelu", "gelu_tanh", "selu"):
    CASES[_name] = (getattr(op.nn, _name), [(1, 50)])
for _name in ("sigmoid", "tanh", "exp", "erf", "abs", "negative", "floor", "ceil", "sign", "sin", "square"):
    CASES[_name] = (getattr(op, _name), [(1, 50)])
for _name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
    CASES[_name] = (getattr(op, _name), [(1, 3, 4), (4,)])


@pytest.mark.parametrize("case", CASES)
def test_meaning_equals_compiled(case: str) -> None:
    build, shapes = CASES[case]
    mod = _module(build, *shapes)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    for got, expected in zip(run(mod, inputs), _compiled(mod, inputs), strict=True):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", ["conv2d", "conv2d nhwc", "matmul"])
def test_integers_are_exact(case: str) -> None:
    shapes = CASES[case][1]
    build = {
        "conv2d": lambda x, w: op.nn.conv2d(x, w, out_dtype="int32"),
        "conv2d nhwc": lambda x, w: op.nn.conv2d(x, w, data_layout="NHWC", kernel_layout="OHWI", out_dtype="int32"),
        "matmul": lambda x, w: op.matmul(x, w, out_dtype="int32"),
    }[case]
    mod = _module(build, *shapes, dtype="int8")
    rng = np.random.default_rng(1)
    inputs = [rng.integers(-128, 128, shape).astype("int8") for shape in shapes]
    np.testing.assert_array_equal(run(mod, inputs)[0], _compiled(mod, inputs)[0])


def test_stacked_batch_equals_samples() -> None:
    mod = _module(lambda x: op.reshape(op.nn.max_pool2d(x, 2, 2), (1, 12)), (1, 3, 4, 4))
    x = np.random.default_rng(2).standard_normal((7, 3, 4, 4)).astype("float32")
    interpreter = Interpreter(mod)
    expected = np.concatenate([interpreter([sample[None]])[0] for sample in x])
    np.testing.assert_array_equal(interpreter([x])[0], expected)
    assert interpreter._batchable


def test_graph_that_mixes_axis_0_runs_by_sample() -> None:
    """A sum over axis 0 would mix stacked samples."""
    mod = _module(lambda x: op.sum(x, [0], keepdims=True), (1, 3))
    x = np.random.default_rng(3).standard_normal((4, 3)).astype("float32")
    interpreter = Interpreter(mod)
    np.testing.assert_array_equal(interpreter([x])[0], x)
    assert not interpreter._batchable


def test_taps_see_every_tensor() -> None:
    mod = _module(lambda x: op.nn.relu(op.negative(x)), (1, 3))
    seen: dict[str, np.ndarray] = {}
    result = run(mod, [np.array([[1, -2, 3]], "float32")], lambda name, value: seen.update({name: value}))
    assert next(iter(seen)) == "x0"
    assert any(np.array_equal(value, [[-1, 2, -3]]) for value in seen.values())
    np.testing.assert_array_equal(result[0], [[0, 2, 0]])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 4), "float32"), "has shape"),
        (np.zeros((1, 3), "float64"), "is float32"),
        (np.zeros((0, 3), "float32"), "has shape"),
    ],
)
def test_wrong_inputs_are_refused(value: np.ndarray, message: str) -> None:
    mod = _module(lambda x: op.abs(x), (1, 3))
    with pytest.raises(ValueError, match=message):
        run(mod, [value])


def test_operator_without_a_meaning_is_compiled() -> None:
    assert reference_of("relax.cumsum") is None
    mod = _module(lambda x: op.cumsum(x, 1), (1, 4))
    np.testing.assert_allclose(run(mod, [np.ones((1, 4), "float32")])[0], [[1, 2, 3, 4]])


def test_execution_apart_gives_what_single_samples_give() -> None:
    """Whatever a graph does with axis 0: each sample is computed alone, and results lie one behind the other."""
    x = relax.Var("x", relax.TensorType((1, 3, 4), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            rows = builder.emit(relax.op.concat([relax.const(np.ones((1, 1, 4), "float32")), x], 1))
            flat = builder.emit(relax.op.reshape(rows, (4, 4)))
            parts = builder.emit(relax.op.split(flat, 2, 0))
            scaled = builder.emit(relax.op.multiply(relax.TupleGetItem(parts, 1), relax.op.sum(flat)))
            out = builder.emit_output(scaled)
        builder.emit_func_output(out)
    interpreter = Interpreter(attach_params(builder.get(), {}))
    samples = np.random.default_rng(0).standard_normal((5, 3, 4)).astype("float32")
    assert not interpreter.takes_batches([samples])
    execution = interpreter.start([samples])
    for _ in execution:
        pass
    expected = np.concatenate([interpreter([sample[None]])[0] for sample in samples])
    np.testing.assert_array_equal(execution.outputs()[0], expected)
