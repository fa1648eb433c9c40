"""x86 as a target: what is built computes what the model means, here and in another process."""

# mypy: ignore-errors

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import UserError, attach_params
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.module_params import param_vars, static_shape
from tvmcompress.targets import get_target, load_artifact
from tvmcompress.targets.artifact_folder import read_artifact, write_artifact
from tvmcompress.targets.x86 import host
from tvmcompress.targets.x86.compile import compile_module


@I.ir_module
class Small:
    """Convolution, depthwise convolution with stride, residual addition, pool and classifier; odd channel counts."""

    @R.function
    def main(
        x: R.Tensor((1, 3, 9, 10), "float32"),
        w0: R.Tensor((13, 3, 3, 3), "float32"),
        b0: R.Tensor((1, 13, 1, 1), "float32"),
        w1: R.Tensor((13, 1, 3, 3), "float32"),
        w2: R.Tensor((16, 13, 1, 1), "float32"),
        b2: R.Tensor((1, 16, 1, 1), "float32"),
        w3: R.Tensor((16, 8, 3, 3), "float32"),
        w4: R.Tensor((16, 5), "float32"),
        b4: R.Tensor((5,), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.nn.relu(R.add(R.nn.conv2d(x, w0, padding=[1, 1, 1, 1]), b0))
            b = R.clip(R.nn.conv2d(a, w1, strides=[2, 2], padding=[0, 0, 1, 1], groups=13), R.prim_value(0), R.prim_value(6))
            c = R.add(R.nn.conv2d(b, w2), b2)
            d = R.nn.relu(R.add(R.nn.conv2d(c, w3, padding=[1, 1, 1, 1], groups=2), c))
            e = R.mean(R.nn.max_pool2d(d, pool_size=[2, 2], strides=[2, 2]), axis=[2, 3])
            f = R.nn.softmax(R.add(R.matmul(e, w4), b4), axis=1)
            R.output(f)
        return f


def filled(mod, seed=0):
    random = np.random.default_rng(seed)
    values = {}
    for var in param_vars(mod["main"]):
        shape = static_shape(var)
        values[var.name] = (random.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1))).astype("float32")
    return attach_params(mod, values)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return get_target("x86").build(filled(Small), tmp_path_factory.mktemp("x86") / "small", tuning_log=False)


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(1).normal(size=(3, 3, 9, 10)).astype("float32")


def test_computes_what_the_interpreter_does(artifact, samples) -> None:
    (expected,) = run(filled(Small), [samples])
    (got,) = artifact.run([samples])
    assert got.shape == (3, 5)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(artifact.run_float([samples])[0], expected, rtol=1e-5, atol=1e-6)


def test_every_heavy_function_has_a_schedule() -> None:
    compiled = compile_module(filled(Small))
    assert not compiled.schedules.unscheduled
    assert len(compiled.schedules.default) >= 6


def test_building_again_into_the_same_folder(samples, tmp_path) -> None:
    target = get_target("x86")
    first = target.build(filled(Small), tmp_path, tuning_log=False)
    before = first.run([samples])[0]
    second = target.build(filled(Small, seed=1), tmp_path, tuning_log=False)
    np.testing.assert_allclose(second.run([samples])[0], run(filled(Small, seed=1), [samples])[0], rtol=1e-5, atol=1e-6)
    assert np.array_equal(first.run([samples])[0], before)
    assert [path.name for path in tmp_path.glob("*.so")] == [second.library.name]


