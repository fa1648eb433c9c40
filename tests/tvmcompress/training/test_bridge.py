"""Modules in PyTorch compute what the interpreter computes, and their gradients are those of finite differences."""

# mypy: ignore-errors

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from tvmcompress.data.dataset import load_data
from tvmcompress.errors import MissingToolError, UnsupportedOperatorError, UserError
from tvmcompress.passes import get_params
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.training import TorchModel

from ...passes.conftest import Net
from ...passes.small_models import model as small_model
from ...passes.small_models import weights
from ..exporting.test_onnx_operators import CASES, make

op, nn = relax.op, relax.op.nn
POSITIVE = ("log", "sqrt", "rsqrt", "power", "floor_divide")
IMAGE, SEQUENCE, ATTENTION = (2, 4, 8, 6), (2, 6, 8), (2, 5, 3, 4)
EXTRA = {
    "nn.relu6": (lambda x: nn.relu6(x), [IMAGE]),
    "nn.attention": (lambda q, k, v: nn.attention(q, k, v), [ATTENTION] * 3),
    "nn.attention scale": (lambda q, k, v: nn.attention(q, k, v, scale=0.25), [ATTENTION] * 3),
    "take negative": (lambda x: op.take(x, relax.const(np.array([[-1, 0], [1, -2]])), 2), [IMAGE]),
    "nn.pad circular": (lambda x: nn.pad(x, (0, 0, 0, 0, 1, 2, 0, 3), "circular"), [IMAGE]),
    "conv2d_transpose output padding": (
        lambda x, w: nn.conv2d_transpose(x, w, (2, 2), (1, 0, 2, 1), (1, 1), groups=2),
        [IMAGE, (4, 3, 3, 3)],
    ),
    "conv2d NHWC": (
        lambda x, w: nn.conv2d(x, w, (2, 2), (1, 1), data_layout="NHWC", kernel_layout="OHWI"),
        [(2, 8, 6, 4), (5, 3, 3, 4)],
    ),
    "avg_pool2d NHWC": (lambda x: nn.avg_pool2d(x, (2, 2), (2, 2), layout="NHWC"), [(2, 8, 6, 4)]),
    "pool that leaves a rest": (lambda x: nn.max_pool2d(x, (2, 2), (3, 3)), [IMAGE]),
    "split": (lambda x: op.split(x, 3, 1), [SEQUENCE]),
    "strided_slice": (lambda x: op.strided_slice(x, [1, -1], [1, 2], [99, -1], [1, 3]), [SEQUENCE]),
    "resize corners": (
        lambda x: op.image.resize2d(x, (13, 3), layout="NCHW", method="linear", coordinate_transformation_mode="align_corners"),
        [IMAGE],
    ),
}


def residual():
    """Convolutions of all kinds with a residual addition, and a flattening classifier."""
    built = Net((1, 3, 8, 8))
    x = built.relu(built.batch_norm(built.conv(built.x, 8)))
    y = built.silu(built.depthwise(x, kernel=3))
    y = built.hard_swish(built.add(x, built.conv(y, 8, kernel=1)))
    parts = built.split(built.shuffle(y, 2), 2)
    y = built.concat(parts[1], built.relu(built.conv(parts[0], 4, groups=2)))
    y = built.emit(nn.max_pool2d(y, (2, 2), (2, 2)))
    return built.finish(built.dense(built.reshape(y, 1, 8 * 16), 5))


def attention():
    """One attention block: reshapes with the batch in front, products of activations, layer normalization, GELU."""
    built = Net((1, 6, 8))
    x = built.layer_norm(built.x)
    query, key, value = (built.permute(built.reshape(built.dense(x, 8), 1, 6, 2, 4), 0, 2, 1, 3) for _ in range(3))
    scores = built.emit(nn.softmax(built.emit(op.matmul(query, built.permute(key, 0, 1, 3, 2))), -1))
    mixed = built.permute(built.emit(op.matmul(scores, value)), 0, 2, 1, 3)
    x = built.add(built.x, built.dense(built.reshape(mixed, 1, 6, 8), 8))
    x = built.add(x, built.dense(built.emit(nn.gelu(built.dense(x, 16))), 8))
    return built.finish(built.dense(built.mean(x, (1,), False), 4), x)


def mixing():
    """What it computes depends on which samples are in a batch."""
    built = Net((1, 4))
    return built.finish(built.add(built.dense(built.x, 4), built.emit(op.mean(built.x, [0], True))))


