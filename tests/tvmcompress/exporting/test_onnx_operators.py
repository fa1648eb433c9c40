"""Every operator that is written as ONNX, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest

from tvmcompress.errors import UnsupportedOperatorError
from tvmcompress.exporting import can_export, to_onnx
from tvmcompress.exporting.writer import RULES
from tvmcompress.model import InputSpec, Model
from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import bindings

op = relax.op
nn = relax.op.nn
RNG = np.random.default_rng(0)
_IMAGE, _SEQUENCE, _ROWS, _VOLUME = (2, 4, 8, 6), (2, 4, 8), (2, 6), (1, 4, 4, 6, 8)
Build = Callable[..., relax.Expr]


def weight(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / 2).astype("float32")


def make(build: Build, shapes: list[tuple[int, ...]], params: list[np.ndarray]) -> Model:
    """`build` gets the inputs, then the parameters."""
    inputs = [relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
    values = {f"p{i}": value for i, value in enumerate(params)}
    weights = [relax.Var(name, relax.TensorType(v.shape, v.dtype.name)) for name, v in values.items()]
    builder = relax.BlockBuilder()
    with builder.function("main", [*inputs, *weights], attrs={"num_input": len(inputs)}):
        with builder.dataflow():
            out = builder.emit_output(builder.normalize(build(*inputs, *weights)))
        builder.emit_func_output(out)
    mod: tvm.IRModule = attach_params(builder.get(), values)
    specs = tuple(InputSpec(name=f"x{i}", shape=shape) for i, shape in enumerate(shapes))
    return Model(module=mod, inputs=specs, outputs=("y",))


def names(model: Model) -> set[str]:
    calls = [value for _, value in bindings(model.module["main"]) if isinstance(value, relax.Call)]
    return {call.op.name.removeprefix("relax.") for call in calls}


def check(model: Model, positive: bool = False) -> onnx.ModelProto:
    """ONNX Runtime computes what the model means."""
    proto = to_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    inputs = [RNG.standard_normal(spec.shape).astype("float32") for spec in model.inputs]
    inputs = [np.abs(x) + np.float32(0.1) for x in inputs] if positive else inputs
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {spec.name: x for spec, x in zip(model.inputs, inputs)})
    expected = run(model.module, inputs)
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)
    return proto


def const(value: float) -> relax.Expr:
    return relax.const(np.float32(value))


_INTEGERS = relax.const(np.array([2, 0, 1]))
_PLACES = relax.const(np.arange(32).reshape(2, 4, 2, 2)[..., :1] % 4, "int64")
_PAIRS = relax.const(np.array([[1, 3], [0, 2]]), "int64")
_REGIONS = relax.const(np.array([[0, 1, 1, 7, 9], [1, 0, 2, 8, 5]], "float32"))
_VECTORS = [np.linspace(0.5, 1.5, 4, dtype="float32"), weight(4), weight(4), np.linspace(0.5, 1, 4, dtype="float32")]
_UNARY = """
nn.relu nn.silu nn.gelu nn.gelu_tanh nn.selu nn.leakyrelu nn.softplus sigmoid tanh exp log sqrt rsqrt erf abs
negative floor ceil round sign sin cos square isnan isinf isfinite zeros_like ones_like
"""
_BINARY = """
add subtract multiply divide power maximum minimum floor_divide less less_equal greater greater_equal equal not_equal
"""


def _find(name: str) -> Callable[..., relax.Expr]:
    return getattr(nn, name[3:]) if name.startswith("nn.") else getattr(op, name)


def _logic(name: str) -> Build:
    return lambda x: getattr(op, name)(op.less(x, const(0.5)), op.greater(x, const(-0.5)))


def _integers(x: relax.Expr, dtype: str = "int32") -> relax.Expr:
    return op.astype(op.multiply(op.abs(x), const(9)), dtype)


CASES: dict[str, tuple[Build, list[tuple[int, ...]], list[np.ndarray]]] = {
    **{name: (_find(name), [_IMAGE], []) for name in _UNARY.split()},
    **{name: (_find(name), [_IMAGE, _IMAGE], []) for name in _BINARY.split()},
    **{name: (_logic(name), [_IMAGE], []) for name in ("logical_and", "logical_or", "logical_xor")},
    "logical_not": (lambda x: op.logical_not(op.less(x, const(0))), [_IMAGE], []),
    "where": (lambda x, y: op.where(op.less(x, y), x, op.negative(y)), [_IMAGE, _IMAGE], []),
    "clip": (lambda x: op.clip(x, -0.5, 0.75), [_IMAGE], []),
    "astype": (lambda x: op.astype(op.multiply(x, const(9)), "int32"), [_IMAGE], []),
    "nn.softplus.beta": (lambda x: nn.softplus(x, 2.0), [_IMAGE], []),
    "nn.prelu": (lambda x, p: nn.prelu(x, p, 1), [_IMAGE], [weight(4)]),
    "nn.dropout": (lambda x: relax.TupleGetItem(nn.dropout(x, 0.5), 0), [_IMAGE], []),
    "nn.conv1d": (lambda x, w: nn.conv1d(x, w, padding=1), [_SEQUENCE], [weight(6, 4, 3)]),
    "nn.conv2d": (
        lambda x, w, b: op.add(nn.conv2d(x, w, (2, 1), (1, 0, 2, 1), (1, 2), groups=2), b),
        [_IMAGE],
        [weight(6, 2, 3, 3), weight(1, 6, 1, 1)],
    ),
    "nn.conv3d": (
        lambda x, w, b: op.add(nn.conv3d(x, w, (1, 2, 1), (1, 0, 2)), b),
        [_VOLUME],
        [weight(5, 4, 2, 3, 3), weight(1, 5, 1, 1, 1)],
    ),
    "nn.conv3d_transpose": (lambda x, w: nn.conv3d_transpose(x, w, 2), [_VOLUME], [weight(4, 3, 2, 2, 2)]),
    "nn.max_pool3d": (lambda x: nn.max_pool3d(x, (2, 3, 2), (1, 2, 2), (0, 1, 1)), [_VOLUME], []),
    "nn.avg_pool3d": (lambda x: nn.avg_pool3d(x, (2, 3, 2), (1, 2, 2), (0, 1, 1)), [_VOLUME], []),
    "nn.adaptive_avg_pool3d": (lambda x: nn.adaptive_avg_pool3d(x, (2, 3, 2)), [_VOLUME], []),
    "nn.conv1d_transpose": (lambda x, w: nn.conv1d_transpose(x, w, 2), [_SEQUENCE], [weight(4, 5, 3)]),
    "nn.conv2d_transpose": (
        lambda x, w: nn.conv2d_transpose(x, w, (2, 2), (1, 1, 1, 1), (1, 1)), [_IMAGE], [weight(4, 5, 3, 3)]
    ),
    "matmul": (lambda x, w, b: op.add(op.matmul(x, w), b), [_ROWS], [weight(6, 5), weight(5)]),
    "matmul.batched": (lambda x, y: op.matmul(x, op.permute_dims(y, [0, 2, 1])), [_SEQUENCE, _SEQUENCE], []),
    "matmul.batched bias": (lambda x, w, b: op.add(op.matmul(x, w), b), [_SEQUENCE], [weight(8, 5), weight(5)]),
    "einsum": (lambda x, y: op.einsum([x, y], "nac,nbc->nab"), [_SEQUENCE, _SEQUENCE], []),
    "nn.max_pool1d": (lambda x: nn.max_pool1d(x, 3, 2, 1), [_SEQUENCE], []),
    "nn.avg_pool1d": (lambda x: nn.avg_pool1d(x, 3, 2, 1, count_include_pad=True), [_SEQUENCE], []),
    "nn.max_pool2d": (lambda x: nn.max_pool2d(x, (3, 2), (2, 2), (1, 0, 1, 1)), [_IMAGE], []),
    "nn.max_pool2d.ceil": (lambda x: nn.max_pool2d(x, (3, 3), (2, 2), ceil_mode=True), [_IMAGE], []),
    "nn.avg_pool2d": (lambda x: nn.avg_pool2d(x, (3, 3), (2, 2), (1, 1)), [_IMAGE], []),
    "nn.avg_pool2d.ceil": (lambda x: nn.avg_pool2d(x, (3, 3), (2, 2), ceil_mode=True), [_IMAGE], []),
    "nn.adaptive_avg_pool1d": (lambda x: nn.adaptive_avg_pool1d(x, 4), [_SEQUENCE], []),
    "nn.adaptive_avg_pool2d": (lambda x: nn.adaptive_avg_pool2d(x, (4, 3)), [_IMAGE], []),
    "nn.adaptive_avg_pool2d.global": (lambda x: nn.adaptive_avg_pool2d(x, (1, 1)), [_IMAGE], []),
    "nn.batch_norm": (
        lambda x, *p: relax.TupleGetItem(nn.batch_norm(x, *p, 1, training=False), 0), [_IMAGE], _VECTORS
    ),
    "nn.batch_norm.plain": (
        lambda x, *p: relax.TupleGetItem(nn.batch_norm(x, *p, 1, 1e-3, False, False, training=False), 0),
        [_IMAGE],
        _VECTORS,
    ),
    "nn.layer_norm": (lambda x, g, b: nn.layer_norm(x, g, b, -1), [_SEQUENCE], [weight(8), weight(8)]),
    "nn.layer_norm.channels": (lambda x, g, b: nn.layer_norm(x, g, b, 1), [_IMAGE], [weight(4), weight(4)]),
    "nn.rms_norm.channels": (lambda x, g: nn.rms_norm(x, g, 1), [_IMAGE], [weight(4)]),
    "nn.rms_norm": (lambda x, g: nn.rms_norm(x, g, -1), [_SEQUENCE], [weight(8)]),
    "nn.instance_norm": (lambda x, g, b: nn.instance_norm(x, g, b, 1, [2, 3]), [_IMAGE], _VECTORS[:2]),
    "nn.group_norm": (lambda x, g, b: nn.group_norm(x, g, b, 2, 1, [2, 3]), [_IMAGE], _VECTORS[:2]),
    "nn.softmax": (lambda x: nn.softmax(x, 1), [_IMAGE], []),
    "nn.log_softmax": (lambda x: nn.log_softmax(x, -1), [_IMAGE], []),
    **{
        name: (lambda x, name=name: getattr(op, name)(x, [1, -1], True), [_IMAGE], [])
        for name in ("mean", "sum", "max", "min", "prod", "variance", "std")
    },
    "mean.global": (lambda x: op.mean(x, [2, 3], True), [_IMAGE], []),
    "mean.all": (lambda x: op.mean(x), [_IMAGE], []),
    "sum.drop": (lambda x: op.sum(x, [2], False), [_IMAGE], []),
    "argmax": (lambda x: op.argmax(x, 1), [_IMAGE], []),
    "argmin": (lambda x: op.argmin(x), [_IMAGE], []),
    "reshape": (lambda x: op.reshape(x, (2, 8, 24)), [_IMAGE], []),
    "flatten": (lambda x: op.flatten(x), [_IMAGE], []),
    "squeeze": (lambda x: op.squeeze(op.expand_dims(x, [1]), [1]), [_IMAGE], []),
    "expand_dims": (lambda x: op.expand_dims(x, [1, 3]), [_IMAGE], []),
    "broadcast_to": (lambda x: op.broadcast_to(x, (3, 2, 4, 8)), [_SEQUENCE], []),
    "permute_dims": (lambda x: op.permute_dims(x, [0, 3, 1, 2]), [_IMAGE], []),
    "permute_dims.reversed": (lambda x: op.permute_dims(x), [_IMAGE], []),
    "concat": (lambda x, y: op.concat([x, y, x], 1), [_IMAGE, _IMAGE], []),
    "stack": (lambda x, y: op.stack([x, y], -1), [_IMAGE, _IMAGE], []),
    "split": (lambda x: relax.TupleGetItem(op.split(x, [1, 4], 2), 1), [_IMAGE], []),
    "strided_slice": (lambda x: op.strided_slice(x, [1, 2], [0, 7], [3, 1], [2, -2]), [_IMAGE], []),
    "flip": (lambda x: op.flip(x, 2), [_IMAGE], []),
    "take": (lambda x: op.take(x, _INTEGERS, 1), [_IMAGE], []),
    "take.flat": (lambda x: op.take(op.reshape(x, (384,)), _INTEGERS), [_IMAGE], []),
    "repeat": (lambda x: op.repeat(x, 2, 1), [_IMAGE], []),
    "tile": (lambda x: op.tile(x, [2, 1, 1, 3]), [_SEQUENCE], []),
    "nn.pad": (lambda x: nn.pad(x, (0, 0, 0, 0, 1, 2, 0, 3), "constant", 0.5), [_IMAGE], []),
    "nn.pad.reflect": (lambda x: nn.pad(x, (0, 0, 0, 0, 1, 2, 0, 3), "reflect"), [_IMAGE], []),
    "nn.pad.replicate": (lambda x: nn.pad(x, (0, 0, 0, 0, 1, 2, 0, 3), "replicate"), [_IMAGE], []),
    "image.resize2d": (lambda x: op.image.resize2d(x, (5, 9), layout="NCHW", method="linear"), [_IMAGE], []),
    "image.resize2d.nearest": (
        lambda x: op.image.resize2d(
            x, (16, 12), layout="NCHW", method="nearest_neighbor", coordinate_transformation_mode="asymmetric",
            rounding_method="floor",
        ),
        [_IMAGE],
        [],
    ),
}  # fmt: skip
# Written, but without a form in PyTorch, where models are trained.
UNTRAINED: dict[str, tuple[Build, list[tuple[int, ...]], list[np.ndarray]]] = {
    **{name: (_find(name), [_IMAGE], []) for name in ["tan", "acos", "asin", "atan", "acosh", "asinh", "atanh", "trunc"]},
    **{name: (_find(name), [_IMAGE, _IMAGE], []) for name in ("mod", "floor_mod")},
    "nn.avg_pool2d.dilated": (lambda x: nn.avg_pool2d(x, (2, 2), dilation=(2, 1)), [_IMAGE], []),
    "gather_elements": (lambda x: op.gather_elements(x, _PLACES, 1), [_IMAGE], []),
    "gather_nd": (lambda x: op.gather_nd(x, _PLACES, 1), [_IMAGE], []),
    "scatter_elements": (lambda x: op.scatter_elements(x, _PLACES, op.gather_elements(x, _PLACES, 1), 1), [_IMAGE], []),
    "scatter_elements.max": (
        lambda x: op.scatter_elements(x, _PLACES, op.negative(op.gather_elements(x, _PLACES, 1)), 1, "max"), [_IMAGE], []
    ),
    "scatter_nd": (lambda x, y: op.scatter_nd(x, _PAIRS, op.negative(y), "add"), [_IMAGE, (2, 8, 6)], []),
    "topk": (lambda x: relax.TupleGetItem(op.topk(x, 3, 2, "both", True, "int64"), 1), [_IMAGE], []),
    "image.grid_sample": (lambda x, g: op.image.grid_sample(x, op.tanh(g), align_corners=True), [_IMAGE, (2, 2, 3, 5)], []),
    "vision.roi_align": (lambda x: op.vision.roi_align(x, _REGIONS, (2, 3), 0.5, 2, True), [_IMAGE], []),
    **{
        name: (lambda x, y, name=name: getattr(op, name)(_integers(x), _integers(y)), [_IMAGE, _IMAGE], [])
        for name in ("bitwise_and", "bitwise_or", "bitwise_xor")
    },
    "bitwise_not": (lambda x: op.bitwise_not(_integers(x)), [_IMAGE], []),
    **{
        name: (lambda x, name=name: getattr(op, name)(_integers(x, "uint8"), relax.const(np.uint8(2))), [_IMAGE], [])
        for name in ("left_shift", "right_shift")
    },
}  # fmt: skip
_ALL = CASES | UNTRAINED


@pytest.mark.parametrize("case", _ALL)
def test_operator(case: str) -> None:
    build, shapes, params = _ALL[case]
    model = make(build, shapes, params)
    name = case if f"relax.{case}" in RULES else case.rpartition(".")[0]
    assert name in names(model)
    check(model, positive=name in ("log", "sqrt", "rsqrt", "power", "floor_divide"))


def test_quantized_operators() -> None:
    scale, zero = relax.const(np.float32(0.05)), relax.const(np.int8(-3))
    model = make(lambda x: op.dequantize(op.quantize(x, scale, zero, out_dtype="int8"), scale, zero), [_IMAGE], [])
    proto = check(model)
    assert [node.op_type for node in proto.graph.node] == ["QuantizeLinear", "DequantizeLinear"]


def test_every_operator_is_tested() -> None:
    tested = {case if f"relax.{case}" in RULES else case.rpartition(".")[0] for case in _ALL}
    assert {f"relax.{name}" for name in tested | {"quantize", "dequantize"}} == set(RULES)


def test_a_bias_is_an_operand() -> None:
    build, shapes, params = CASES["nn.conv2d"]
    graph = to_onnx(make(build, shapes, params)).graph
    assert [node.op_type for node in graph.node] == ["Conv"]
    assert {tensor.name: list(tensor.dims) for tensor in graph.initializer} == {"p0": [6, 2, 3, 3], "p1": [6]}
    build, shapes, params = CASES["matmul"]
    assert [node.op_type for node in to_onnx(make(build, shapes, params)).graph.node] == ["Gemm"]


def test_a_sum_that_others_read_is_no_bias() -> None:
    def build(x: relax.Expr, w: relax.Expr, b: relax.Expr) -> relax.Expr:
        y = nn.conv2d(x, w)
        return op.add(op.add(y, b), op.nn.relu(y))

    proto = check(make(build, [_IMAGE], [weight(4, 4, 1, 1), weight(1, 4, 1, 1)]))
    assert [node.op_type for node in proto.graph.node].count("Add") == 2


def test_ends_that_are_not_computed() -> None:
    """Inputs, parameters and one tensor twice as outputs."""

    def build(x: relax.Expr, p: relax.Expr) -> relax.Expr:
        y = op.nn.relu(x)
        return relax.Tuple([y, x, p, y])

    proto = check(make(build, [_ROWS], [weight(3)]))
    assert [value.name for value in proto.graph.output] == ["output0", "output1", "output2", "output3"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda x: op.cumsum(x, 1), "uses operator cumsum, which cannot be written as ONNX"),
        (lambda x: nn.max_pool2d(x, (2, 2), layout="NHWC"), r"nn.max_pool2d\) cannot .*: its layout is NHWC"),
        (lambda x: nn.adaptive_avg_pool2d(x, (3, 3)), r"\[8, 6\] is no multiple of \[3, 3\]"),
        (lambda x: nn.pad(x, (0, 0, 0, 0, 1, 1, 1, 1), "circular"), "it pads by 'circular'"),
    ],
)
def test_what_cannot_be_written(build: Build, message: str) -> None:
    model = make(build, [_IMAGE], [])
    with pytest.raises(UnsupportedOperatorError, match=message) as caught:
        to_onnx(model)
    assert "layer '" in str(caught.value)
    assert not can_export(model)
