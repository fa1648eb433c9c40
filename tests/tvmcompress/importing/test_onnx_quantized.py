"""Importing models that ONNX Runtime has quantized: the same real values, and integers all the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import tvmcompress
from tvmcompress.importing import from_onnx
from tvmcompress.passes import LowerQDQ, get_remarks
from tvmcompress.passes._tvm import Constant, relax
from tvmcompress.passes.graph.rebuild import bindings

from ...passes.integer import running
from .quantizing import (
    INT8,
    QDQ,
    QOPERATOR,
    UINT8,
    Samples,
    float_model,
    meaning,
    network_with_normalization,
    quantize,
    small_network,
)

SHAPE = (3, 12, 12)


def samples(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype("float32")


@pytest.fixture(scope="module")
def float_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "net.onnx"
    onnx.save(small_network(), path)
    return path


def lowered(model: tvmcompress.Model) -> tvmcompress.Model:
    """The integer model; nothing of it may stay in float."""
    integer = model.apply(LowerQDQ())
    assert [remark for remark in get_remarks(integer.module) if remark.pass_name == "LowerQDQ"] == []
    return integer


def dtypes(model: tvmcompress.Model) -> dict[str, str]:
    return {name: value.dtype.name for name, value in model.params.items()}


@pytest.mark.parametrize("kind", [QDQ, QOPERATOR], ids=["qdq", "qoperator"])
@pytest.mark.parametrize("activations", [INT8, UINT8], ids=["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per_channel", "per_tensor"])
def test_small_network(tmp_path: Path, float_path: Path, kind: Any, activations: Any, per_channel: bool) -> None:
    # With 7-bit weights no kernel of ONNX Runtime saturates its 16-bit sums.
    proto = quantize(
        float_path,
        Samples(samples(40)),
        tmp_path / "q.onnx",
        kind,
        activations,
        per_channel=per_channel,
        reduce_range=True,
    )
    model = from_onnx(proto)
    x = samples(60, seed=1)
    wanted, got = meaning(proto, x), model.run(x)[0]
    # A sum that lies between two integers may round to either; a step of the softmax's result is 1/256.
    assert np.abs(got - wanted).max() < 0.04
    assert (np.abs(got - wanted) < 1e-6).mean() > 0.9
    assert (got.argmax(1) != wanted.argmax(1)).sum() <= 1
    integer = lowered(model)
    found = integer.run(x)[0]
    assert np.abs(found - wanted).max() < 0.06
    assert (found.argmax(1) != wanted.argmax(1)).sum() <= 2
    np.testing.assert_array_equal(running.compiled(integer.module, [x[:1]])[0], integer.run(x[:1])[0])


@pytest.mark.parametrize("activations", [INT8, UINT8], ids=["int8", "uint8"])
def test_same_as_onnx_s_own_reference(tmp_path: Path, float_path: Path, activations: Any) -> None:
    """The reference implementation of ONNX computes in NumPy as we do: not one value may differ by a step."""
    proto = quantize(float_path, Samples(samples(8)), tmp_path / "q.onnx", QDQ, activations, per_channel=True)
    model = from_onnx(proto)
    next(entry for entry in proto.opset_import if not entry.domain).version = 19  # the oldest it has
    reference = ReferenceEvaluator(proto)
    for sample in samples(6, seed=2):
        np.testing.assert_allclose(model.run(sample[None])[0], reference.run(None, {"x": sample[None]})[0], atol=1e-6)


def test_the_form_is_that_of_quantize(tmp_path: Path, float_path: Path) -> None:
    """Same names, integer parameters and operators as when the float model is quantized here."""
    from tvmcompress.passes import Quantize, calibrate

    proto = quantize(float_path, Samples(samples(8)), tmp_path / "q.onnx", QDQ, UINT8, per_channel=True)
    model = from_onnx(proto)
    own = tvmcompress.load(float_path)
    own = own.apply(Quantize(calibrate(own.module, [[samples(8)]])))
    assert dtypes(model) == dtypes(own)
    assert {name: value.shape for name, value in model.params.items()} == {n: v.shape for n, v in own.params.items()}
    for name in ("stem.weight", "fc.weight"):
        np.testing.assert_array_equal(model.params[name], own.params[name])
    names = {var.name for var, _ in bindings(model.module["main"])}
    assert {"x.quantized", "stem", "stem.bias_add", "stem.weight.dequantized", "dw", "fc.bias_add.quantized"} <= names
    for _, value in bindings(model.module["main"]):
        if isinstance(value, relax.Call) and value.op.name in ("relax.quantize", "relax.dequantize"):
            assert all(isinstance(arg, Constant) for arg in value.args[1:])
            assert str(value.args[2].ty.dtype) in ("int8", "int32")


def test_weights_that_are_quantized_in_the_graph(tmp_path: Path, float_path: Path) -> None:
    """QuantizeLinear of a constant is a constant."""
    options: dict[str, Any] = {"extra_options": {"AddQDQPairToWeight": True, "QuantizeBias": False}}
    proto = quantize(float_path, Samples(samples(8)), tmp_path / "q.onnx", QDQ, INT8, per_channel=True, **options)
    assert any(tensor.name == "stem.weight" for tensor in proto.graph.initializer)
    model = from_onnx(proto)
    assert model.params["stem.weight"].dtype == np.int8
    assert dtypes(model)["stem.bias"] == "float32"
    x = samples(20, seed=1)
    assert np.abs(model.run(x)[0] - meaning(proto, x)).max() < 0.04
    assert np.abs(lowered(model).run(x)[0] - meaning(proto, x)).max() < 0.06


@pytest.mark.parametrize("kind", [QDQ, QOPERATOR], ids=["qdq", "qoperator"])
@pytest.mark.parametrize("reduce_range", [True, False], ids=["seven_bits", "eight_bits"])
def test_weights_with_a_zero_point(tmp_path: Path, float_path: Path, kind: Any, reduce_range: bool) -> None:
    """Unsigned weights become int8 ones with the zero point 0: the same values, where they fit."""
    options: dict[str, Any] = {"weight_type": UINT8, "reduce_range": reduce_range}
    proto = quantize(float_path, Samples(samples(40)), tmp_path / "q.onnx", kind, UINT8, **options)
    model = from_onnx(proto)
    x = samples(40, seed=1)
    wanted = meaning(proto, x)
    integer = lowered(model)
    assert all(value.dtype == np.int8 for name, value in model.params.items() if name.endswith("weight"))
    if reduce_range:
        assert (np.abs(model.run(x)[0] - wanted) < 1e-6).mean() > 0.9
        assert len(model.provenance) == 1
    else:
        assert all("rounded again" in note for note in model.provenance[1:])
        assert len(model.provenance) > 1
    for found in (model.run(x)[0], integer.run(x)[0]):
        assert np.abs(found - wanted).max() < 0.08
        assert (found.argmax(1) != wanted.argmax(1)).sum() <= 2


def test_numbers_that_were_quantized(tmp_path: Path) -> None:
    """The constants of an activation function are quantized like tensors, yet the function becomes one table."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((6, 8)).astype("float32"),
        "root": np.float32(np.sqrt(2)),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "token": rng.standard_normal((1, 3)).astype("float32"),
        "v": rng.standard_normal((11, 4)).astype("float32"),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Div", ["a", "root"], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["c"]),
        helper.make_node("Add", ["c", "one"], ["d"]),
        helper.make_node("Mul", ["d", "half"], ["e"]),
        helper.make_node("Concat", ["e", "token"], ["f"], axis=1),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    onnx.save(float_model(nodes, weights, [1, 6]), tmp_path / "net.onnx")
    x = rng.standard_normal((60, 6)).astype("float32")
    operators = ["MatMul", "Div", "Sigmoid", "Add", "Mul", "Concat"]
    proto = quantize(tmp_path / "net.onnx", Samples(x[:30]), tmp_path / "q.onnx", QDQ, UINT8, op_types_to_quantize=operators)
    quantized = {node.input[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    assert {"one_quantized", "half_quantized", "token_quantized"} <= quantized
    model = from_onnx(proto)
    wanted = meaning(proto, x[30:])
    np.testing.assert_allclose(model.run(x[30:31])[0], wanted[:1], atol=1e-5)
    integer = lowered(model)
    found = np.concatenate([integer.run(sample[None])[0] for sample in x[30:]])
    assert np.abs(found - wanted).max() < 0.04 * np.abs(wanted).max()


@pytest.mark.parametrize("kind", [QDQ, QOPERATOR], ids=["qdq", "qoperator"])
def test_tables_that_are_looked_up(tmp_path: Path, kind: Any) -> None:
    """A quantized table is dequantized before or after it is looked up."""
    rng = np.random.default_rng(0)
    weights = {
        "table": rng.standard_normal((7, 6)).astype("float32"),
        "index": np.array([[2, 5, 0]]),
        "w": rng.standard_normal((6, 4)).astype("float32"),
    }
    nodes = [
        helper.make_node("Gather", ["table", "index"], ["rows"]),
        helper.make_node("Add", ["rows", "x"], ["sum"]),
        helper.make_node("MatMul", ["sum", "w"], ["y"]),
    ]
    onnx.save(float_model(nodes, weights, [1, 3, 6]), tmp_path / "net.onnx")
    x = rng.standard_normal((20, 3, 6)).astype("float32")
    proto = quantize(tmp_path / "net.onnx", Samples(x[:10]), tmp_path / "q.onnx", kind, INT8)
    model = from_onnx(proto)
    got = np.concatenate([model.run(sample[None])[0] for sample in x[10:]])
    assert np.abs(got - meaning(proto, x[10:])).max() < 0.02 * np.abs(got).max()


@pytest.mark.parametrize("kind", [QDQ, QOPERATOR], ids=["qdq", "qoperator"])
def test_normalization_that_was_not_folded(tmp_path: Path, kind: Any) -> None:
    """Between integers it is a depthwise convolution, so that nothing stays in float."""
    onnx.save(network_with_normalization(), tmp_path / "net.onnx")
    options: dict[str, Any] = {"per_channel": True, "reduce_range": True}
    proto = quantize(tmp_path / "net.onnx", Samples(samples(20)), tmp_path / "q.onnx", kind, UINT8, **options)
    model = from_onnx(proto)
    assert {"first", "first_bn", "second_bn.bias_add"} <= {var.name for var, _ in bindings(model.module["main"])}
    x = samples(40, seed=1)
    wanted = meaning(proto, x)
    step = np.abs(wanted).max() / 100
    assert np.abs(model.run(x)[0] - wanted).max() < step
    assert (np.abs(model.run(x)[0] - wanted) < 1e-5).mean() > 0.9
    assert np.abs(lowered(model).run(x)[0] - wanted).max() < 2 * step


@pytest.mark.shared
@pytest.mark.parametrize("kind", [QDQ, QOPERATOR], ids=["qdq", "qoperator"])
@pytest.mark.parametrize("name", ["kws", "ic"])
def test_trained_models(shared: Path, tmp_path: Path, name: str, kind: Any) -> None:
    if name == "kws":
        x = np.load(shared / "data" / "kws01_dev500.npz")["x_float"].transpose(0, 3, 1, 2).astype("float32")
        path = shared / "models" / "kws_dscnn_fp32.onnx"
    else:
        x = np.load(shared / "data" / "cifar10_dev734.npz")["x_uint8"].transpose(0, 3, 1, 2).astype("float32")
        path = shared / "models" / "ic_resnet8_fp32.onnx"
    reader, x = Samples(x[:24], "input"), x[100:180]
    activations = UINT8 if kind is QDQ else INT8
    proto = quantize(path, reader, tmp_path / "q.onnx", kind, activations, per_channel=True, reduce_range=kind is QOPERATOR)
    model = from_onnx(proto)
    wanted, got = meaning(proto, x), model.run(x)[0]
    assert (got.argmax(1) != wanted.argmax(1)).sum() <= 2
    # Sums in another order tip over where they lie between two integers.
    assert (np.abs(got - wanted) <= 1 / 256 + 1e-6).mean() > 0.95
    integer = lowered(model)
    assert (integer.run(x)[0].argmax(1) != wanted.argmax(1)).sum() <= 3
    np.testing.assert_array_equal(running.compiled(integer.module, [x[:1]])[0], integer.run(x[:1])[0])
