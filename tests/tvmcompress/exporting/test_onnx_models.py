"""Whole models as ONNX: ONNX Runtime gives what the model gives, and importing gives the model back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import tvmcompress
from tvmcompress.errors import UnsupportedOperatorError, UserError
from tvmcompress.exporting import to_onnx
from tvmcompress.importing import from_onnx
from tvmcompress.passes import LowerQDQ, PruneChannels, Quantize, Scheme, calibrate

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
MODELS = [
    "ic_resnet8_fp32",
    "kws_dscnn_fp32",
    "vww_mobilenetv1_025_96_fp32",
    "ad_autoencoder_fp32",
    "cifar_resnet20_fp32",
    "cwru_cnn1d_fp32",
    "yunet_n_320_320",
]


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Operator by operator: with optimizations, x86 kernels may saturate the sums of quantized layers."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def first_outputs(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    runner = session(proto)
    name = runner.get_inputs()[0].name
    return np.concatenate([runner.run(None, {name: x[index : index + 1]})[0] for index in range(len(x))])


def checked(model: tvmcompress.Model) -> onnx.ModelProto:
    proto = to_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def quantized(model: tvmcompress.Model, samples: np.ndarray, weights: str = "per_channel") -> tvmcompress.Model:
    return model.apply(Quantize(calibrate(model.module, [[samples]]), weights=weights))


def digits() -> tuple[tvmcompress.Model, np.ndarray, np.ndarray]:
    """The example, calibration and test images."""
    model = tvmcompress.load(EXAMPLES / "digits.onnx")
    specs = model.inputs
    calibration, test = (
        tvmcompress.load_data(EXAMPLES / f"digits_{part}.npz", specs).inputs()[0] for part in ("calib", "test")
    )
    return model, calibration, test


@pytest.mark.shared
@pytest.mark.parametrize("name", MODELS)
def test_float_models(shared: Path, name: str) -> None:
    model = tvmcompress.load(shared / "models" / f"{name}.onnx")
    proto = checked(model)
    assert [value.name for value in proto.graph.input] == [spec.name for spec in model.inputs]
    assert [value.name for value in proto.graph.output] == list(model.outputs)
    x = np.random.default_rng(0).random(model.inputs[0].shape).astype("float32")
    found = session(proto).run(None, {model.inputs[0].name: x})
    for got, wanted in zip(found, model.run(x), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * max(1, np.abs(wanted).max()))


def test_pruned_model() -> None:
    model, _, images = digits()
    pruned = model.apply(PruneChannels(0.5))
    np.testing.assert_allclose(first_outputs(checked(pruned), images[:40]), pruned.run(images[:40])[0], atol=1e-5)


@pytest.mark.parametrize("weights", ["per_channel", "per_tensor"])
def test_quantized_example(weights: str) -> None:
    model, calibration, images = digits()
    qdq = quantized(model, calibration, weights)
    found, wanted = first_outputs(checked(qdq), images), qdq.run(images)[0]
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.99
    assert (np.abs(found - wanted) < 1e-4).mean() > 0.95


@pytest.mark.shared
@pytest.mark.parametrize("name", ["kws", "ic"])
def test_quantized_models(shared: Path, name: str) -> None:
    file = "kws01_dev500.npz" if name == "kws" else "cifar10_dev734.npz"
    x = np.load(shared / "data" / file)["x_float" if name == "kws" else "x_uint8"]
    x = x.transpose(0, 3, 1, 2).astype("float32")
    model = tvmcompress.load(shared / "models" / f"{'kws_dscnn' if name == 'kws' else 'ic_resnet8'}_fp32.onnx")
    qdq = quantized(model, x[:32])
    found, wanted = first_outputs(checked(qdq), x[100:300]), qdq.run(x[100:300])[0]
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.99


def test_quantized_model_comes_back() -> None:
    """Names, integers and scales survive, so the integer programs are the same."""
    model, calibration, images = digits()
    qdq = quantized(model, calibration[:50])
    back = from_onnx(checked(qdq))
    assert list(back.params) == list(qdq.params)
    for name, value in qdq.params.items():
        np.testing.assert_array_equal(back.params[name], value)
    np.testing.assert_array_equal(back.run(images[:20])[0], qdq.run(images[:20])[0])
    np.testing.assert_array_equal(*(m.apply(LowerQDQ()).run(images[:20])[0] for m in (back, qdq)))


def test_few_bits_are_a_clip_in_front_of_the_rounding() -> None:
    """ONNX Runtime computes with it as with any, and what comes back is the same integer program."""
    model, calibration, images = digits()
    scheme = Scheme("int4", activation_bits=4)
    qdq = model.apply(Quantize(calibrate(model.module, [[calibration[:50]]]), precision=scheme))
    proto = checked(qdq)
    made = {node.output[0]: node.op_type for node in proto.graph.node}
    rounded = [made.get(node.input[0]) for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert "Clip" in rounded
    found, wanted = first_outputs(proto, images[:100]), qdq.run(images[:100])[0]
    assert (np.abs(found - wanted) < 1e-4).mean() > 0.9
    np.testing.assert_array_equal(*(m.apply(LowerQDQ()).run(images[:20])[0] for m in (from_onnx(proto), qdq)))


def test_integers_are_as_narrow_as_promised() -> None:
    """int8 weights with a scale a channel, int32 biases, int8 activations with one scale."""
    model, calibration, _ = digits()
    graph = checked(quantized(model, calibration[:50])).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    made = {node.output[0]: node for node in graph.node}
    assert convolutions
    for conv in convolutions:
        weight, bias = (made[name] for name in conv.input[1:])
        assert values[weight.input[0]].dtype == np.int8
        assert values[weight.input[1]].shape == values[weight.input[0]].shape[:1]
        assert values[bias.input[0]].dtype == np.int32
        assert values[made[conv.input[0]].input[2]].dtype == np.int8


def test_file(tmp_path: Path) -> None:
    model, _, images = digits()
    tvmcompress.export_onnx(model, tmp_path / "digits.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["digits.onnx"]
    again = tvmcompress.load(tmp_path / "digits.onnx")
    np.testing.assert_allclose(again.run(images[:3])[0], model.run(images[:3])[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="cannot be written"):
        tvmcompress.export_onnx(model, tmp_path / "nowhere" / "digits.onnx")


def test_integer_models_are_refused() -> None:
    model, calibration, _ = digits()
    integer = quantized(model, calibration[:20]).apply(LowerQDQ())
    with pytest.raises(UnsupportedOperatorError, match=r"export the model in QDQ form.*qdq_model"):
        to_onnx(integer)
