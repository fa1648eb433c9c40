"""Tuning logs are listed, shown, merged, pruned and verified; none of it changes what builds take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tvm.s_tir import Schedule
from tvm.script import tirx as T
from typer.testing import CliRunner

from tvmcompress.cli.main import app
from tvmcompress.errors import UserError
from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.targets.kernels import versions
from tvmcompress.targets.kernels.decisions import Workload
from tvmcompress.targets.kernels.records import KernelRecord, append, final_decisions, read, workload_module
from tvmcompress.targets.tuning_log import LOGS_VARIABLE, TuningLog
from tvmcompress.targets.x86.database import LogDatabase
from tvmcompress.targets.x86.tuning import X86Tuning
from tvmcompress.tuning.logs import best_elsewhere, merge, open_log, prune, verify
from tvmcompress.tuning.tune import tune

LLVM = tvm.target.Target({"kind": "llvm", "mcpu": "cortex-m4", "mtriple": "thumbv7em-none-eabi"})
SMALL, LARGE = (Workload("dsp", "dense", {"inputs": size, "outputs": 4}) for size in (8, 64))
REDUCTION = Workload("x86", "reduction", {"reads": (4, 8), "sums": (8,), "outputs": (4, 4)})
RECORDS = [
    KernelRecord({"unroll": 1}, 900, 100, 0),  # the default
    KernelRecord({"unroll": 2}, 700, 120, 0),
    KernelRecord({"unroll": 3}, 800, 120, 0),  # beaten
    KernelRecord({"unroll": 4}, None, 0, 0),  # failed
    KernelRecord({"unroll": 5}, 950, 90, 0),  # slower, but smaller
]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TuningLog:
    """A log of two workloads."""
    monkeypatch.setenv(LOGS_VARIABLE, str(tmp_path / "logs"))
    made = TuningLog(tmp_path / "logs" / "cortex-m4")
    for workload in (SMALL, LARGE):
        for record in RECORDS:
            append(made, workload_module(workload, "cortex-m4"), record, LLVM)
    return made


def tool(*arguments: str) -> str:
    """The output of `tvmcompress logs`."""
    result = CliRunner().invoke(app, ["logs", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_is_written_is_read(log: TuningLog) -> None:
    assert read([log], workload_module(SMALL, "cortex-m4")) == RECORDS
    assert read([log], workload_module(SMALL, "cortex-m7")) == []


def test_list_and_show(log: TuningLog) -> None:
    # What ships is listed beside it.
    (entry,) = [entry for entry in json.loads(tool("list", "--json")) if entry["directory"] == str(log.directory)]
    assert entry["target"] == "cortex-m4"
    assert (entry["workloads"], entry["records"], entry["failed"], entry["stale"]) == (2, 10, 2, 0)
    assert "cortex-m4" in tool("list")
    shown = json.loads(tool("show", "cortex-m4", "--json"))
    assert [(line["best"], line["decisions"]) for line in shown] == [(700.0, {"unroll": 2})] * 2
    assert "unroll 2" in tool("show", str(log.directory))


def test_merge_takes_every_record_once(log: TuningLog, tmp_path: Path) -> None:
    merged = merge([log, log], tmp_path / "merged")
    assert len(merged) == len(log) == 10
    other = TuningLog(tmp_path / "other")
    append(other, workload_module(SMALL, "cortex-m7"), RECORDS[0], LLVM)
    assert json.loads(tool("merge", str(other.directory), "--into", str(tmp_path / "merged"), "--json"))["records"] == 11


def test_prune_keeps_the_default_and_what_nothing_beats(log: TuningLog, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prune(log) == (10, 6)
    left = read([TuningLog(log.directory)], workload_module(LARGE, "cortex-m4"))
    assert left == [RECORDS[0], RECORDS[1], RECORDS[4]]
    monkeypatch.setitem(versions.VERSIONS, "dsp", versions.VERSIONS["dsp"] + 1)
    assert prune(TuningLog(log.directory)) == (6, 0)
    assert verify(TuningLog(log.directory)) == []


def test_prune_keeps_what_every_formula_takes(tmp_path: Path) -> None:
    log, key = TuningLog(tmp_path), workload_module(SMALL, "cortex-m4")
    sizes = {"workspace_bytes": 8, "constant_bytes": 40, "workspaces": 1, "library": ("memset",)}
    records = [
        KernelRecord({"unroll": 1}, 900, 100, **sizes, default=True),
        KernelRecord({"unroll": 2}, 700, 90, **sizes),
        KernelRecord({"unroll": 3}, 950, 110, **sizes, default=True),  # of another model
        KernelRecord({"unroll": 4}, 699, 120, **sizes),  # hardly better than what takes less
    ]
    for record in records:
        append(log, key, record, LLVM)
    assert read([log], key) == records
    assert prune(log) == (4, 3)
    assert read([TuningLog(tmp_path)], key) == records[:3]
    assert best_elsewhere([TuningLog(tmp_path)]) == {SMALL.key: {json.dumps({"unroll": n}) for n in (1, 2, 3)}}


def test_prune_counts_routines(tmp_path: Path) -> None:
    """In full, of those that other layers may have anyway too; what formulas take stays."""
    log, mod = TuningLog(tmp_path), workload_module(SMALL, "cortex-m4")
    records = [
        KernelRecord({"unroll": 1}, 900, 100, 0, default=True),
        KernelRecord({"unroll": 2}, 700, 150, 0),  # beaten by routines
        KernelRecord({"unroll": 3}, 500, 60, 0, library=("a:40",)),
        KernelRecord({"unroll": 4}, 600, 80, 0, library=("b:40",)),  # takes less where another layer has b
        KernelRecord({"unroll": 5}, 600, 110, 0, library=("b:40",)),  # beaten even so
        KernelRecord({"unroll": 6}, 700, 70, 0, library=("a:40",)),
    ]
    for record in records:
        append(log, mod, record, LLVM)
    assert prune(log) == (6, 3)
    assert [record.decisions["unroll"] for record in read([TuningLog(tmp_path)], mod)] == [1, 3, 4]


def test_verify_names_what_builds_pass_over(log: TuningLog, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(tool("verify", "cortex-m4", "--json")) == {"records": 10, "problems": []}
    monkeypatch.setitem(versions.VERSIONS, "dsp", versions.VERSIONS["dsp"] + 1)
    assert len(verify(log)) == 2
    assert "tune it again" in tool("verify", "cortex-m4")


def test_a_log_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOGS_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="there is no tuning log nothing"):
        open_log("nothing")


def test_a_log_of_x86_is_a_database_of_metaschedule(tmp_path: Path) -> None:
    """As docs/tuning.md has it."""
    x, w = relax.Var("x", relax.TensorType((4, 24), "float32")), relax.Var("w", relax.TensorType((24, 16), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w], attrs={"num_input": 1}):
        with builder.dataflow():
            y = builder.emit_output(relax.op.nn.relu(relax.op.matmul(x, w)))
        builder.emit_func_output(y)
    weights = np.random.default_rng(0).normal(size=(24, 16)).astype("float32")
    mod = attach_params(builder.get(), {"w": weights})
    tune(mod, "x86", 2, tmp_path)
    tuning = X86Tuning()
    lowered = tuning.lower(mod)
    with LogDatabase([TuningLog(tmp_path)]), tuning.log_target, tvm.transform.PassContext(opt_level=3):
        applied = relax.transform.MetaScheduleApplyDatabase()(lowered)
    (function,) = [var for var in lowered.get_global_vars() if var.name_hint != "main"]
    assert str(applied[function]) != str(lowered[function])
    with LogDatabase([TuningLog(tmp_path / "empty")]), tuning.log_target, tvm.transform.PassContext(opt_level=3):
        unknown = relax.transform.MetaScheduleApplyDatabase()(lowered)
    assert str(unknown[function]) == str(lowered[function])


def timed(tmp_path: Path, *records: tuple[int, float | None]) -> TuningLog:
    """A log of one x86 workload."""
    log = TuningLog(tmp_path / "x86")
    for unroll, seconds in records:
        append(log, workload_module(REDUCTION, "x86-64-v3"), KernelRecord({"unroll": unroll}, seconds), LLVM)
    return log


@pytest.mark.parametrize(
    ("records", "taken"),
    [
        ([(1, 9e-6), (2, 5e-6), (3, 7e-6), (1, 9e-6), (3, 8e-6)], 3),  # measured again: the default and the third
        ([(1, 9e-6), (2, 5e-6), (1, 4e-6)], 1),  # the default won
        ([(1, 9e-6), (2, 8e-6)], 2),  # interrupted, clearly faster
        ([(1, 9e-6), (2, 8.9e-6)], 1),  # interrupted, within the noise
        ([(1, 9e-6), (2, None)], 1),
    ],
)
def test_a_single_timing_is_not_believed(tmp_path: Path, records: list[tuple[int, float | None]], taken: int) -> None:
    log = timed(tmp_path, *records)
    key = workload_module(REDUCTION, "x86-64-v3")
    assert final_decisions([log], key, {"unroll": 1}) == {"unroll": taken}
    assert final_decisions([log], workload_module(REDUCTION, "x86-64-v4"), {"unroll": 1}) is None
    (shown,) = json.loads(tool("show", str(log.directory), "--json"))
    assert (shown["unit"], shown["decisions"]) == ("s", {"unroll": taken})
    prune(log)
    assert final_decisions([TuningLog(log.directory)], key, {"unroll": 1}) == {"unroll": taken}


def test_functions_without_named_decisions_are_stale(tmp_path: Path) -> None:
    log = TuningLog(tmp_path)

    @T.prim_func(s_tir=True)
    def main() -> None:
        with T.sblock("root"):
            T.evaluate(0)

    mod = tvm.IRModule({"main": main.with_attr("global_symbol", "main")})
    log.append(mod, Schedule(mod).trace, [1e-6], LLVM, [])
    (found,) = verify(log)
    assert "tune it again" in found
    assert prune(log) == (1, 0)