NETS = {build.__name__: build for build in (residual, attention, mixing)}


def close(found, expected, tolerance=1e-4):
    assert len(found) == len(expected)
    for value, other in zip(found, expected):
        assert value.shape == other.shape
        np.testing.assert_allclose(value, other, rtol=tolerance, atol=tolerance * max(np.abs(other).max(), 1e-3))


def outputs(mod, inputs):
    return [value.detach().numpy() for value in TorchModel(mod)(*inputs)]


def samples(shapes, positive=False):
    rng = np.random.default_rng(3)
    inputs = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    return [np.abs(x) + np.float32(0.1) for x in inputs] if positive else inputs


@pytest.mark.parametrize("case", CASES)
def test_operator(case):
    build, shapes, params = CASES[case]
    module, inputs = make(build, shapes, params).module, samples(shapes, case in POSITIVE)
    found, expected = outputs(module, inputs), run(module, inputs)
    assert [value.dtype for value in found] == [value.dtype for value in expected]
    close(found, expected)


@pytest.mark.parametrize("case", EXTRA)
def test_variant(case):
    build, shapes = EXTRA[case]
    module, inputs = make(build, shapes, []).module, samples(shapes)
    close(outputs(module, inputs), run(module, inputs))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("batch", [1, 5])
def test_batches(name, batch):
    mod = NETS[name]()
    shapes = [tuple(int(dim) for dim in mod["main"].params[0].ty.shape)]
    inputs = samples([(batch, *shapes[0][1:])])
    close(outputs(mod, inputs), run(mod, inputs))


def test_digits(digits_model, digits):
    (x,) = load_data(digits / "digits_test.npz", digits_model.inputs, limit=40).inputs()
    close(outputs(digits_model.module, [x]), digits_model.run(x))


@pytest.mark.parametrize("name", ["residual", "attention"])
def test_gradients_are_finite_differences(name, monkeypatch):
    model = TorchModel(NETS[name]())
    (x,) = samples([(3, *(3, 8, 8)) if name == "residual" else (3, 6, 8)])

    def loss():
        return model(torch.from_numpy(x).double())[0].square().sum()

    # In double precision, in which differences of nearly equal numbers still say something.
    model.tensors = {name: tensor.detach().double().requires_grad_() for name, tensor in model.tensors.items()}
    monkeypatch.setattr(model, "samples", lambda inputs: len(inputs[0]))
    wanted = [key for key in model.tensors if key.endswith(("weight", "bias", "gamma"))]
    assert len(wanted) > 6
    gradients = torch.autograd.grad(loss(), [model.tensors[key] for key in wanted])
    for key, gradient in zip(wanted, gradients):
        place = tuple(np.random.default_rng(1).integers(gradient.shape))
        weight, step = model.tensors[key].data, 1e-5
        values = []
        for sign in (1, -1):
            weight[place] += sign * step
            values.append(loss().item())
            weight[place] -= sign * step
        assert gradient[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-3, abs=1e-6)


def test_parameters_go_in_and_out():
    mod = residual()
    model, before = TorchModel(mod), get_params(mod)
    assert list(model.params()) == list(before)
    for name, value in model.params().items():
        np.testing.assert_array_equal(value, before[name])
    with torch.no_grad():
        model.tensors[list(before)[-1]] += 1
    changed = [name for name, value in model.params().items() if not np.array_equal(value, before[name])]
    assert len(changed) == 1


def test_an_operator_without_gradients_is_named():
    mod = small_model(lambda x, w: op.cumsum(op.matmul(x, w["a.weight"]), 1), (1, 4), params=weights(a__weight=(4, 4)))
    with pytest.raises(UnsupportedOperatorError, match=r"relax\.cumsum"):
        TorchModel(mod)


@pytest.mark.parametrize("inputs", [[np.zeros((1, 5), "float32")], [], [np.zeros((1, 4))], [np.zeros((0, 4), "float32")]])
def test_inputs_that_do_not_fit(inputs):
    with pytest.raises(UserError, match="input"):
        TorchModel(mixing())(*inputs)


def test_without_pytorch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingToolError, match=r"pip install 'tvmcompress\[train\]'"):
        TorchModel(mixing())


def test_importing_does_not_load_pytorch():
    script = "import sys, tvmcompress.training, tvmcompress.steps.prune; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
