"""Tuning logs: what is written can be read, by several processes, and damage is named."""

# mypy: ignore-errors

from __future__ import annotations

import json
import multiprocessing

import pytest
from tvm.s_tir import Schedule
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.script import tirx as T

from tvmcompress.passes import UserError
from tvmcompress.passes._tvm import tvm
from tvmcompress.targets.tuning_log import LOGS_VARIABLE, TuningLog, default_logs, trace_key, user_log_directory

TARGET = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"})


def workload(size):
    @T.prim_func(s_tir=True)
    def main(A: T.Buffer((size,), "float32"), B: T.Buffer((size,), "float32")):
        T.func_attr({"global_symbol": "main"})
        for i in T.serial(size):
            with T.sblock("B"):
                vi = T.axis.spatial(size, i)
                B[vi] = A[vi] + T.float32(1)

    return tvm.IRModule({"main": main})


def trace(mod, factor):
    schedule = Schedule(mod)
    (loop,) = schedule.get_loops(schedule.get_sblock("B"))
    schedule.split(loop, [None, factor])
    return schedule.trace


def append(directory, mod, factor, seconds):
    TuningLog(directory).append(mod, trace(mod, factor), seconds, TARGET, ArgInfo.from_prim_func(mod["main"]))


def test_round_trip(tmp_path) -> None:
    mod, other = workload(16), workload(32)
    append(tmp_path, mod, 2, [3e-6])
    append(tmp_path, mod, 4, [2e-6])
    append(tmp_path, mod, 8, [])
    append(tmp_path, other, 8, [1e-6])
    log = TuningLog(tmp_path)
    assert len(log) == 4
    assert [float(record.run_secs[0]) for record in log.records(mod)] == pytest.approx([2e-6, 3e-6])
    assert float(log.best(mod).run_secs[0]) == pytest.approx(2e-6)
    assert float(log.best(other).run_secs[0]) == pytest.approx(1e-6)
    assert log.best(workload(64)) is None
    schedule = Schedule(mod)
    log.best(mod).trace.apply_to_schedule(schedule, remove_postproc=False)
    tvm.ir.assert_structural_equal(schedule.mod, _split(mod, 4))
    assert set(log.measured(mod)) == {trace_key(mod, trace(mod, factor)) for factor in (2, 4, 8)}


def _split(mod, factor):
    schedule = Schedule(mod)
    (loop,) = schedule.get_loops(schedule.get_sblock("B"))
    schedule.split(loop, [None, factor])
    return schedule.mod


def test_measured_again_counts_more_than_once(tmp_path) -> None:
    mod = workload(16)
    append(tmp_path, mod, 2, [1e-6])  # a lucky single timing
    append(tmp_path, mod, 4, [2e-6])
    append(tmp_path, mod, 8, [2.1e-6])
    append(tmp_path, mod, 4, [2.4e-6])
    append(tmp_path, mod, 8, [2.2e-6])
    assert float(TuningLog(tmp_path).best(mod).run_secs[0]) == pytest.approx(2.2e-6)


def test_an_open_log_sees_what_others_append(tmp_path) -> None:
    mod = workload(16)
    log = TuningLog(tmp_path)
    append(tmp_path, mod, 2, [3e-6])
    log.append(mod, trace(mod, 4), [4e-6], TARGET, ArgInfo.from_prim_func(mod["main"]))
    assert len(log) == 2


def _append_many(directory, size):
    for factor in (1, 2, 4, 8) * 4:
        append(directory, workload(size), factor, [factor * 1e-6])


def test_processes_share_a_log(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append_many, args=(tmp_path, size)) for size in (16, 16, 32)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    log = TuningLog(tmp_path)
    assert len(log) == 48
    assert len(log.records(workload(16))) == 32
    assert len((tmp_path / "database_workload.json").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("file", "line", "what"),
    [
        ("database_tuning_record.json", "{not json", "is not JSON"),
        ("database_tuning_record.json", '{"a": 1}', "is not [workload, record]"),
        ("database_tuning_record.json", "[7, [[], [1.0]]]", "names workload 7"),
        ("database_workload.json", "[1, 2, 3]", "is not [hash, module]"),
        ("database_workload.json", "\xff", "is not JSON"),
    ],
)
def test_damage_is_named(tmp_path, file, line, what) -> None:
    append(tmp_path, workload(16), 2, [1e-6])
    with open(tmp_path / file, "a") as handle:
        handle.write(line + "\n")
    with pytest.raises(UserError) as error:
        TuningLog(tmp_path)
    assert str(error.value).startswith(f"line 2 of the tuning log {tmp_path / file} {what}")
    assert "delete that line" in str(error.value)


def test_damage_inside_a_line_is_named_when_it_is_needed(tmp_path) -> None:
    mod = workload(16)
    append(tmp_path, mod, 2, [1e-6])
    path = tmp_path / "database_tuning_record.json"
    record = json.loads(path.read_text())
    record[1][0] = "no trace"
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(UserError, match=r"line 1 of the tuning log .* is no tuning record"):
        TuningLog(tmp_path).best(mod)


def test_a_line_cut_off_by_a_crash_is_replaced(tmp_path) -> None:
    mod = workload(16)
    append(tmp_path, mod, 2, [1e-6])
    path = tmp_path / "database_tuning_record.json"
    path.write_text(path.read_text() + '[0,[[[["Get')
    assert len(TuningLog(tmp_path)) == 1
    append(tmp_path, mod, 4, [2e-6])
    assert len(TuningLog(tmp_path)) == 2


def test_a_folder_that_cannot_be_written(tmp_path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        append(occupied / "log", workload(16), 2, [1e-6])


def test_which_logs_a_build_reads(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(LOGS_VARIABLE, str(tmp_path))
    assert user_log_directory("x86") == tmp_path / "x86"
    append(tmp_path / "x86", workload(16), 2, [1e-6])
    assert default_logs("x86")[0].directory == tmp_path / "x86"
    monkeypatch.delenv(LOGS_VARIABLE)
    assert user_log_directory("x86").parts[-2:] == ("tuning_logs", "x86")
    given = tmp_path / "given"
    append(given, workload(16), 2, [1e-6])
    assert default_logs("x86", given)[0].directory == given
