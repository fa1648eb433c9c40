"""How long builds take: the first one, with nothing kept, and a second one of the same model.

    python benchmarks/build_time.py [--rounds 3]

Each build is a process of its own; counted is `tvmcompress.build` alone, without Python's start and the reading of the file.
Seconds are wall time, in brackets the CPU time of the process and all that it starts. The least of the rounds. MobileNetV2
and ResNet-18 at 224 x 224 are int8 TFLite files of random weights that large_networks.py writes; the transformer is that of
cortex_a.py (49 tokens, width 64, 3 blocks), int8.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import large_networks
from cortex_a import transformer

_BUILD = """
import resource, sys, time
import tvmcompress
model, target, folder = sys.argv[1:]
model = tvmcompress.load(model)
def used():
    times = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(time.ru_utime + time.ru_stime for time in times)
start, before = time.perf_counter(), used()
tvmcompress.build(model, target, folder)
print(time.perf_counter() - start, used() - before)
"""

BUILDS = {
    "MobileNetV2": ("x86", "cortex-a76"),
    "ResNet-18": ("x86", "cortex-a76"),
    "transformer": ("x86", "cortex-m4", "cortex-m55", "cortex-a76"),
}


def models(folder: Path) -> dict[str, Path]:
    """The files of the networks."""
    paths = {"MobileNetV2": folder / "mobilenet_v2.tflite", "ResNet-18": folder / "resnet18.tflite"}
    for path in paths.values():
        path.write_bytes(getattr(large_networks, path.stem)())
    paths["transformer"] = folder / "transformer.tvmc"
    transformer()[1].save(paths["transformer"])
    return paths


def build(model: Path, target: str, cache: Path, folder: Path) -> tuple[float, float]:
    """Seconds of wall and CPU time of one build."""
    environment = {**os.environ, "TVMCOMPRESS_CACHE": str(cache)}
    command = [sys.executable, "-c", _BUILD, str(model), target, str(folder)]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
    return float(said[-2]), float(said[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| model | target | first build | second build |", "|---|---|---|---|", sep="\n")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for name, path in models(place).items():
            for target in BUILDS[name]:
                rounds = []
                for index in range(options.rounds):
                    cache = place / f"{name}-{target}-{index}"
                    rounds.append([build(path, target, cache, place / "built" / f"{name}-{target}") for _ in range(2)])
                cells = [_cell(*min(taken)) for taken in zip(*rounds)]
                print(f"| {name} | {target} | {' | '.join(cells)} |", flush=True)


def _cell(wall: float, cpu: float) -> str:
    return f"{wall:.1f} s ({cpu:.1f})"


if __name__ == "__main__":
    main()
