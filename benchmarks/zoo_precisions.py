"""Every precision on every architecture of the tests' zoo, built: are the outputs those of the model?

    python benchmarks/zoo_precisions.py [--targets x86,cortex-m4] [--precisions int8,...] [--only resnet] [--log zoo.jsonl]

The networks are those of tests/passes/torch_zoo.py, calibrated on eight random samples, two of which each build runs. An
integer build is right when every byte is that of the model's meaning in NumPy, one with floats (the whole, the ends, or what
quantization leaves in float) when no value is further off than 1e-3 of the largest. Refused is what ends in one sentence.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tvmcompress
from tests.passes import torch_zoo
from tvmcompress.importing import from_onnx
from tvmcompress.measuring.benchmarking import WrongBuildError, check
from tvmcompress.measuring.building import executable

PRECISIONS = ("float32", "float16", "int8", "uint8", "int16x8", "int4")
OUTCOMES = ("right", "refused", "wrong", "crash")
_SAMPLES, _TRIED = 8, 2


def judge(architecture: torch_zoo.Architecture, precision: str, targets: list[str]) -> dict[str, dict[str, str]]:
    """What becomes of a network in one precision, by target."""
    samples = [architecture.sample(seed) for seed in range(_SAMPLES)]
    data = [np.concatenate(values) for values in zip(*samples)]
    try:
        model = from_onnx(torch_zoo.export(torch_zoo.instantiate(architecture.build), samples[0]))
        if precision != "float32":
            given = dict(zip((spec.name for spec in model.inputs), data))
            model = tvmcompress.compress(model, given, quantize=precision).model
        model = executable(model)
    except Exception as error:
        return dict.fromkeys(targets, _outcome(error))
    tried = [value[: _TRIED * spec.shape[0]] for value, spec in zip(data, model.inputs)]
    return {target: _built(model, target, tried) for target in targets}


def _built(model: tvmcompress.Model, target: str, tried: list[np.ndarray]) -> dict[str, str]:
    # Not every board has the memory; the emulator does.
    options: dict[str, Any] = {"tuning_log": False} if target == "x86" else {"check_memory": False}
    try:
        with tempfile.TemporaryDirectory() as folder:
            check(model, tvmcompress.build(model, target, Path(folder) / "build", **options), tried, "it")
    except Exception as error:
        return _outcome(error)
    return {"outcome": "right", "reason": ""}


def _outcome(error: Exception) -> dict[str, str]:
    refused = isinstance(error, tvmcompress.UserError) and error.exit_code != 1
    kind = "wrong" if isinstance(error, WrongBuildError) else "refused" if refused else "crash"
    text = (str(error).strip().splitlines() or [""])[-1] if kind == "crash" else str(error)
    return {"outcome": kind, "reason": f"{type(error).__name__}: {text}"}


def main() -> int:
    """Judge, print; the exit code is 1 if anything is not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default="x86,cortex-m4")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--only", default="", help="architectures whose name contains this")
    parser.add_argument("--log", type=Path, help="JSON lines of every outcome; a run that was stopped goes on from there")
    options = parser.parse_args()
    targets, precisions = options.targets.split(","), options.precisions.split(",")
    done = {}
    if options.log and options.log.exists():
        done = {tuple(key): found for key, found in map(json.loads, options.log.read_text().splitlines())}
    counts = {(precision, target): Counter[str]() for precision in precisions for target in targets}
    problems = []
    chosen = [one for one in torch_zoo.ARCHITECTURES if options.only in one.name]
    for precision in precisions:
        for architecture in chosen:
            key = (precision, architecture.name)
            found = done.get(key) or judge(architecture, precision, targets)
            if options.log and key not in done:
                with options.log.open("a") as file:
                    file.write(json.dumps([key, found]) + "\n")
            for target in targets:
                outcome, reason = found[target]["outcome"], found[target]["reason"]
                counts[precision, target][outcome] += 1
                if outcome != "right":
                    problems.append(f"{architecture.name}, {precision}, {target}: {outcome}, {reason}")
    print("| precision | target | " + " | ".join(OUTCOMES) + " |", "|---" * (len(OUTCOMES) + 2) + "|", sep="\n")
    for (precision, target), count in counts.items():
        print(f"| {precision} | {target} | " + " | ".join(str(count[outcome]) for outcome in OUTCOMES) + " |")
    print("", *problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
