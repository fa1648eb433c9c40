"""Tuning runs: what is tried, rejected, kept, reused and resumed."""

# mypy: ignore-errors

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from tvm.s_tir import Schedule
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvmcompress.errors import UserError
from tvmcompress.passes import attach_params
from tvmcompress.targets.kernels.decisions import Choice
from tvmcompress.targets.kernels.records import final_decisions, read, workload_module
from tvmcompress.targets.tuning_log import TuningLog
from tvmcompress.targets.x86.tuning import X86Tuning
from tvmcompress.tuning import timed
from tvmcompress.tuning.tasks import extract_tasks, function_inputs
from tvmcompress.tuning.timed import is_faster
from tvmcompress.tuning.tune import tune


@I.ir_module
class Dense:
    @R.function
    def main(x: R.Tensor((4, 24), "float32"), w: R.Tensor((24, 16), "float32"), b: R.Tensor((16,), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.matmul(x, w)
            z = R.nn.relu(R.add(y, b))
            R.output(z)
        return z


def dense():
    random = np.random.default_rng(0)
    params = {"w": random.normal(size=(24, 16)).astype("float32"), "b": random.normal(size=16).astype("float32")}
    return attach_params(Dense, params)


@T.prim_func(s_tir=True)
def twice(
    A: T.Buffer((4, 24), "float32"),
    B: T.Buffer((1, 24, 16), "float32"),
    C: T.Buffer((16,), "float32"),
    D: T.Buffer((4, 16), "float32"),
):
    T.func_attr({"global_symbol": "main"})
    for i, j in T.grid(4, 16):
        with T.sblock("wrong"):
            vi, vj = T.axis.remap("SS", [i, j])
            D[vi, vj] = A[vi, vj] + B[0, vi, vj] + C[vj]


def calling(name, *arguments):
    """A function of the same arguments that calls the C library."""

    @T.prim_func(s_tir=True)
    def function(
        A: T.Buffer((4, 24), "float32"),
        B: T.Buffer((1, 24, 16), "float32"),
        C: T.Buffer((16,), "float32"),
        D: T.Buffer((4, 16), "float32"),
    ):
        T.func_attr({"global_symbol": "main"})
        with T.sblock("root"):
            T.reads()
            T.writes(D[0:4, 0:16])
            T.evaluate(T.call_extern("int32", name, *arguments))

    return function


class Spoiled(X86Tuning):
    """The x86 space with other functions in the place of some candidates, and no more than six of them."""

    def __init__(self, spoiled):
        super().__init__()
        self.spoiled = spoiled

    def choice(self, mod):
        found = super().choice(mod)
        return found and Choice(found.workload, found.default, lambda: found.space[:6])

    def schedule(self, mod, decisions):
        index = list(self.choice(mod).space).index(decisions)
        if index in self.spoiled:
            import tvm

            return Schedule(tvm.IRModule({"main": self.spoiled[index]}))
        return super().schedule(mod, decisions)


def measured(directory):
    """What a log knows of the function: seconds by point, None of those that failed."""
    (task,) = extract_tasks(dense(), X86Tuning())
    key = workload_module(task.choice.workload, X86Tuning().core)
    return {str(record.decisions): record.cost for record in read([TuningLog(directory)], key)}


def test_best_is_kept_and_reused(tmp_path) -> None:
    seen = []
    first = tune(dense(), Spoiled({}), trials=6, database_dir=tmp_path, on_progress=seen.append, workers=1)
    (task,) = first.tasks
    assert (first.trials, first.rejected, first.reused) == (6, 0, 0)
    assert task.finished
    assert task.outcomes == {"ok": 6}
    assert 0 < task.best_cost <= task.default_cost
    assert [(event.trial, event.task_trials, event.total_trials) for event in seen] == [(1, 6, 6), (6, 6, 6)]
    (known,) = extract_tasks(dense(), X86Tuning())
    key = workload_module(known.choice.workload, X86Tuning().core)
    taken = final_decisions([TuningLog(tmp_path)], key, known.choice.default)
    assert taken in known.choice.space[:6]
    second = tune(dense(), Spoiled({}), trials=6, database_dir=tmp_path, workers=1)
    assert (second.trials, second.reused) == (0, 1)
    assert second.tasks[0].default_cost == pytest.approx(task.default_cost, rel=1e-6)
    assert second.tasks[0].best_cost == pytest.approx(task.best_cost, rel=1e-6)
    again = tune(dense(), Spoiled({}), trials=6, database_dir=tmp_path, workers=1, retune=True)
    assert again.trials == 6
    assert not list(tmp_path.glob(".unfinished*"))


def test_where_nothing_is_clearly_faster_the_cost_is_the_defaults(tmp_path, monkeypatch) -> None:
    # Rounds in turns that never show a gain, whatever single timings say.
    monkeypatch.setattr(timed, "is_faster", lambda times, default: False)
    first = tune(dense(), Spoiled({}), trials=6, database_dir=tmp_path, workers=1)
    again = tune(dense(), Spoiled({}), trials=6, database_dir=tmp_path, workers=1)
    for (task,) in (first.tasks, again.tasks):
        assert task.best_cost == task.default_cost
    assert again.tasks[0].best_cost == pytest.approx(first.tasks[0].best_cost, rel=1e-6)


def test_wrong_candidates_are_rejected(tmp_path) -> None:
    result = tune(dense(), Spoiled({1: twice, 3: twice}), trials=6, database_dir=tmp_path, workers=1)
    (task,) = result.tasks
    assert task.outcomes == {"ok": 4, "wrong": 2}
    assert result.rejected == 2
    assert "largest error" in task.reason
    assert list(measured(tmp_path).values()).count(None) == 2


def test_crashing_and_hanging_candidates_cost_only_themselves(tmp_path) -> None:
    spoiled = {1: calling("abort"), 2: calling("sleep", 600)}
    start = time.monotonic()
    result = tune(dense(), Spoiled(spoiled), trials=6, database_dir=tmp_path, workers=1, candidate_limit=5.0)
    assert result.tasks[0].outcomes == {"ok": 4, "crash": 1, "timeout": 1}
    assert time.monotonic() - start < 300
    assert result.tasks[0].best_cost > 0


def test_time_limit_leaves_the_rest_for_the_next_run(tmp_path) -> None:
    limited = tune(dense(), trials=20, database_dir=tmp_path, time_limit=0.0, workers=1)
    assert (limited.trials, limited.stopped) == (0, "time limit")
    rest = tune(dense(), Spoiled({}), trials=6, database_dir=tmp_path, workers=1)
    assert (rest.trials, rest.stopped) == (6, None)


def test_interrupted_run_goes_on_where_it_was(tmp_path) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(event):
        raise Interrupted

    with pytest.raises(Interrupted):
        tune(dense(), trials=12, database_dir=tmp_path, on_progress=interrupt, workers=1)
    before = measured(tmp_path)
    assert len(before) == 2
    result = tune(dense(), trials=4, database_dir=tmp_path, workers=1)
    assert (result.trials, result.reused) == (4, 0)
    after = measured(tmp_path)
    assert len(after) == 6
    assert set(before) < set(after)


def test_killed_run_loses_nothing_committed(tmp_path) -> None:
    program = textwrap.dedent(
        f"""
        import importlib.util, os, sys
        spec = importlib.util.spec_from_file_location("cases", {__file__!r})
        sys.modules["cases"] = cases = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(cases)
        cases.tune(cases.dense(), trials=16, database_dir={str(tmp_path)!r}, workers=1,
                   on_progress=lambda event: (print("batch", flush=True), sys.stdin.read()))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "batch\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        stream.close()
    # A line cut off in the middle, as a crash of the machine would leave it.
    with open(tmp_path / "database_tuning_record.json", "a") as file:
        file.write('[0,[[["GetSBl')
    assert len(measured(tmp_path)) == 2
    result = tune(dense(), trials=2, database_dir=tmp_path, workers=1)
    assert result.trials == 2
    assert len(measured(tmp_path)) == 4


@pytest.mark.parametrize(
    ("times", "faster"),
    [
        ([9.0] * 8, True),
        ([9.9] * 8, False),  # less than the noise
        ([9.0, 9.0, 9.0, 9.0, 9.0, 30.0, 30.0, 30.0], False),  # in five rounds of eight
        ([9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 30.0, 9.0], True),
        ([np.nan] * 8, False),
    ],
)
def test_the_final_rounds_ask_for_more_than_noise(times, faster) -> None:
    assert is_faster(np.array(times), np.array([10.0, 10.0, 10.0, 10.0, 20.0, 10.0, 40.0, 10.0])) == faster


def test_bad_arguments(tmp_path) -> None:
    with pytest.raises(UserError, match="at least 1"):
        tune(dense(), trials=0, database_dir=tmp_path)
    with pytest.raises(UserError, match="no target .z80."):
        tune(dense(), "z80", database_dir=tmp_path)
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        tune(dense(), trials=1, database_dir=occupied / "log", workers=1)


def test_tasks_name_work_calls_and_constants() -> None:
    (task,) = extract_tasks(dense(), X86Tuning())
    assert (task.calls, task.work) == (1, 4 * 24 * 16)
    inputs, output = function_inputs(task.subject, seed=3)
    again, _ = function_inputs(task.subject, seed=3)
    other, _ = function_inputs(task.subject, seed=4)
    assert [array.shape for array in inputs] == [(4, 24), (1, 24, 16), (16,)]
    assert output.shape == (4, 16)
    assert all(np.array_equal(a, b) for a, b in zip(inputs, again))
    assert not np.array_equal(inputs[0], other[0])
    assert np.array_equal(inputs[1][0], np.random.default_rng(0).normal(size=(24, 16)).astype("float32"))
