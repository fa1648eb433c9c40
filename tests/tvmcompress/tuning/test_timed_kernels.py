"""Tuning kernels of Cortex-A by time on boards: what is found is kept for the board, taken by its builds, and by no others."""

# mypy: ignore-errors

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from tests.boards import Cluster
from tests.targets.arm.boards import EmulatedBoard, EmulatedBoards, runner
from tests.tvmcompress.tuning.test_kernels import network
from tvmcompress.errors import UserError
from tvmcompress.targets import get_target
from tvmcompress.targets.kernels.decisions import point_key
from tvmcompress.targets.kernels.records import unit_of, workload_of
from tvmcompress.targets.remote.boards import Boards
from tvmcompress.targets.remote.tracker import Tracker
from tvmcompress.targets.tuning_log import LOGS_VARIABLE, TuningLog
from tvmcompress.tuning.kernels import TimedKernelBench
from tvmcompress.tuning.logs import entries
from tvmcompress.tuning.tune import tune

BOARD = "raspberry-pi-4"

pytestmark = pytest.mark.skipif(bool(get_target(BOARD).missing_tools()), reason="needs the Cortex-A tool chain")


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(TimedKernelBench, "batch", 3)


def later_is_faster(library, number) -> float:
    """Of a program's runs; of a model's (-1) always the same."""
    return 1e-5 * (1 - 0.1 * number) if number >= 0 else 1e-3


def kernels(folder):
    return [path.read_bytes() for path in sorted(folder.glob("model_kernels*.o"))]


def test_times_decide_for_the_board_and_for_no_other(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(LOGS_VARIABLE, str(tmp_path / "logs"))
    mod, target = network(), get_target(BOARD)
    boards = EmulatedBoards(EmulatedBoard(runner(tmp_path), BOARD, later_is_faster))
    result = tune(mod, BOARD, 8, boards=boards)
    assert (result.unit, result.trials, result.lost) == ("s", 8, None)
    assert (result.model_default, result.model_best) == (1e-3, 1e-3)
    assert result.directory == str(tmp_path / "logs" / BOARD)
    tuned = [task for task in result.tasks if task.trials > 1]
    assert len(tuned) > 1
    assert {status for task in result.tasks for status in task.outcomes} == {"ok"}
    # In the final rounds the default comes first, and so is the slowest.
    assert all(task.best_cost < task.default_cost == 1e-5 for task in tuned)
    log = TuningLog(result.directory)
    assert {unit_of(workload_of(mod)) for mod in log.modules()} == {"s"}
    assert {entry.unit for entry in entries(log)} == {"s"}
    taken = {entry.name: point_key(entry.decisions) for entry in entries(log) if entry.records > 1}
    assert len(taken) == len(tuned)
    assert not {point_key(site.choice.default) for site in target.survey(mod)} & set(taken.values())
    # A plain build for the board takes it, and computes the same; a build for its core does not.
    made = {choice: target.build(mod, tmp_path / str(choice), tuning_log=choice) for choice in (None, False)}
    assert kernels(tmp_path / "None") != kernels(tmp_path / "False")
    x = np.random.default_rng(1).integers(-128, 128, (1, 12, 8, 4)).astype("int8")
    np.testing.assert_array_equal(made[None].run([x])[0], made[False].run([x])[0])
    for place, choice in (("core", log.directory), ("untuned core", False)):
        get_target("cortex-a72").build(mod, tmp_path / place, tuning_log=choice)
    assert kernels(tmp_path / "core") == kernels(tmp_path / "untuned core")


def test_what_is_no_faster_in_the_final_rounds_is_not_taken(tmp_path) -> None:
    """The first timing of a candidate may be luck."""
    seen: dict[str, int] = {}

    def lucky(library, number) -> float:
        # Of a search's programs all candidates are timed twice, of the final rounds nine times.
        times = seen[f"{library} {number}"] = seen.get(f"{library} {number}", 0) + 1
        return 1e-5 if number <= 0 or times > 2 else 5e-6

    mod = network()
    boards = EmulatedBoards(EmulatedBoard(runner(tmp_path), BOARD, lucky))
    result = tune(mod, BOARD, 4, tmp_path / "log", boards=boards)
    tuned = [task for task in result.tasks if task.trials]
    assert sum(task.trials for task in tuned) == 4
    assert [task.best_cost for task in tuned] == [1e-5] * len(tuned)
    defaults = {point_key(site.choice.default) for site in get_target(BOARD).survey(mod)}
    assert {point_key(entry.decisions) for entry in entries(TuningLog(tmp_path / "log"))} <= defaults


def test_a_search_goes_on_where_its_boards_were_lost(cluster: Cluster, tmp_path) -> None:
    """The tracker has no board any more."""
    emulated = EmulatedBoards(EmulatedBoard(runner(tmp_path), BOARD, later_is_faster))
    mod, log = network(), tmp_path / "log"
    first = tune(mod, BOARD, 2, log, boards=emulated)
    lost = tune(mod, BOARD, 8, log, boards=Boards(Tracker(cluster.address), "nobody", 5, 1))
    assert lost.stopped == "loss of all boards"
    assert lost.trials == 0
    again = tune(mod, BOARD, 3, log, boards=emulated)
    assert (first.trials, again.trials) == (2, 3)
    assert sum(entry.records for entry in entries(TuningLog(log))) == 5


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cortex-a72", "times are those of a board; give the board as target, as in raspberry-pi-4, not cortex-a72"),
        ("cortex-m4", "boards of a tracker time schedules of x86 and kernels of 64-bit Cortex-A, not those of cortex-m4"),
        ("beaglebone-black", "kernels of 64-bit Cortex-A, not those of beaglebone-black"),
    ],
)
def test_targets_whose_kernels_boards_do_not_time(name, sentence, tmp_path) -> None:
    boards = EmulatedBoards(EmulatedBoard(tmp_path, BOARD, later_is_faster))
    with pytest.raises(UserError, match=sentence):
        tune(network(), name, 1, tmp_path, boards=boards)


@pytest.mark.skipif("TVMCOMPRESS_ARM64_PYTHON" not in os.environ, reason="needs an arm64 Python: scripts/arm64_python.sh")
def test_a_server_of_the_other_architecture(cluster: Cluster, tmp_path) -> None:
    """TVM's own, as it runs on a board, under the emulator."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host, _, at = cluster.address.partition(":")
    program = f"S('127.0.0.1', {port}, {port + 9}, tracker_addr=('{host}', {at}), key='arm64').thread.join()"
    command = [os.environ["TVMCOMPRESS_ARM64_PYTHON"], "-c", f"from tvm.rpc.server import PopenRPCServerState as S; {program}"]
    process = subprocess.Popen(command, start_new_session=True)
    tracker = Tracker(cluster.address)
    try:
        deadline = time.monotonic() + 120
        while not tracker.servers("arm64") and time.monotonic() < deadline:
            time.sleep(1)
        result = tune(network(), BOARD, 6, tmp_path, boards=Boards(tracker, "arm64", 60, 60))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert (result.trials, result.lost, result.model_problem) == (6, None, None)
    assert {status for task in result.tasks for status in task.outcomes} == {"ok"}
    assert 0 < result.model_best < 1
