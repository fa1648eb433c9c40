"""What the logs that ship gain on x86: whole models without and with them in turns, and layer by layer; what searches find."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import trained
import tuning
from x86_vs_others import Call, interleave

import tvmcompress
from tvmcompress.passes._tvm import tvm
from tvmcompress.targets import get_target
from tvmcompress.targets.inputs import random_inputs
from tvmcompress.targets.kernels.decisions import point_key
from tvmcompress.targets.tuning_log import TuningLog, default_logs
from tvmcompress.targets.x86.artifact import X86Artifact
from tvmcompress.targets.x86.host import log_names, resolve_cpu
from tvmcompress.targets.x86.measure import thread_limit
from tvmcompress.targets.x86.schedule import by_logs
from tvmcompress.targets.x86.tuning import X86Tuning
from tvmcompress.tuning.process import WorkerPool
from tvmcompress.tuning.seconds import TimingBench
from tvmcompress.tuning.tasks import extract_tasks
from tvmcompress.tuning.tune import tune

_INNER = 3e-3
"""Seconds that one round of a build takes."""


def show(names: list[str], cpu: str, rounds: int) -> None:
    """Print both tables.

    Args:
        names: Of models, each in float and in int8; or ONNX files.
        cpu: What to build for: `native`, or fewer instruction sets such as x86-64-v3.
        rounds: In which builds without and with logs take turns.
    """
    models = {}
    for name in names:
        for kind in _kinds(name):
            models[Path(name).stem, kind] = module(name, kind)
    print(f"## What the logs that ship gain on {' or '.join(log_names(cpu))}", "", sep="\n")
    print("| model | | layers decided | untuned | with logs | gain | 10th to 90th percentile |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for (name, kind), mod in models.items():
        print(f"| {name} | {kind} | {' | '.join(whole(mod, cpu, rounds))} |", flush=True)
    print("", "| layer | of | calls | untuned | with logs | gain |", "|---|---|---|---|---|---|", sep="\n", flush=True)
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for (name, kind), mod in models.items():
            for row in layers(mod, cpu, Path(folder), seen):
                print(f"| {row[0]} | {name} {kind} | {' | '.join(row[1:])} |", flush=True)
    print()


def search(names: list[str], cpu: str, log: Path, seconds: float) -> None:
    """Search models with nothing known but what `log` has already, and print what there was to be found.

    Args:
        names, cpu: As of `show`.
        log: The folder that all measurements are written to.
        seconds: That a model may take.
    """
    print(f"## What searches find on {log_names(cpu)[0]}", "", sep="\n")
    print("| layer | of | calls | candidates | untuned | best | gain | of the peak |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    candidates, ended, tasks, start = 0, 0, 0, time.monotonic()
    for name in names:
        for kind in _kinds(name):
            result = tune(module(name, kind), X86Tuning(cpu), 1_000_000, log, time_limit=seconds, retune=True)
            candidates, tasks = candidates + result.trials, tasks + len(result.tasks)
            ended += sum(task.finished for task in result.tasks)
            for task in result.tasks:
                if task.default_cost and task.best_cost:
                    costs = f"{task.default_cost * 1e6:.2f} us | {task.best_cost * 1e6:.2f} us"
                    gain, peak = 1 - task.best_cost / task.default_cost, f"{task.of_peak:.0%}" if task.of_peak else ""
                    subject = f"{task.name} | {Path(name).stem} {kind} | {task.calls} | {task.trials}"
                    print(f"| {subject} | {costs} | {gain:.1%} | {peak} |", flush=True)
    wall = time.monotonic() - start
    each = wall / max(1, candidates)
    print("", f"{candidates} candidates in {wall:.0f} s, {each:.2f} s each with what begins and ends a search;", sep="\n")
    print(f"{ended} of {tasks} searches came to their end.", "", sep="\n")


def _kinds(name: str) -> tuple[str, ...]:
    return ("fp32",) if name.endswith(".onnx") else ("fp32", "int8")


def module(name: str, kind: str) -> tvm.IRModule:
    """A model in float, or as `tuning.module` has it in integers."""
    if kind == "int8":
        return tuning.module(name)
    if name == "digits":
        return tvmcompress.load(Path(__file__).resolve().parents[1] / "examples" / "digits.onnx").module
    file = Path(name) if name.endswith(".onnx") else trained.folder() / "models" / trained.FILES[name]
    return tvmcompress.load(file).module


def whole(mod: tvm.IRModule, cpu: str, rounds: int) -> list[str]:
    """Cells of a whole model: CPU time of one call of one thread."""
    with tempfile.TemporaryDirectory() as folder:
        calls, decided = {}, 0
        for who, log in (("untuned", False), ("with logs", None)):
            built = get_target("x86").build(mod, Path(folder) / who, tuning_log=log, cpu=cpu)
            assert isinstance(built, X86Artifact)
            calls[who], decided = _call(built), len(built.tuned)
        with thread_limit(1):
            first = interleave(calls, 5, 5, 1)
            times = interleave(calls, rounds, max(1, round(_INNER * 1e6 / first["untuned"].min())), 1)
    ratios = times["with logs"] / times["untuned"]
    low, middle, high = (1 - float(np.percentile(ratios, share)) for share in (90, 50, 10))
    costs = [f"{np.percentile(times[who], 10):.1f} us" for who in calls]
    return [str(decided), *costs, f"{middle:.1%}", f"{low:.1%} to {high:.1%}"]


def _call(built: X86Artifact) -> Call:
    function, inputs = built.machine["main"], [tvm.runtime.tensor(array) for array in random_inputs(built.inputs)]
    return lambda: function(*inputs)


def layers(mod: tvm.IRModule, cpu: str, folder: Path, seen: set[str]) -> list[list[str]]:
    """Cells of the layers that logs decide, each once: rounds of the two candidates in turns, the least time of each."""
    target, rows = X86Tuning(cpu), []
    decide = by_logs(default_logs("x86"), resolve_cpu(cpu))
    with WorkerPool(1, target.threads) as pool:
        bench = TimingBench(target, pool, folder, TuningLog(folder / "log"), 0, 1e-4, 10.0)
        for task in extract_tasks(mod, target):
            found = decide(task.choice)
            if found is None or found == task.choice.default or task.choice.workload.key in seen:
                continue
            seen.add(task.choice.workload.key)
            times = bench.rounds(task, [task.choice.default, found])
            without, with_log = (np.array(times[point_key(point)]) for point in (task.choice.default, found))
            gain = 1 - float(np.median(with_log / without))
            costs = [f"{values.min() * 1e6:.2f} us" for values in (without, with_log)]
            rows.append([task.result.name, str(task.calls), *costs, f"{gain:.1%}"])
    return rows
