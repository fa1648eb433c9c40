"""Tuning kernels: how long it takes, and what it and the logs that ship gain.

Usage: python benchmarks/tuning.py [--search ic] [--target cortex-m4] [--targets cortex-m4,cortex-m55] > tuning.md
       python benchmarks/tuning.py --full LOG --target cortex-m4 [--models ic,kws]
       python benchmarks/tuning.py --formulas LOG --target cortex-m4 [--models ic,kws]
       python benchmarks/tuning.py --x86 x86-64-v3 [--models ic,kws] [--rounds 60]

With --full, of logs before they were pruned: what all they know would gain, layer by layer, into tests/targets/full_logs.json,
which the logs that ship are tested against. With --formulas what formulas take for their layers is measured, in any model, and
written into a log that does not know it. With --x86 what the logs gain there is timed, for `native` or for less of a CPU.

The official MLPerf Tiny int8 models, and the digits example in int8 (`--models resnet20` is quantized from 100 samples).
Instructions are executed ones under QEMU, which are exact; nothing is pruned. A search starts from nothing: without any log.
CPU seconds are those of all processes, the emulator's included; a search runs on all cores that are free. A build for Cortex-M
takes no more flash with logs than without, unless `--spend-flash` says so: 64K there. With logs means those that ship, with no
option.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from trained import folder, load

import tvmcompress
from tvmcompress.data.dataset import load_data
from tvmcompress.model import Model
from tvmcompress.passes._tvm import tvm
from tvmcompress.targets.kernels.choose import decide_together
from tvmcompress.targets.kernels.decisions import point_key
from tvmcompress.targets.kernels.records import KernelRecord, append_all, read, workload_module
from tvmcompress.targets.measurement import Measurement
from tvmcompress.targets.registry import get_target
from tvmcompress.targets.trials.tunable import TunableTarget
from tvmcompress.targets.tuning_log import LogChoice, TuningLog
from tvmcompress.tuning.kernels import KernelBench, kernel_tasks
from tvmcompress.tuning.tune import tune
from tvmcompress.tuning.whole_model import executable

OFFICIAL = {
    "ic": "ic_resnet8_int8.tflite",
    "kws": "kws_dscnn_int8.tflite",
    "vww": "vww_mobilenetv1_025_96_int8.tflite",
    "ad": "ad_autoencoder_int8.tflite",
}
MODELS = ("digits", *OFFICIAL)
SPENT = 64 << 10
FULL = Path(__file__).resolve().parents[1] / "tests" / "targets" / "full_logs.json"


@dataclass(frozen=True)
class Built:
    """What a build takes."""

    instructions: int
    flash: int


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--search", default="ic", help="the model that is tuned from nothing; empty for none")
    parser.add_argument("--target", default="cortex-m4")
    parser.add_argument("--targets", default="cortex-m4,cortex-m55")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--seconds", type=float, default=1500.0)
    parser.add_argument("--full", type=Path, help="a log with all that was measured for --target")
    parser.add_argument("--formulas", type=Path, help="a log for --target that shall know what formulas take")
    parser.add_argument("--x86", metavar="CPU", help="time builds for this CPU, or `native`, instead")
    parser.add_argument("--x86-log", type=Path, help="with --x86: search, and write all that is measured into this folder")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    if options.x86 is not None:
        import tuning_x86

        names = options.models.split(",")
        if options.x86_log is not None:
            tuning_x86.search(names, options.x86, options.x86_log, options.seconds)
        else:
            tuning_x86.show(names, options.x86, options.rounds)
        return
    if options.formulas is not None:
        measure_formulas(options.formulas, options.target, options.models.split(","))
        return
    if options.full is not None:
        write_full(options.full, options.target, options.models.split(","))
        return
    print("# Tuning", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    if options.search:
        with tempfile.TemporaryDirectory() as log:
            search(options.search, options.target, Path(log), options.seconds)
    if options.targets:
        print("## What the logs that ship gain", "")
        print("| core | model | untuned | with logs | gain | flash | with logs | untuned, 64K spent | with logs | gain |")
        print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for target in filter(None, options.targets.split(",")):
        for name in options.models.split(","):
            mod = module(name)
            cells = []
            for spent in (None, SPENT) if target == options.target and spends(target) else (None,):
                without, with_logs = (build(mod, target, log, spent) for log in (False, None))
                if spent is None and get_target(target).description.family == "cortex-m":
                    assert with_logs.flash <= without.flash, f"{name} for {target} takes more flash"
                cells += [f"{without.instructions:,}", f"{with_logs.instructions:,}", gain(without, with_logs)]
                cells += [f"{without.flash:,}", f"{with_logs.flash:,}"] if spent is None else []
            print(f"| {target} | {name} | {' | '.join([*cells, *['-'] * (8 - len(cells))])} |", flush=True)


def search(name: str, target: str, log: Path, seconds: float) -> None:
    """Tune a model from nothing, and print what it took and found."""
    mod = module(name)
    start, before = time.monotonic(), os.times()
    result = tune(mod, target, 1_000_000, log, retune=True, time_limit=seconds)
    wall, after = time.monotonic() - start, os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    finished = sum(task.finished for task in result.tasks)
    print(f"## {name} on {target}, from nothing", "", sep="\n")
    print("| | |", "|---|---|", sep="\n")
    print(f"| candidates | {result.trials:,}, {result.rejected} wrong |")
    print(f"| layers whose search came to its end | {finished} of {len(result.tasks)} |")
    print(f"| wall time | {wall:.0f} s on {len(os.sched_getaffinity(0))} cores |")
    print(f"| CPU time | {cpu:.0f} s, {1e3 * cpu / max(1, result.trials):.0f} ms a candidate |", "", sep="\n")
    print("| layer | candidates | untuned | best | gain |", "|---|---|---|---|---|", sep="\n")
    for task in result.tasks:
        if task.default_cost and task.best_cost:
            figures = f"{task.default_cost:,.0f} | {task.best_cost:,.0f} | {1 - task.best_cost / task.default_cost:.1%}"
            print(f"| {task.name} | {task.trials} | {figures} |")
    for spent in (None, SPENT) if spends(target) else (None,):
        without, with_log = (build(mod, target, choice, spent) for choice in (False, [TuningLog(log)]))
        what = "the whole model" if spent is None else "the whole model, 64K of flash spent"
        print(f"| {what} | | {without.instructions:,} | {with_log.instructions:,} | {gain(without, with_log)} |")
    print(flush=True)


def write_full(directory: Path, target: str, models: list[str]) -> None:
    """Write down what a log with all records lets the layers of some models cost."""
    described = get_target(target)
    assert isinstance(described, TunableTarget)
    found = json.loads(FULL.read_text()) if FULL.exists() else {}
    for name in models:
        sites = described.survey(module(name))
        keys = [workload_module(site.choice.workload, described.log_key) for site in sites]
        records = {site.choice.workload.key: read([TuningLog(directory)], key) for site, key in zip(sites, keys)}
        layers = [
            {
                "workload": digest(site.choice.workload.key),
                "default": digest(point_key(site.choice.default)),
                "calls": site.count,
                "alive": site.alive,
            }
            for site in sites
        ]
        decide = decide_together(sites, records, 0)
        costs = {key: {point_key(record.decisions): record.cost or 0.0 for record in known} for key, known in records.items()}
        known = [site for site in sites if point_key(site.choice.default) in costs[site.choice.workload.key]]
        untuned, full = (
            sum(site.count * costs[site.choice.workload.key][point_key(point)] for site, point in zip(known, points))
            for points in ([site.choice.default for site in known], [decide(site.call, site.choice) for site in known])
        )
        found.setdefault(target, {})[name] = {"untuned": untuned, "full": full, "layers": layers}
    FULL.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def measure_formulas(directory: Path, target: str, models: list[str]) -> None:
    """Have a log know what formulas take for the layers of some models, which logs compare with."""
    described = get_target(target)
    assert isinstance(described, TunableTarget)
    bench, log = KernelBench(described), TuningLog(directory)
    for name in models:
        for task in kernel_tasks(module(name), described, 0):
            key = workload_module(task.choice.workload, described.log_key)
            known = {point_key(record.decisions): record for record in read([log], key)}
            points = [point for point in task.space if point_key(point) in task.choice.by_formula]
            new = [point for point in points if point_key(point) not in known]
            found = [replace(known[point_key(point)], default=True) for point in points if point_key(point) in known]
            found = [record for record in found if not known[point_key(record.decisions)].default]
            for point, outcome in zip(new, bench.measure(task, new) if new else [], strict=True):
                assert outcome.status == "ok", (task.result.name, point, outcome.reason)
                found.append(KernelRecord(point, outcome.counted, **outcome.sizes, default=True))
            append_all(log, key, found, bench.log_target)


def digest(text: str) -> str:
    """Stands for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def spends(target: str) -> bool:
    """Whether flash can be spent on a target."""
    description = get_target(target).description
    return description.family == "cortex-m" and description.dsp and not description.helium


