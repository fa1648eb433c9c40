"""`tvmcompress run`: outputs, accuracy and figures of what was built, on every kind of target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tests.tvmcompress.cli.running import refused, run
from tvmcompress import Model
from tvmcompress.targets import get_target

EMULATED = [
    pytest.param(name, marks=pytest.mark.skipif(bool(get_target(name).missing_tools()), reason=f"{name} needs tools"))
    for name in ("cortex-m4", "cortex-a72")
]


@pytest.fixture(scope="module")
def integer(digits: Path, digits_model: Model) -> Model:
    """The example, int8."""
    data = digits / "digits_calib.npz"
    return tvmcompress.compress(digits_model, data, quantize="int8", calibration_samples=50).model


@pytest.fixture(scope="module")
def folder(integer: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `compress` leaves, for as many targets as can be built here."""
    place = tmp_path_factory.mktemp("run") / "out"
    for name in ("x86", "cortex-m4", "cortex-a72"):
        if not get_target(name).missing_tools():
            tvmcompress.build(integer, name, place / name)
    integer.save(place / "model.tvmc")
    return place


@pytest.mark.parametrize("target", ["x86", *EMULATED])
def test_outputs_are_those_of_the_model(folder: Path, integer: Model, digits: Path, target: str, tmp_path: Path) -> None:
    data = digits / "digits_test.npz"
    saved = tmp_path / "outputs.npz"
    record = run("run", folder, data, "-t", target, "--limit", 40, "--skip", 3, "--json", "-o", saved).json
    samples = tvmcompress.load_data(data, integer.inputs).between(3, 43)
    (want,) = integer.run(*samples.inputs())
    np.testing.assert_allclose(np.load(saved)["output"], want, rtol=1e-6)
    assert [entry["label"] for entry in record["predictions"]] == want.argmax(1).tolist()
    assert [entry["expected"] for entry in record["predictions"]] == samples.labels.tolist()  # type: ignore[union-attr]
    assert record["evaluation"]["accuracy"] == (want.argmax(1) == samples.labels).mean()
    assert (record["samples"], record["random"], record["target"]) == (40, False, target)


@pytest.mark.parametrize("target", ["x86", *EMULATED])
def test_integers_as_the_firmware_takes_them(folder: Path, digits: Path, target: str, tmp_path: Path) -> None:
    from tvmcompress.targets import load_artifact

    artifact = load_artifact(folder / target)
    floats = np.load(digits / "digits_test.npz")["x_uint8"][:20].astype(np.float32)
    np.save(tmp_path / "integers.npy", artifact.inputs[0].quantize(floats))
    np.save(tmp_path / "floats.npy", floats)
    wanted = run("run", folder, tmp_path / "floats.npy", "-t", target, "--json").json["predictions"]
    assert run("run", folder, tmp_path / "integers.npy", "--integers", "-t", target, "--json").json["predictions"] == wanted
    if target == "x86":
        assert "--integers" in refused("run", folder, tmp_path / "integers.npy", "-t", target)
        assert "int8" in refused("run", folder, tmp_path / "floats.npy", "--integers", "-t", target)
        assert "give data" in refused("run", folder, "--integers", "-t", target)


@pytest.mark.parametrize("target", EMULATED)
def test_instructions_by_layer_add_up(folder: Path, target: str) -> None:
    record = run("run", folder, "-t", target, "--emulator", "--json").json
    measured = record["measurement"]
    assert record["random"]
    inspected = {layer["name"] for layer in run("inspect", folder / "model.tvmc", "--json").json["layers"]}
    assert {"stem.relu", "dw1.clip", "classifier.bias_add"} <= set(measured["layers"]) <= inspected
    assert 0 <= measured["instructions"] - sum(measured["layers"].values()) < 500
    ran = run("run", folder, "-t", target, "--layers")
    assert f"{measured['instructions']:,} instructions" in ran.out
    for name in (*measured["layers"], *measured["functions"]):
        assert name in ran.out


@pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")
def test_equal_layers_that_share_code_are_told_apart(tmp_path: Path) -> None:
    from tvmcompress import passes
    from tvmcompress.passes._tvm import relax

    x = relax.Var("x", relax.TensorType((1, 8, 6, 6), "float32"))
    weights = [relax.Var(f"layer{i}.weight", relax.TensorType((8, 8, 3, 3), "float32")) for i in range(3)]
    builder = relax.BlockBuilder()
    with builder.function("main", [x, *weights], attrs={"num_input": 1}):
        with builder.dataflow():
            value = x
            for weight in weights:
                made = relax.op.nn.relu(relax.op.nn.conv2d(value, weight, padding=[1, 1, 1, 1]))
                value = builder.emit(made)
            out = builder.emit_output(relax.op.reshape(value, (1, 288)))
        builder.emit_func_output(out)
    random = np.random.default_rng(0)
    values = {w.name: random.normal(size=(8, 8, 3, 3)).astype("float32") / 9 for w in weights}
    mod = passes.Canonicalize()(passes.attach_params(builder.get(), values))
    ranges = passes.calibrate(mod, [[random.normal(size=(4, 8, 6, 6)).astype("float32")]])
    artifact = get_target("cortex-m4").build(passes.LowerQDQ()(passes.Quantize(ranges)(mod)), tmp_path)
    layers = artifact.measure().layers
    (shared,) = (names for names in artifact.info.layers.values() if len(names) > 1)  # type: ignore[attr-defined]
    assert len(set(shared)) > 1
    assert layers[shared[0]] > 1000
    assert layers[shared[1]] > 1000


def test_the_folder_is_that_of_compress_by_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert "one random sample" in run("run", "-t", "x86").out


def test_a_build_folder_alone_will_do(folder: Path, digits: Path) -> None:
    ran = run("run", folder / "x86", digits / "digits_test.npz", "--limit", 20)
    assert ran.code == 0
    assert "20 samples" in ran.out
    assert "accuracy" in ran.out
    assert "and 12 more" in ran.out


class TestRefused:
    def test_which_build(self, folder: Path, tmp_path: Path) -> None:
        assert "does not exist" in refused("run", tmp_path / "none")
        assert "no built model" in refused("run", tmp_path)
        assert "holds no build for cortex-m7, only for" in refused("run", folder, "-t", "cortex-m7")
        assert "was built for x86, not for cortex-m4" in refused("run", folder / "x86", "-t", "cortex-m4")
        if (folder / "cortex-m4").exists():
            assert "choose one with --target" in refused("run", folder)

    def test_options_that_do_nothing_here(self, folder: Path) -> None:
        assert "without an emulator" in refused("run", folder, "-t", "x86", "--emulator")
        assert "--layers counts instructions" in refused("run", folder, "-t", "x86", "--layers")
        assert "give data" in refused("run", folder, "-t", "x86", "--limit", 3)

    def test_data(self, folder: Path, tmp_path: Path, digits: Path) -> None:
        np.save(tmp_path / "wrong.npy", np.zeros((4, 3, 8, 8), np.float32))
        assert "3x8x8" in refused("run", folder, tmp_path / "wrong.npy", "-t", "x86")
        assert "does not exist" in refused("run", folder, tmp_path / "none.npz", "-t", "x86")
        assert "leaves none" in refused("run", folder, digits / "digits_test.npz", "-t", "x86", "--skip", 600)

    def test_outputs_that_cannot_be_written(self, folder: Path, tmp_path: Path) -> None:
        assert "cannot be written" in refused("run", folder, "-t", "x86", "-o", tmp_path / "none" / "o.npz")


@pytest.mark.parametrize("described", [True, False], ids=["by the description", "by the program"])
@pytest.mark.skipif(bool(get_target("cortex-a76").missing_tools()), reason="needs the Cortex-A tool chain")
def test_a_core_without_what_the_code_needs(
    digits_model: Model, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, described: bool
) -> None:
    """Code for a Cortex-A76 on a Cortex-A53: refused before it runs, and by itself where it is started all the same."""
    from tvmcompress.targets import load_artifact
    from tvmcompress.targets.arm.artifact import CortexAArtifact

    tvmcompress.build(digits_model, "cortex-a76", tmp_path / "built")
    artifact = load_artifact(tmp_path / "built")
    assert isinstance(artifact, CortexAArtifact)
    artifact.info.write(artifact.path, artifact.target.model_copy(update={"emulator_cpu": "cortex-a53"}))
    if not described:
        monkeypatch.setattr("tvmcompress.targets.arm.target.problem", lambda description: None)
    said = refused("run", tmp_path / "built", digits / "digits_test.npz", "--limit", 2)
    if described:
        assert "a cortex-a53 lacks asimdhp, asimdrdm, asimddp, which code for cortex-a76 needs" in said
    else:
        assert "the emulated core lacks instructions that the code uses" in said
