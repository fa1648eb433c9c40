"""Programs of torch.export: what PyTorch computes, under PyTorch's names, and prunable as from ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import tvmcompress
import tvmcompress.importing
from tvmcompress import Model, UserError
from tvmcompress.passes import groups

torch = pytest.importorskip("torch")

from tests.passes import torch_zoo  # noqa: E402

# Each of another kind.
SAMPLE = ["mobilenet_v2", "attention_module", "shufflenet_v2", "Siamese", "MlpMixer", "Bert"]
BY_NAME = {entry.name: entry for entry in torch_zoo.ARCHITECTURES}


def exported(network, sample):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(network, tuple(torch.from_numpy(x) for x in sample))


def free_sizes(model: Model) -> list[int]:
    """The sizes of the groups of channels that can be pruned."""
    return sorted(group.size for group in groups(model.module) if group.frozen is None)


@pytest.mark.parametrize("name", SAMPLE)
def test_computes_what_pytorch_does_and_is_pruned_like_onnx(name: str) -> None:
    architecture = BY_NAME[name]
    network, sample = torch_zoo.instantiate(architecture.build), architecture.sample()
    model = tvmcompress.load(exported(network, sample))
    for found, wanted in zip(model.run(*sample), torch_zoo.outputs(network, sample), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * max(1, float(np.abs(wanted).max())))
    other = tvmcompress.importing.from_onnx(torch_zoo.export(network, sample))
    assert free_sizes(model) == free_sizes(other)
    weights = {key for key, value in network.named_parameters() if value.ndim > 1}
    assert len(weights & set(model.params)) >= len(weights) / 2


def test_file_keeps_the_names(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1)).eval()
    sample = [np.random.default_rng(0).normal(0, 1, (1, 3, 6, 6)).astype("float32")]
    torch.export.save(exported(network, sample), tmp_path / "net.pt2")
    model = tvmcompress.load(tmp_path / "net.pt2")
    assert set(model.params) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert "torch.export" in model.provenance[0]
    (tmp_path / "bad.pt2").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="bad.pt2 is no whole file of torch.export.save"):
        tvmcompress.load(tmp_path / "bad.pt2")


def test_last_position_is_read_within_bounds(tmp_path: Path) -> None:
    class Last(torch.nn.Module):
        def forward(self, x):
            return x[:, -1] * 2

    sample = [np.arange(12, dtype="float32").reshape(1, 3, 4)]
    model = tvmcompress.load(exported(Last(), sample))
    np.testing.assert_array_equal(model.run(*sample)[0], sample[0][:, -1] * 2)
    built = tvmcompress.build(model, "x86", tmp_path)
    np.testing.assert_array_equal(built.run(sample)[0].reshape(1, 4), sample[0][:, -1] * 2)


def test_open_shapes_and_unknown_operators_are_named() -> None:
    network = torch.nn.Linear(4, 2).eval()
    batch = torch.export.Dim("batch", min=2, max=8)
    program = torch.export.export(network, (torch.zeros(2, 4),), dynamic_shapes=({0: batch},))
    with pytest.raises(UserError, match="a dimension that is not a constant"):
        tvmcompress.load(program)

    class Unknown(torch.nn.Module):
        def forward(self, x):
            return torch.special.i0(x)

    with pytest.raises(UserError, match="i0"):
        tvmcompress.load(exported(Unknown(), [np.zeros((2, 3), "float32")]))


def test_model_from_a_module_of_tvms_own() -> None:
    from tests.passes.graph.test_adopt_module import IMAGE, WANTED, bound

    model = Model.from_module(bound(), outputs=["scores"])
    np.testing.assert_allclose(model.run(IMAGE)[0], WANTED, rtol=1e-5, atol=1e-5)
    assert (model.inputs[0].name, model.inputs[0].layout, model.outputs) == ("x", "NCHW", ("scores",))


def test_example_of_tvms_own_flow(monkeypatch: pytest.MonkeyPatch, digits: Path) -> None:
    monkeypatch.syspath_prepend(str(digits / "own_pass"))
    import flow

    found = flow.main()
    assert found["original"] > 0.8
    assert found["repaired"] > found["pruned"] + 0.2
