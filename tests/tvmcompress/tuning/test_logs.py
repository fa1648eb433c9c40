"""Tuning logs are listed, shown, merged, pruned and verified; none of it changes what builds take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tvm.s_tir import meta_schedule as ms
from typer.testing import CliRunner

from tvmcompress.cli.main import app
from tvmcompress.errors import UserError
from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.targets.kernels import versions
from tvmcompress.targets.kernels.decisions import Workload
from tvmcompress.targets.kernels.records import KernelRecord, append, read, workload_module
from tvmcompress.targets.tuning_log import LOGS_VARIABLE, WORKLOADS, TuningLog
from tvmcompress.targets.tuning_log import RECORDS as RECORDS_FILE
from tvmcompress.targets.x86.space import X86Tuning
from tvmcompress.tuning.logs import merge, open_log, prune, verify
from tvmcompress.tuning.tune import tune

LLVM = tvm.target.Target({"kind": "llvm", "mcpu": "cortex-m4", "mtriple": "thumbv7em-none-eabi"})
SMALL, LARGE = (Workload("dsp", "dense", {"inputs": size, "outputs": 4}) for size in (8, 64))
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
    (entry,) = [entry for entry in json.loads(tool("list", "--json")) if entry["target"] == "cortex-m4"]
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
    monkeypatch.setitem(versions.VERSIONS, "dsp", 2)
    assert prune(TuningLog(log.directory)) == (6, 0)
    assert verify(TuningLog(log.directory)) == []


def test_verify_names_what_builds_pass_over(log: TuningLog, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(tool("verify", "cortex-m4", "--json")) == {"records": 10, "problems": []}
    monkeypatch.setitem(versions.VERSIONS, "dsp", 2)
    assert len(verify(log)) == 2
    assert "tune it again" in tool("verify", "cortex-m4")


def test_a_log_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOGS_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="there is no tuning log nothing"):
        open_log("nothing")


def test_a_log_of_schedules_is_a_database_of_metaschedule(tmp_path: Path) -> None:
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
    tunable = X86Tuning()
    lowered = tunable.lower(mod)
    database = ms.database.JSONDatabase(str(tmp_path / WORKLOADS), str(tmp_path / RECORDS_FILE))
    with database, tunable.log_target, tvm.transform.PassContext(opt_level=3):
        applied = relax.transform.MetaScheduleApplyDatabase()(lowered)
    (function,) = [var for var in lowered.get_global_vars() if var.name_hint != "main"]
    assert str(applied[function]) != str(lowered[function])
