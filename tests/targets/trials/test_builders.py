"""Candidates compiled on other machines: the same objects, and what happens when one of the machines is lost."""

# mypy: ignore-errors

from __future__ import annotations

from functools import partial

import pytest

from tests.boards import Cluster
from tests.targets.trials.test_compile import convolution
from tests.tvmcompress.tuning.test_tune import Spoiled, dense
from tvmcompress.errors import UserError
from tvmcompress.targets.remote.board import Board
from tvmcompress.targets.remote.boards import Boards
from tvmcompress.targets.remote.tracker import Tracker
from tvmcompress.targets.trials import builders as module
from tvmcompress.targets.trials.builders import KEY, Builders
from tvmcompress.targets.trials.compile import CompiledTrial, compile_trials
from tvmcompress.targets.trials.site import SiteTrials
from tvmcompress.tuning.tune import tune


@pytest.fixture
def two(cluster: Cluster):
    addresses = [cluster.start(KEY) for _ in range(2)]
    yield Builders(Boards(Tracker(cluster.address), KEY, 30, 20)), addresses
    for address in addresses:
        if address in cluster.servers:
            cluster.kill(address)


@pytest.fixture
def candidates():
    target, site = convolution("cortex-m4")
    maker, space = SiteTrials(site), site.choice.space
    points = [*space[:3], space[-1], space[-2]]
    return [partial(maker.trial, point) for point in points], target.emulator().tvm


def contents(made) -> list[tuple[bytes, tuple[int, ...]]]:
    assert all(isinstance(one, CompiledTrial) for one in made), made
    return [(one.content, one.workspaces) for one in made]


def test_objects_are_those_of_this_machine(two, candidates) -> None:
    builders, _ = two
    trials, target = candidates
    assert contents(builders.trials(trials, target)) == contents(compile_trials(trials, target))


def test_what_cannot_be_made_or_compiled_is_said(two, candidates) -> None:
    builders, _ = two
    trials, target = candidates

    def broken():
        raise ValueError("no such kernel")

    def wrong():
        trial = trials[0]()
        return type(trial)(**{**vars(trial), "options": "-no-such-option"})

    made = builders.trials([broken, lambda: None, trials[0], wrong], target)
    assert [getattr(one, "status", "ok") for one in made[:3]] == ["error", "error", "ok"]
    assert "no such kernel" in made[0].reason


@pytest.mark.parametrize("lost", [1, 2])
def test_a_builder_lost_in_the_middle(two, candidates, cluster: Cluster, monkeypatch, lost: int) -> None:
    """Its task goes to the other one; with none left this machine compiles."""
    builders, _ = two
    trials, target = candidates
    expected = contents(compile_trials(trials, target))
    asked = []
    usual = Board.__init__

    def counting(self, place, timeout) -> None:
        usual(self, place, timeout)
        asked.append(self.address)
        if len(asked) <= lost:
            cluster.kill(self.address)

    monkeypatch.setattr(Board, "__init__", counting)
    assert contents(builders.trials(trials, target)) == expected
    assert len(set(asked)) == 2


def test_x86_candidates_are_compiled_elsewhere_and_timed_here(two, tmp_path, monkeypatch) -> None:
    builders, _ = two
    calls = []
    usual = Builders._call
    monkeypatch.setattr(Builders, "_call", lambda self, *arguments: calls.append(1) or usual(self, *arguments))
    monkeypatch.setattr("tvmcompress.tuning.process.WorkerPool.map", partial(_only_nothing, []))
    result = tune(dense(), Spoiled({}), trials=4, database_dir=tmp_path, workers=1, builders=builders)
    (task,) = result.tasks
    assert task.outcomes == {"ok": 4}
    assert len(calls) == 4


def _only_nothing(expected, command, requests, limit):
    assert requests == expected
    return []


def test_another_version_is_refused(two, candidates, monkeypatch) -> None:
    builders, _ = two
    trials, target = candidates
    monkeypatch.setattr(module, "package_version", lambda: "99.0")
    with pytest.raises(UserError, match=r"a builder has version .*; install 99\.0 on it"):
        builders.trials(trials, target)


def test_a_server_that_compiles_nothing(cluster: Cluster, board: str, candidates) -> None:
    trials, target = candidates
    with pytest.raises(UserError, match="compiles nothing; start tvmcompress.targets.trials.builders there"):
        Builders(Boards(Tracker(cluster.address), board, 30, 20)).trials(trials[:1], target)


def test_no_builder(cluster: Cluster) -> None:
    with pytest.raises(UserError, match="no board with key 'builders'"):
        Builders.at(cluster.address)