def gain(without: Built, with_logs: Built) -> str:
    """Share of the instructions that is saved."""
    return f"{1 - with_logs.instructions / without.instructions:.1%}"


def build(mod: tvm.IRModule, target: str, log: LogChoice, spent: int | None) -> Built:
    """Build with a log and count."""
    options = {} if spent is None else {"spend_flash": spent}
    with tempfile.TemporaryDirectory() as scratch:
        made: Measurement = get_target(target).build(mod, Path(scratch) / "build", tuning_log=log, **options).measure()
    return Built(made.instructions or 0, made.flash_bytes or 0)


def module(name: str) -> tvm.IRModule:
    """An int8 model in integer operators."""
    return executable(_model(name).module)


def _model(name: str) -> Model:
    if name in OFFICIAL:
        return tvmcompress.load(folder() / "models" / OFFICIAL[name])
    if name == "digits":
        examples = Path(__file__).resolve().parents[1] / "examples"
        original = tvmcompress.load(examples / "digits.onnx")
        data = load_data(examples / "digits_calib.npz", original.inputs)
    else:
        trained = load(name, 100)
        original, data = trained.model, load_data(trained.calibration, trained.model.inputs)
    return tvmcompress.compress(original, data, quantize="int8").model


if __name__ == "__main__":
    main()
