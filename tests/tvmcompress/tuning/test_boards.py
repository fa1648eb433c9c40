"""Tuning on boards of a tracker: several at once, candidates that spoil, boards that are lost."""

# mypy: ignore-errors

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.boards import Cluster
from tests.tvmcompress.cli.running import run
from tests.tvmcompress.tuning.test_tune import Spoiled, calling, dense, measured, twice
from tvmcompress.targets.remote.boards import Boards
from tvmcompress.targets.remote.tracker import Tracker
from tvmcompress.tuning.boards import BoardBench
from tvmcompress.tuning.tune import tune


def test_candidates_that_spoil_cost_no_board(cluster: Cluster, tmp_path: Path) -> None:
    servers = {cluster.start("bench") for _ in range(2)}
    boards = Boards(Tracker(cluster.address), "bench", 30, 20)
    spoiled = {1: twice, 2: calling("abort"), 3: calling("sleep", 600)}
    options = {"trials": 6, "workers": 1, "candidate_limit": 3.0, "boards": boards}
    result = tune(dense(), Spoiled(spoiled), database_dir=tmp_path, **options)
    (task,) = result.tasks
    assert task.outcomes == {"ok": 3, "wrong": 1, "crash": 1, "timeout": 1}
    assert 0 < task.best_cost <= task.default_cost
    assert task.of_peak is None
    assert list(measured(tmp_path).values()).count(None) == 3
    assert set(boards.tracker.servers("bench")) == servers
    for address in servers:
        cluster.kill(address)


@pytest.mark.parametrize("count", [2, 1])
def test_a_board_lost_in_the_middle(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    key = f"middle{count}"
    addresses = [cluster.start(key) for _ in range(count)]
    boards = Boards(Tracker(cluster.address), key, 30, 20)
    trial, tried = BoardBench._trial, []

    def killing(self, library, data, repeat, board):
        outcome = trial(self, library, data, repeat, board)
        tried.append(board.address)
        if len(tried) == 3:
            cluster.kill(board.address)
            board.tensor(np.zeros(4, "float32"))
        return outcome

    monkeypatch.setattr(BoardBench, "_trial", killing)
    result = tune(dense(), Spoiled({}), trials=6, database_dir=tmp_path, workers=1, boards=boards)
    (task,) = result.tasks
    if count == 2:
        assert (task.outcomes, result.lost) == ({"ok": 6}, None)
    else:
        assert (task.outcomes, result.stopped) == ({"ok": 2}, "loss of all boards")
        assert "its server has ended" in result.lost
        assert len(measured(tmp_path)) == 2
        # Goes on where it was, here.
        monkeypatch.undo()
        again = tune(dense(), Spoiled({}), trials=6, database_dir=tmp_path, workers=1)
        assert again.trials == 4
    for address in addresses:
        if address in cluster.servers:
            cluster.kill(address)


def test_the_command(cluster: Cluster, board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmcompress.tuning.whole_model._ROUNDS", 2)
    example = Path(__file__).parents[3] / "examples" / "digits.onnx"
    where = ("--rpc", cluster.address, "--key", board)
    ran = run("tune", example, "--trials", 3, "--log", tmp_path / "log", *where)
    assert ran.code == 0, ran.err
    assert "3 candidates" in ran.out
    assert "The whole model" in ran.out