def test_runs_in_a_fresh_process_without_the_model(artifact, samples, tmp_path) -> None:
    np.save(tmp_path / "x.npy", samples)
    program = (
        "import sys, numpy as np; from tvmcompress.targets import load_artifact; "
        "np.save(sys.argv[3], load_artifact(sys.argv[1]).run([np.load(sys.argv[2])])[0])"
    )
    arguments = [str(artifact.path), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    assert np.array_equal(np.load(tmp_path / "y.npy"), artifact.run([samples])[0])


def test_portable_build_uses_no_newer_instructions(samples, tmp_path) -> None:
    built = get_target("x86").build(filled(Small), tmp_path / "portable", cpu="portable", tuning_log=False)
    assert built.cpu == "x86-64-v3"
    assembly = subprocess.run(["objdump", "-d", built.library], capture_output=True, text=True, check=True).stdout
    assert "%ymm" in assembly
    assert "%zmm" not in assembly
    np.testing.assert_allclose(built.run([samples])[0], run(filled(Small), [samples])[0], rtol=1e-5, atol=1e-6)


def test_measurement(artifact) -> None:
    measured = artifact.measure(runs=20, warm_up=2)
    assert (measured.target, measured.source, measured.instructions) == ("x86", "hardware", None)
    latency = measured.latency
    assert 0 < latency.p10_ms <= latency.median_ms <= latency.p90_ms
    assert (latency.runs, latency.threads) == (20, 1)
    params = sum(4 * np.prod(static_shape(var)) for var in param_vars(Small["main"]))
    # Thirteen channels fill up two vectors of eight or one of sixteen, five fill up one.
    assert measured.constant_bytes == params + 4 * (3 * 3 * 3 * 3 + 16 * 3)
    assert measured.flash_bytes == artifact.library.stat().st_size > params
    # The largest moment: the first convolution's padded input and its output.
    assert measured.arena_bytes >= 4 * (3 * 11 * 12 + 13 * 9 * 10)
    assert measured.ram_bytes == measured.arena_bytes + 4 * (3 * 9 * 10 + 5)


@pytest.mark.skipif(host.available_cpus() < 2, reason="needs two CPUs")
def test_threads_change_nothing_but_time(artifact, samples) -> None:
    assert artifact.measure(runs=3, threads=2).latency.threads == 2
    assert np.array_equal(artifact.run([samples], threads=2)[0], artifact.run([samples], threads=1)[0])
    assert host.available_cpus() >= 2


def test_bad_inputs_are_named(artifact, samples) -> None:
    with pytest.raises(UserError, match="is float32, the array given float64"):
        artifact.run([samples.astype("float64")])
    with pytest.raises(UserError, match=r"has shape \(1, 3, 9, 10\), the array given"):
        artifact.run([samples[:, :2]])
    with pytest.raises(UserError, match="takes 1 inputs, 2"):
        artifact.run([samples, samples])
    with pytest.raises(UserError, match="0 runs"):
        artifact.measure(runs=0)
    with pytest.raises(UserError, match="threads"):
        artifact.measure(threads=100000)


def test_bad_builds_are_named(tmp_path) -> None:
    target = get_target("x86")
    with pytest.raises(UserError, match="no x86-64 CPU named pentium9"):
        target.build(filled(Small), tmp_path / "a", cpu="pentium9")
    with pytest.raises(UserError, match="no option arena"):
        target.build(filled(Small), tmp_path / "a", arena=1)
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        target.build(filled(Small), occupied / "folder")


def test_damaged_folders_are_named(artifact, tmp_path) -> None:
    with pytest.raises(UserError, match="no built model"):
        load_artifact(tmp_path)
    content = json.loads((artifact.path / "artifact.json").read_text())
    (tmp_path / "artifact.json").write_text(json.dumps({**content, "tvm": "0.1"}))
    with pytest.raises(UserError, match="build it again"):
        load_artifact(tmp_path)
    for damaged in ("{", "[]", "7", json.dumps({**content, "cpu": "x86-64-v1"}), "[" * 100000):
        (tmp_path / "artifact.json").write_text(damaged)
        with pytest.raises(UserError, match="damaged"):
            load_artifact(tmp_path)
    (tmp_path / "artifact.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="model-.*so is missing; build the model again"):
        load_artifact(tmp_path).run([np.zeros((1, 3, 9, 10), "float32")])


@pytest.mark.parametrize("change", [lambda old: old[:5000], lambda old: old[:-1], lambda old: old[:-9] + b"x" + old[-8:]])
def test_a_library_that_is_not_as_it_was_written_is_not_loaded(artifact, tmp_path, change) -> None:
    """The dynamic loader maps a file that was cut short, and the process dies of SIGBUS."""
    folder = shutil.copytree(artifact.path, tmp_path / "copy")
    library = next(folder.glob("model-*.so"))
    library.write_bytes(change(library.read_bytes()))
    with pytest.raises(UserError, match="has been changed or cut short"):
        load_artifact(folder).run([np.zeros((1, 3, 9, 10), "float32")])


def test_only_what_a_build_has_left_is_replaced(tmp_path) -> None:
    target, folder = get_target("x86"), tmp_path / "project"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    first = target.build(filled(Small), folder, tuning_log=False).library
    second = target.build(filled(Small, seed=1), folder, tuning_log=False).library
    assert not first.exists()
    assert {path.name for path in folder.iterdir()} == {"thesis.tex", "artifact.json", second.name}
    (folder / "artifact.json").write_text("mine, too")
    with pytest.raises(UserError, match="artifact.json is in the way"):
        target.build(filled(Small), folder, tuning_log=False)
    assert (folder / "artifact.json").read_text() == "mine, too"


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path, monkeypatch) -> None:
    """LLVM aborts where it cannot write."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        with pytest.raises(UserError, match="No space left on device"):
            get_target("x86").build(filled(Small), disk / "out", tuning_log=False)
        assert list((disk / "out").iterdir()) == []
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        with pytest.raises(UserError, match="No space left on device"):
            get_target("x86").build(filled(Small), tmp_path / "out", tuning_log=False)
        assert list((tmp_path / "out").iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_build_for_a_newer_machine_is_refused(artifact, tmp_path, monkeypatch) -> None:
    content = read_artifact(artifact.path)
    required = [content.pop(key) for key in ("target", "inputs", "outputs")]
    write_artifact(tmp_path, *required, **{**content, "files": {}, "cpu": "x86-64-v4"})
    from tvmcompress.targets.x86 import artifact as module

    monkeypatch.setattr(module, "missing_features", lambda cpu: ["avx512f"] if cpu == "x86-64-v4" else [])
    with pytest.raises(UserError, match="lacks avx512f"):
        load_artifact(tmp_path)


def test_levels_and_the_key_of_logs() -> None:
    assert host.cpu_level("znver3") == "x86-64-v3"
    assert host.cpu_level("znver4") == host.cpu_level("skylake-avx512") == "x86-64-v4"
    assert host.missing_features("x86-64") == []
    target = json.loads(str(host.log_target("znver3")))
    assert target["mcpu"] == "znver3"
    assert "num-cores" not in target


@pytest.mark.parametrize(
    ("cpu", "names"),
    [
        ("znver4", ("znver4", "x86-64-v4")),
        ("emeraldrapids,-amx-int8,-amx-tile", ("emeraldrapids", "x86-64-v4")),
        ("alderlake", ("alderlake", "x86-64-v3")),
        ("portable", ("x86-64-v3",)),
        # A virtual machine that hides AVX-512 runs other schedules than the CPU.
        ("znver4,-avx512vl", ("znver4,-avx512vl", "x86-64-v3")),
    ],
)
def test_logs_are_asked_for_the_cpu_and_then_for_its_level(cpu, names) -> None:
    assert host.log_names(cpu) == names


@pytest.mark.shared
@pytest.mark.parametrize("name", ["ic_resnet8_fp32", "kws_dscnn_fp32", "ad_autoencoder_fp32", "cwru_cnn1d_fp32"])
def test_models_agree_with_onnx_runtime(shared, name, tmp_path) -> None:
    ort = pytest.importorskip("onnxruntime")
    import tvmcompress

    path = shared / "models" / f"{name}.onnx"
    built = get_target("x86").build(tvmcompress.load(path).module, tmp_path / name, tuning_log=False)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random(built.inputs[0].shape).astype("float32")
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(built.run([x])[0], expected, rtol=1e-4, atol=1e-5 * max(1, np.abs(expected).max()))
