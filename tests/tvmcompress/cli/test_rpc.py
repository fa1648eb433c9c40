"""Commands that run models on boards of a tracker: TVM's own servers on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tests.boards import Cluster
from tests.tvmcompress.cli.running import refused, run
from tvmcompress import Model
from tvmcompress.measuring.benchmarking import benchmark
from tvmcompress.targets import get_target
from tvmcompress.targets.arm.remote import CortexAProgram
from tvmcompress.targets.remote.boards import BoardPool
from tvmcompress.targets.remote.facts import Facts
from tvmcompress.targets.remote.tracker import Tracker


def test_benchmark(cluster: Cluster, board: str, digits: Path) -> None:
    ran = run("benchmark", digits / "digits.onnx", "--rpc", cluster.address, "--key", board, "--runs", 30)
    assert ran.code == 0, ran.err
    assert "median time on this machine, or on the board named here" in ran.out
    said = " ".join(ran.out.split())
    assert f"(key {board}), over RPC: governor" in said
    assert "in 8 of 10 of 30 runs" in said


def test_compress_and_run(cluster: Cluster, board: str, digits: Path, tmp_path: Path) -> None:
    where = ("--rpc", cluster.address, "--key", board)
    options = ("--quantize", "int8", "--calib", digits / "digits_calib.npz", "-t", "x86", "-o", tmp_path / "out", "--json")
    compressed = run("compress", digits / "digits.onnx", *options, *where)
    assert compressed.code == 0, compressed.err
    (build,) = compressed.json["builds"]
    assert build["largest_error"] == 0
    assert build["measurement"]["source"] == "hardware"
    assert f"(key {board}), over RPC" in build["measurement"]["place"]
    latency = build["measurement"]["latency"]
    assert 0 < latency["p10_ms"] <= latency["median_ms"] <= latency["p90_ms"]
    here, there = tmp_path / "here.npz", tmp_path / "there.npz"
    data = (tmp_path / "out", digits / "digits_test.npz", "--limit", "40")
    assert run("run", *data, "-o", here).code == 0
    ran = run("run", *data, "-o", there, *where, "--rpc-timeout", 20)
    assert ran.code == 0, ran.err
    assert "measured on" in ran.out
    with np.load(here) as wanted, np.load(there) as got:
        assert wanted.files == got.files
        for name in wanted.files:
            np.testing.assert_array_equal(got[name], wanted[name])


def test_devices(cluster: Cluster, board: str) -> None:
    ran = run("devices", "--rpc", cluster.address)
    assert ran.code == 0, ran.err
    assert board in ran.out
    assert "free" in ran.out
    found = run("devices", "--rpc", cluster.address, "--json").json["boards"]
    (mine,) = (device for device in found if device["key"] == board)
    assert mine["facts"]["tvm"].startswith("0.27")
    assert "serial" in run("devices").out.lower()


def test_a_board_that_cannot_run_the_code(cluster: Cluster, board: str, digits: Path) -> None:
    ran = run("benchmark", digits / "digits.onnx", "-t", "raspberry-pi-4", "--rpc", cluster.address, "--key", board)
    assert ran.code == 2
    assert "lacks the instructions of a 64-bit Arm, which code for raspberry-pi-4 needs" in " ".join(ran.err.split())


@pytest.mark.skipif(bool(get_target("cortex-a76").missing_tools()), reason="needs the Cortex-A tool chain")
def test_a_board_without_the_dot_product(
    cluster: Cluster, board: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Raspberry Pi 4, by what its kernel says, is given code for a Raspberry Pi 5: nothing of it runs there."""
    asked = CortexAProgram.lacking
    older = Facts(hwcap=0x887)
    monkeypatch.setattr(CortexAProgram, "lacking", lambda self, facts, architecture: asked(self, older, "aarch64"))
    tvmcompress.build(tvmcompress.load(digits / "digits.onnx"), "raspberry-pi-5", tmp_path / "raspberry-pi-5")
    for command in (
        ("benchmark", digits / "digits.onnx", "-t", "raspberry-pi-5"),
        ("run", tmp_path / "raspberry-pi-5"),
    ):
        ran = run(*command, "--rpc", cluster.address, "--key", board)
        assert ran.code == 2
        said = " ".join(ran.err.split())
        assert "lacks asimdhp, asimdrdm, asimddp, which code for raspberry-pi-5 needs; build for the board's core" in said


def test_wrong_key(cluster: Cluster, board: str, digits: Path) -> None:
    said = refused("benchmark", digits / "digits.onnx", "--rpc", cluster.address, "--key", "pi9")
    assert "no board with key 'pi9'" in said
    assert board in said
    # By default the target's name.
    assert "no board with key 'x86'" in refused("benchmark", digits / "digits.onnx", "--rpc", cluster.address)


@pytest.mark.parametrize(("count", "measured"), [(2, ["first", "second"]), (1, ["first"])])
def test_a_board_lost_in_the_middle(cluster: Cluster, digits_model: Model, count: int, measured: list[str]) -> None:
    """With another board all is measured; without one what was measured before is kept, and a sentence says why not all."""
    key = f"lost{count}"
    for _ in range(count):
        cluster.start(key)
    used: list[str] = []

    def on_build(model: str, target: str, what: str) -> None:
        if (model, what) == ("second", "check"):
            servers = tracker.servers(key)
            used.extend(address for address in servers if address in cluster.servers)
            cluster.kill(used[0])

    tracker = Tracker(cluster.address)
    models = {"first": digits_model, "second": digits_model}
    records = benchmark(models, ["x86"], boards=BoardPool(tracker, key, 20), on_build=on_build)
    assert [record.model for record in records if record.measurement is not None] == measured
    if count == 1:
        assert records[1].problem is not None
        assert f"no board with key '{key}' is at the tracker" in records[1].problem
        assert records[1].exit_code
    for address in used[1:]:
        cluster.kill(address)
