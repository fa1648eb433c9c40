"""How fast builds for x86 of different versions of this package are, beside each other in turns.

    python benchmarks/versions.py build OUT [--cpu native] [--log none|shipped|FOLDER]    in each version's environment
    python benchmarks/versions.py time OUT OUT ... [--rounds 60]

`build` compiles MLPerf Tiny's four, in float and as the official int8 files, with the tvmcompress that runs it: it uses nothing
but `tvmcompress.build`, so that a checkout of an older version can run it, too. `time` loads what several have built into
one process and lets them take turns: CPU time of one thread, tenth percentile, and the median over the rounds of the time
beside that of the first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from trained import FILES, folder

import tvmcompress
from tvmcompress.passes._tvm import relax, tvm

NAMES = ("ic", "kws", "vww", "ad")
KINDS = {"fp32": FILES, "int8": {name: file.replace("_fp32.onnx", "_int8.tflite") for name, file in FILES.items()}}
_INNER = 3e3
"""Microseconds that one round of a build takes."""


def main() -> None:
    """Build, or print the table."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    builds = commands.add_parser("build")
    builds.add_argument("output", type=Path)
    builds.add_argument("--cpu", default="native")
    builds.add_argument("--log", default="none", help="none, shipped, or a folder that is asked before those that ship")
    times = commands.add_parser("time")
    times.add_argument("outputs", type=Path, nargs="+")
    times.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    if options.command == "build":
        build(options.output, options.cpu, {"none": False, "shipped": None}.get(options.log, options.log))
    else:
        show(options.outputs, options.rounds)


def build(output: Path, cpu: str, log: bool | str | None) -> None:
    """Compile all of them into folders of `output`."""
    for kind, files in KINDS.items():
        for name in NAMES:
            path = folder() / "models" / files[name]
            tvmcompress.build(path, "x86", output / f"{name}-{kind}", cpu=cpu, tuning_log=log)


def show(outputs: list[Path], rounds: int) -> None:
    """Print the table."""
    from x86_vs_others import interleave

    from tvmcompress.targets.x86.measure import thread_limit

    print(f"| model | | {' | '.join(output.name for output in outputs)} |")
    print(f"|---|---|{'---|' * len(outputs)}", flush=True)
    shares = []
    for kind in KINDS:
        for name in NAMES:
            calls = {str(output): call(output / f"{name}-{kind}") for output in outputs}
            with thread_limit(1):
                first = interleave(calls, 5, 5, 1)
                inner = max(1, round(_INNER / min(found.min() for found in first.values())))
                found = interleave(calls, rounds, inner, 1)
            ratios = {who: float(np.median(values / found[str(outputs[0])])) for who, values in found.items()}
            shares.append(list(ratios.values()))
            cells = [f"{np.percentile(values, 10):.1f} us ({ratios[who]:.3f})" for who, values in found.items()]
            print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)
        mean = np.mean(shares[-len(NAMES) :], axis=0)
        print(f"| mean | {kind} | {' | '.join(f'{share:.3f}' for share in mean)} |", flush=True)


def call(built: Path) -> Callable[[], Any]:
    """A function that runs a build once, on random input."""
    (library,) = built.glob("*.so")
    inputs = json.loads((built / "artifact.json").read_text())["inputs"]
    random = np.random.default_rng(0)
    tensors = [tvm.runtime.tensor(random.integers(-100, 100, entry["shape"]).astype(entry["dtype"])) for entry in inputs]
    function = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())["main"]
    return lambda: function(*tensors)


if __name__ == "__main__":
    main()
