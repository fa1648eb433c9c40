"""Every command does what it says, in words and in JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tests.tvmcompress.cli.running import run
from tvmcompress import Model

MACS, PARAMS = 1_310_848, 26_698


def test_surgery(digits: Path, tmp_path: Path) -> None:
    """What left each group, and what that alone saves, against the shapes of the weights."""
    ran = run("compress", digits / "digits.onnx", "--prune", 0.5, "--groups", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "32 to 16" in ran.out
    found = json.loads((tmp_path / "out" / "report.json").read_text())["surgery"]
    assert (found["macs_before"], found["params_before"]) == (MACS, PARAMS)
    by_name = {group["name"]: group for group in found["groups"]}
    assert set(by_name) == {"stem", "res1", "pw1", "pw2"}
    res1 = by_name["res1"]
    assert (res1["before"], res1["after"], len(res1["removed"])) == (32, 16, 16)
    # Half of the first convolution's outputs and of the second's inputs: 3 x 3 x 32 x 16 weights each, and 16 biases.
    assert res1["params"] == 2 * 9 * 32 * 16 + 16
    assert res1["macs"] % (2 * 9 * 32 * 16) == 0
    assert found["macs_after"] < MACS - res1["macs"]


@pytest.fixture(scope="module")
def compressed(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder of `compress` with everything asked for."""
    folder = tmp_path_factory.mktemp("cli") / "out"
    ran = run(
        "compress", digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--calib-samples", 100,
        "--eval", digits / "digits_test.npz", "--prune", 0.4, "--scope", "global", "--importance", "l1",
        "--round-to", 4, "--quantize", "int8", "--observer", "percentile", "--rounding", "single",
        "--target", "x86", "-o", folder,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "accuracy" in ran.out
    return folder


class TestInspect:
    def test_words(self, digits: Path) -> None:
        ran = run("inspect", digits / "digits.onnx", "--groups")
        assert ran.code == 0
        assert "1.31 M multiply-accumulates" in ran.out
        assert re.search(r"res1\s+conv2d\s+1x32x8x8\s+590 k", ran.out)
        assert re.search(r"classifier\s+10\s+stays: the model returns it", ran.out)
        assert max(map(len, ran.out.splitlines())) <= 100

    def test_json(self, digits: Path) -> None:
        record = run("inspect", digits / "digits.onnx", "--json").json
        assert (record["macs"], record["params"]) == (MACS, PARAMS)
        assert sum(layer["macs"] for layer in record["layers"]) == MACS
        assert sum(layer["params"] for layer in record["layers"]) == PARAMS
        assert [group["name"] for group in record["groups"] if group["frozen"] is None] == [
            "stem",
            "res1",
            "pw1",
            "pw2",
        ]

    def test_open_dimension(self, tmp_path: Path, digits: Path) -> None:
        import onnx

        proto = onnx.load(digits / "digits.onnx")
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
        onnx.save(proto, tmp_path / "open.onnx")
        record = run("inspect", tmp_path / "open.onnx", "--batch", 2, "--json").json
        assert record["inputs"][0]["shape"] == [2, 1, 8, 8]
        record = run("inspect", tmp_path / "open.onnx", "--shape", "image:3,1,8,8", "--json").json
        assert record["inputs"][0]["shape"] == [3, 1, 8, 8]
        assert record["macs"] == 3 * MACS


class TestCompress:
    def test_what_is_written(self, compressed: Path) -> None:
        names = {path.name for path in compressed.iterdir()}
        reports = {"report.html", "report.json"}
        assert names == {"manifest.json", "model.tvmc", "model.onnx", "node_data", "recipe.toml", "x86", *reports}
        assert [path.name for path in compressed.parent.iterdir()] == ["out"]
        report = json.loads((compressed / "report.json").read_text())
        assert {*report["files"], "manifest.json"} == {
            str(path.relative_to(compressed)) for path in compressed.rglob("*") if path.is_file()
        }

    def test_onnx_for_other_runtimes(self, compressed: Path, digits: Path, tmp_path: Path) -> None:
        """The model in QDQ form; the integer model is its rounded twin."""
        qdq, integer = (tvmcompress.load(compressed / name) for name in ("model.onnx", "model.tvmc"))
        images = tvmcompress.load_data(digits / "digits_test.npz", integer.inputs).first(50).inputs()[0]
        first, second = (model.run(images)[0].argmax(1) for model in (qdq, integer))
        assert (first == second).mean() >= 0.96
        ran = run("compress", digits / "digits.onnx", "--prune", 0.3, "--no-onnx", "--no-html", "-o", tmp_path / "out")
        assert ran.code == 0, ran.err
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {"manifest.json", "model.tvmc", "recipe.toml", "report.json"}
        assert "model.onnx" not in ran.out

    def test_report(self, compressed: Path) -> None:
        report = json.loads((compressed / "report.json").read_text())
        original, small = report["models"]
        assert (original["macs"], original["params"]) == (MACS, PARAMS)
        assert small["macs"] < 0.7 * MACS
        assert small["weight_bytes"] < 0.3 * original["weight_bytes"]
        assert original["evaluation"]["accuracy"] >= 0.99
        assert small["evaluation"]["accuracy"] >= 0.95
        assert small["evaluation"]["samples"] == 600
        build = report["builds"][0]
        assert (build["target"], build["largest_error"], build["problem"]) == ("x86", 0.0, None)
        assert build["checked_samples"] > 0
        assert build["measurement"]["source"] == "hardware"
        assert build["measurement"]["latency"]["median_ms"] > 0

    def test_recipe_written_does_the_same_again(self, compressed: Path, digits: Path, tmp_path: Path) -> None:
        recipe = tvmcompress.Recipe.load(compressed / "recipe.toml")
        assert recipe.prune is not None
        assert recipe.quantize is not None
        assert (recipe.prune.ratio, recipe.prune.scope, recipe.prune.importance) == (0.4, "global", "l1")
        assert (recipe.prune.round_to, recipe.calibration_samples) == (4, 100)
        assert (recipe.quantize.observer, recipe.quantize.rounding) == ("percentile", "single")
        ran = run(
            "compress", digits / "digits.onnx", "--calib", digits / "digits_calib.npz",
            "--recipe", compressed / "recipe.toml", "-o", tmp_path / "again", "--json",
        )  # fmt: skip
        assert ran.json["models"][1]["name"] == "compressed"
        first, second = (Model.load(folder / "model.tvmc") for folder in (compressed, tmp_path / "again"))
        for name, value in first.params.items():
            np.testing.assert_array_equal(second.params[name], value)

    def test_options_replace_entries_of_a_recipe(self, digits: Path, tmp_path: Path) -> None:
        (tmp_path / "recipe.toml").write_text("[prune]\nratio = 0.5\nreconstruct = true\n")
        ran = run(
            "compress", digits / "digits.onnx", "--recipe", tmp_path / "recipe.toml", "--prune", 0.25,
            "--no-repair", "--exclude", "pw*", "-o", tmp_path / "out", "--json",
        )  # fmt: skip
        recipe = ran.json["recipe"]
        assert (recipe["prune"]["ratio"], recipe["prune"]["reconstruct"]) == (0.25, False)
        assert [step["name"] for step in ran.json["steps"]] == ["prune"]
        model = Model.load(tmp_path / "out" / "model.tvmc")
        # What the layers named make stays; what they read goes as elsewhere.
        assert model.params["res1.weight"].shape == (24, 24, 3, 3)
        assert model.params["pw2.weight"].shape == (64, 64, 1, 1)

    def test_weights_of_four_bits_count_as_weights(self, digits: Path, tmp_path: Path) -> None:
        ran = run(
            "compress", digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--calib-samples", 20,
            "--quantize", "int4", "--quant-repair", "none", "-o", tmp_path / "out",
        )  # fmt: skip
        assert ran.code == 0, ran.err
        original, packed = json.loads((tmp_path / "out" / "report.json").read_text())["models"]
        assert packed["params"] == original["params"] == PARAMS
        assert packed["weight_bytes"] < original["weight_bytes"] / 6

    def test_an_older_output_is_replaced(self, digits: Path, tmp_path: Path) -> None:
        for ratio in (0.25, 0.5):
            ran = run("compress", digits / "digits.onnx", "--prune", ratio, "--no-repair", "-o", tmp_path / "out")
            assert ran.code == 0
            assert Model.load(tmp_path / "out" / "model.tvmc").params["res1.weight"].shape[0] == 32 * (1 - ratio)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_preprocessing_travels_with_the_model(self, digits: Path, tmp_path: Path) -> None:
        steps_ = ("--scale", 0.5, "--mean", "1", "--std", "2")
        run("compress", digits / "digits.onnx", "--prune", 0.25, "--no-repair", *steps_, "-o", tmp_path / "out")
        steps = Model.load(tmp_path / "out" / "model.tvmc").inputs[0].preprocessing
        assert steps is not None
        assert (steps.scale, steps.mean, steps.std) == (0.5, (1.0,), (2.0,))

    def test_artifact_runs_by_itself(self, compressed: Path, digits: Path) -> None:
        artifact = tvmcompress.load_artifact(compressed / "x86")
        images = np.load(digits / "digits_test.npz")["x_uint8"][:5].astype(np.float32)
        model = Model.load(compressed / "model.tvmc")
        np.testing.assert_array_equal(artifact.run_float([images])[0], model.run(images)[0])


class TestEvaluate:
    def test_words_and_layers(self, compressed: Path, digits: Path) -> None:
        ran = run(
            "evaluate", compressed / "model.tvmc", digits / "digits_test.npz", "--against", digits / "digits.onnx",
            "--layers",
        )  # fmt: skip
        assert ran.code == 0
        assert re.search(r"accuracy\s+9\d\.\d\d % ±", ran.out)
        assert re.search(r"stem\.relu_1\s+relu\s+\d+ of 32\s+-?\d+\.\d dB", ran.out)
        assert max(map(len, ran.out.splitlines())) <= 100

    def test_json(self, digits: Path) -> None:
        record = run(
            "evaluate", digits / "digits.onnx", digits / "digits_test.npz", "--skip", 100, "--limit", 50, "--json"
        ).json
        assert record["evaluation"]["samples"] == 50
        data = np.load(digits / "digits_test.npz")
        outputs = tvmcompress.load(digits / "digits.onnx").run(data["x_uint8"][100:150].astype(np.float32))[0]
        assert record["evaluation"]["correct"] == int((outputs.argmax(1) == data["y"][100:150]).sum())

    def test_keys_and_layout(self, digits: Path, tmp_path: Path) -> None:
        data = np.load(digits / "digits_test.npz")
        np.savez(
            tmp_path / "mine.npz", pixels=data["x_uint8"].transpose(0, 2, 3, 1) / 16, right=data["y"], other=data["y"]
        )
        record = run(
            "evaluate", digits / "digits.onnx", tmp_path / "mine.npz", "--data-key", "pixels", "--label-key", "right",
            "--layout", "NHWC", "--scale", 16, "--json",
        ).json  # fmt: skip
        assert record["evaluation"]["accuracy"] >= 0.99


class TestBenchmark:
    def test_each_step_alone_and_together(self, digits: Path, tmp_path: Path) -> None:
        ran = run(
            "benchmark", digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--calib-samples", 64,
            "--eval", digits / "digits_test.npz", "--eval-skip", 500, "--prune", 0.25, "--quantize", "int8",
            "--target", "x86", "--runs", 5, "--threads", 1, "-o", tmp_path / "kept", "--json",
        )  # fmt: skip
        report = ran.json
        assert [model["name"] for model in report["models"]] == ["original", "pruned", "int8", "pruned + int8"]
        assert [build["model"] for build in report["builds"]] == ["original", "pruned", "int8", "pruned + int8"]
        assert all(model["evaluation"]["samples"] == 100 for model in report["models"])
        assert all(build["measurement"]["latency"]["runs"] == 5 for build in report["builds"])
        bytes_ = {model["name"]: model["weight_bytes"] for model in report["models"]}
        assert bytes_["pruned + int8"] < bytes_["int8"] < bytes_["pruned"] < bytes_["original"]
        assert (tmp_path / "kept" / "pruned-int8" / "x86" / "artifact.json").exists()

    def test_several_models(self, digits: Path, compressed: Path) -> None:
        ran = run("benchmark", digits / "digits.onnx", compressed / "model.tvmc", "--runs", 3)
        assert ran.code == 0
        assert re.search(r"digits .* x86 .* 1\.00x", ran.out)
        assert re.search(r"model .* x86 ", ran.out)
        assert max(map(len, ran.out.splitlines())) <= 100


def test_targets() -> None:
    rows = {row["name"]: row for row in run("targets", "--json").json}
    assert {"x86", "cortex-a72", "cortex-m4"} <= set(rows)
    assert rows["x86"]["source"] == "hardware"
    assert rows["cortex-m4"]["source"] == "qemu"
    words = run("targets").out
    assert all(name in words for name in rows)
    assert max(map(len, words.splitlines())) <= 100


def test_one_target_says_what_its_builds_use() -> None:
    (row,) = run("targets", "x86", "--json").json
    assert row["name"] == "x86"
    words = run("targets", "x86").out.split()
    assert row["details"]["CPU"] in words
    assert set(row["details"]["instruction sets"].split()) <= set(words)


def test_version_and_help() -> None:
    assert run("--version").out.strip() == f"tvmcompress {tvmcompress.__version__}"
    for command in ("inspect", "compress", "evaluate", "benchmark", "targets"):
        assert command in run("--help").out
        assert run(command, "--help").code == 0
    assert run("compress").code == 2
