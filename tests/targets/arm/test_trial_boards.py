"""Candidates on boards of a tracker: planted ones are rejected, the others timed; boards that are lost or lack something."""

# mypy: ignore-errors

from __future__ import annotations

import subprocess

import pytest

from tests.boards import Cluster
from tests.targets.arm.boards import EmulatedBoard, EmulatedBoards, runner
from tests.targets.trials.test_image import kernel, planted, trial
from tests.tvmcompress.tuning.test_kernels import network
from tvmcompress.errors import UserError
from tvmcompress.targets import get_target
from tvmcompress.targets.arm.trial_boards import CortexABoards
from tvmcompress.targets.remote.boards import Boards
from tvmcompress.targets.remote.facts import Facts
from tvmcompress.targets.remote.tracker import Tracker
from tvmcompress.targets.trials import image
from tvmcompress.targets.trials.site import SiteTrials

needs_tools = pytest.mark.skipif(bool(get_target("cortex-a72").missing_tools()), reason="needs the Cortex-A tool chain")


class HostBoards(CortexABoards):
    """Servers on this machine, and code for it."""

    def __init__(self, boards: Boards, turns: int = 2) -> None:
        super().__init__(get_target("raspberry-pi-4").description, boards, turns)
        self.tvm, self.prefix = {"kind": "llvm"}, ""

    def flags(self):
        return [flag for flag in super().flags() if not flag.startswith("-mcpu")]

    def lacking(self, board):
        return []


def outcomes_of(trials, place):
    makers = [lambda made=made: made for made in trials.values()]
    return dict(zip(trials, image.measure(makers, place)))


def test_planted_candidates_cost_no_board(cluster: Cluster, monkeypatch) -> None:
    monkeypatch.setattr(image, "_LIMIT", 4.0)
    servers = {cluster.start("planted") for _ in range(2)}
    boards = Boards(Tracker(cluster.address), "planted", 30, 20)
    expected = planted("crash")
    found = outcomes_of({name: made for name, (made, _) in expected.items()}, HostBoards(boards))
    assert {name: outcome.status for name, outcome in found.items()} == {name: status for name, (_, status) in expected.items()}
    for outcome in found.values():
        if outcome.status == "ok":
            # In a program that another one has ended there was no second turn.
            assert len(outcome.turns) in (1, 2)
            assert 0 < outcome.cost == min(outcome.turns) < 1e-3
        else:
            assert outcome.reason
    assert set(boards.tracker.servers("planted")) == servers
    for address in servers:
        cluster.kill(address)


@pytest.mark.parametrize("count", [2, 1])
def test_a_board_lost_in_the_middle(cluster: Cluster, monkeypatch, count) -> None:
    key = f"lost{count}"
    addresses = [cluster.start(key) for _ in range(count)]
    boards = Boards(Tracker(cluster.address), key, 30, 20)
    checked = []
    original = CortexABoards._task

    def killing(self, program, state, board):
        class Answers(list):
            def append(self, answer):
                super().append(answer)
                checked.append(board.address)
                if len(checked) == 3:
                    cluster.kill(board.address)

        state.answers = Answers(state.answers)
        original(self, program, state, board)

    monkeypatch.setattr(CortexABoards, "_task", killing)
    place = HostBoards(boards)
    monkeypatch.setattr(HostBoards, "at_once", 1)
    found = outcomes_of({name: trial(kernel()) for name in range(5)}, place)
    statuses = [outcome.status for outcome in found.values()]
    if count == 2:
        assert statuses == ["ok"] * 5
        assert len(set(checked)) == 2
    else:
        assert statuses == ["ok", "ok", "lost", "lost", "lost"]
        assert "its server has ended" in found[2].reason
    for address in addresses:
        if address in cluster.servers:
            cluster.kill(address)


def test_a_board_that_is_another_machine(cluster: Cluster, board: str) -> None:
    place = CortexABoards(get_target("raspberry-pi-5").description, Boards(Tracker(cluster.address), board, 20, 20))
    with pytest.raises(UserError, match=r"lacks the instructions of a 64-bit Arm, which code for raspberry-pi-5 needs"):
        outcomes_of({"right": trial(kernel())}, place)


@needs_tools
def test_a_board_that_lacks_instructions(tmp_path) -> None:
    emulated = EmulatedBoard(runner(tmp_path), "raspberry-pi-4", lambda library, number: 1.0)
    place = CortexABoards(get_target("raspberry-pi-5").description, EmulatedBoards(emulated))
    with pytest.raises(UserError, match=r"lacks asimdhp, asimdrdm, asimddp, which code for raspberry-pi-5 needs"):
        outcomes_of({"right": trial(kernel())}, place)
    # What a board does not say cannot be held against it.
    emulated.facts = Facts()
    assert place.lacking(emulated) == []


@needs_tools
def test_kernels_as_a_board_runs_them(tmp_path) -> None:
    """The library needs nothing that TVM's runtime does not have; every kernel gives the bytes of the reference."""
    programs = []

    class Kept(CortexABoards):
        def execute(self, program, folder, expected, limit):
            command = ["aarch64-linux-gnu-nm", "-D", program]
            programs.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            return super().execute(program, folder, expected, limit)

    target = get_target("raspberry-pi-5")
    emulated = EmulatedBoard(runner(tmp_path), "raspberry-pi-5", lambda library, number: 1e-6 * (1 + number))
    sites = target.survey(network())
    makers = [lambda site=site: SiteTrials(site).trial(site.choice.default) for site in sites]
    found = image.measure(makers, Kept(target.description, EmulatedBoards(emulated)))
    assert [outcome.status for outcome in found] == ["ok"] * len(sites)
    # A kernel that may work in place is run twice.
    assert sorted(outcome.cost for outcome in found)[:2] == pytest.approx([1e-6, 2e-6])
    (listed,) = programs
    missing = {line.split()[-1].partition("@")[0] for line in listed.splitlines() if " U " in line}
    assert missing <= {"TVMFFIErrorSetRaisedFromCStr", "memcpy", "memset", "memmove"}
    assert all(f" T __tvm_ffi_{name}" in listed for name in ("check", "call"))
