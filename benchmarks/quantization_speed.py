"""How long quantization takes: each model in a fresh process, on 200 samples, with and without repairs.

    python benchmarks/quantization_speed.py [ic resnet20 vww kws] [--samples 200] [--repair equalize bias]

Steps are in seconds of wall time and of processor time (all threads); what the process takes in all includes starting
Python, importing TVM, and reading the model and its data. On a busy machine only processor time says something.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import trained

MODELS = ("ic", "resnet20", "vww", "kws")


def measure(name: str, samples: int, repair: list[str]) -> None:
    """In the fresh process: quantize and print the times as JSON."""
    subject = trained.load(name, samples)
    import tvmcompress
    from tvmcompress.steps.progress import Progress

    started: dict[str, float] = {}
    cpu: dict[str, float] = {}

    def follow(step: str, done: int, total: int) -> None:
        started.setdefault(step, time.process_time())
        cpu[step] = time.process_time() - started[step]

    progress: Progress = follow
    result = tvmcompress.compress(
        subject.model,
        subject.calibration,
        quantize={"precision": "int8", "repair": repair},
        on_progress=progress,
    )
    steps = {step.name: {"wall": step.seconds, "cpu": cpu[step.name]} for step in result.steps}
    print(json.dumps({"samples": len(subject.calibration), "steps": steps, "cpu": time.process_time()}))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--repair", nargs="*", default=[])
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        measure(options.models[0], options.samples, options.repair)
        return
    print("| model | samples | steps: wall (processor) seconds | all steps | the whole process |")
    print("|---|---|---|---|---|")
    for name in options.models:
        command = [sys.executable, __file__, name, "--inside", "--samples", str(options.samples), "--repair", *options.repair]
        start = time.perf_counter()
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        whole = time.perf_counter() - start
        found = json.loads(ran.stdout.splitlines()[-1])
        steps = found["steps"]
        cells = ", ".join(f"{step} {t['wall']:.1f} ({t['cpu']:.1f})" for step, t in steps.items())
        total, cpu = (sum(t[kind] for t in steps.values()) for kind in ("wall", "cpu"))
        sums = f"{total:.1f} ({cpu:.1f}) | {whole:.1f} ({found['cpu']:.1f})"
        print(f"| {name} | {found['samples']} | {cells} | {sums} |", flush=True)


if __name__ == "__main__":
    main()
