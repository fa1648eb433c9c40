"""Cortex-A: what the cross-compiled library computes, and what is measured of it."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tests.passes import small_models
from tvmcompress.passes import MissingToolError, UserError
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import get_target, load_artifact

pytestmark = pytest.mark.skipif(bool(get_target("cortex-a72").missing_tools()), reason="needs the Cortex-A tool chain")

NARROW = [name for name in ("cortex-a7", "cortex-a9", "beaglebone-black") if not get_target(name).missing_tools()]
"""32-bit boards, where their tool chain is installed."""


@pytest.fixture(scope="module")
def integer_artifact(integer_net, tmp_path_factory):
    return get_target("cortex-a72").build(integer_net, tmp_path_factory.mktemp("a72") / "integer")


@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a72", "cortex-a76", "cortex-a510", "cortex-a715", *NARROW])
def test_the_integer_model_gives_the_reference_bytes(integer_net, samples, tmp_path, core) -> None:
    artifact = get_target(core).build(integer_net, tmp_path)
    x = artifact.inputs[0].quantize(samples)
    np.testing.assert_array_equal(artifact.run([x])[0], run(IntegerCore()(integer_net), [x])[0])


@pytest.mark.parametrize("core", ["cortex-a72", *NARROW[:1]])
def test_the_float_model_agrees(float_net, samples, tmp_path, core) -> None:
    artifact = get_target(core).build(float_net, tmp_path)
    np.testing.assert_allclose(artifact.run_float([samples])[0], run(float_net, [samples])[0], rtol=2e-5, atol=1e-6)


def test_counts_repeat_exactly_and_classes_add_up(integer_artifact) -> None:
    first, second = integer_artifact.measure(), integer_artifact.measure()
    assert first == second
    assert first.source == "qemu"
    assert set(first.classes) == {"load", "store", "branch", "integer", "vector", "other"}
    assert sum(first.classes.values()) == pytest.approx(first.instructions, abs=8)
    assert min(first.classes[name] for name in ("load", "store", "branch", "vector")) > 0


def test_every_model_target_gives_the_same_bytes(integer_net, integer_artifact, samples, tmp_path) -> None:
    x = integer_artifact.inputs[0].quantize(samples)
    (want,) = integer_artifact.run([x])
    for name in ("x86", "cortex-m4"):
        target = get_target(name)
        if target.missing_tools():
            pytest.skip("needs every tool chain")
        artifact = target.build(integer_net, tmp_path / name)
        assert artifact.inputs == integer_artifact.inputs
        np.testing.assert_array_equal(np.concatenate([artifact.run([x[i : i + 1]])[0] for i in range(len(x))]), want)
        np.testing.assert_array_equal(artifact.run_float([samples])[0], integer_artifact.run_float([samples])[0])


def test_the_artifact_loads_from_its_folder(integer_artifact, samples) -> None:
    loaded = load_artifact(integer_artifact.path)
    x = loaded.inputs[0].quantize(samples)
    np.testing.assert_array_equal(loaded.run([x])[0], integer_artifact.run([x])[0])


def test_missing_tools_are_named_with_their_packages(integer_net, integer_artifact, tmp_path, samples, monkeypatch) -> None:
    x = integer_artifact.inputs[0].quantize(samples)
    monkeypatch.setenv("PATH", str(tmp_path))
    sentences = " ".join(get_target("cortex-a72").missing_tools())
    assert "apt-get install gcc-aarch64-linux-gnu" in sentences
    assert "apt-get install qemu-user" in sentences
    with pytest.raises(MissingToolError, match="gcc-aarch64-linux-gnu"):
        get_target("cortex-a72").build(integer_net, tmp_path / "out")
    with pytest.raises(MissingToolError, match="qemu-user"):
        integer_artifact.run([x])


def test_a_program_that_fails_is_explained(integer_artifact, samples, tmp_path, monkeypatch) -> None:
    failing = tmp_path / "qemu-aarch64"
    failing.write_text("#!/bin/sh\nexit 7\n")
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UserError, match="wrote outside its arena"):
        integer_artifact.run([integer_artifact.inputs[0].quantize(samples)])


@pytest.mark.parametrize("name", NARROW[-1:])
def test_a_32_bit_board(integer_net, samples, tmp_path, name) -> None:
    target = get_target(name)
    artifact = target.build(integer_net, tmp_path)
    measured = artifact.measure()
    assert measured.instructions > 0
    assert measured == artifact.measure()
    assert sum(measured.classes.values()) == pytest.approx(measured.instructions, abs=8)
    assert min(measured.classes[name] for name in ("load", "store", "branch", "vector")) > 0
    assert measured.layers
    assert not target.kernel_passes()
    assert not target.remote
    lesser = artifact.target.model_copy(update={"emulator_cpu": "cortex-a8"})
    newer = get_target("cortex-a7").build(integer_net, tmp_path / "newer")
    with pytest.raises(UserError, match="lacks instructions"):
        type(newer)(lesser, newer.path, newer.info).run([newer.inputs[0].quantize(samples[:1])])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('mfloat-abi = "hard"', 'mfloat-abi = "soft"', "needs mfloat-abi"),
        ('mattr = ["+neon"], ', "", "needs mfloat-abi"),
        ("armv7-linux-gnueabihf", "aarch64-linux-gnu", "mtriple armv7-linux-gnueabihf"),
        ('core = "cortex-a8"', 'core = "cortex-a72"', "mtriple aarch64-linux-gnu"),
        ('emulator_cpu = "cortex-a8"', 'emulator_cpu = "cortex-a72"', "there is no cortex-a72"),
    ],
)
def test_what_a_32_bit_board_cannot_be(tmp_path, old, new, words) -> None:
    text = (get_target("x86").descriptions / "beaglebone-black.toml").read_text()
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=words):
        get_target(tmp_path / "mine.toml")


def test_an_emulated_core_that_lacks_what_code_needs(tmp_path) -> None:
    text = (get_target("x86").descriptions / "cortex-a76.toml").read_text()
    for cpu, enough in (("cortex-a53", False), ("cortex-a76", True), ("neoverse-n1", True)):
        (tmp_path / "mine.toml").write_text(text.replace('emulator_cpu = "max"', f'emulator_cpu = "{cpu}"'))
        if enough:
            assert get_target(tmp_path / "mine.toml").description.emulator_cpu == cpu
            continue
        with pytest.raises(UserError, match=f"a {cpu} lacks asimdhp, asimdrdm, asimddp, which code for cortex-a76 needs"):
            get_target(tmp_path / "mine.toml")


def test_float_layers_of_odd_widths_take_no_more_than_wider_ones(tmp_path) -> None:
    """Forty channels in five vectors would be taken apart lane by lane: twice the instructions of forty-eight in four each."""
    counts = {}
    for outputs in (40, 48):
        params = small_models.weights(weight=(outputs, 32, 1, 1))
        mod = small_models.model(lambda x, p: relax.op.nn.conv2d(x, p["weight"]), (1, 32, 7, 6), params=params)
        counts[outputs] = get_target("cortex-a72").build(mod, tmp_path / str(outputs)).measure().instructions
    assert counts[40] < counts[48]
