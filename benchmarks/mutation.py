"""Mutations of the code that computes: how many a test notices.

Usage: python benchmarks/mutation.py [--sample 200] [--seed 0] [--minutes 120] > mutation.md

Of all mutations that cosmic-ray's operators can make in passes/integer, passes/channels, targets/aot and targets/micro/kernels
a sample is drawn: first places in the code, then one mutation of each; "|" is left alone, which is mostly in types. Each is
planted in the checkout, in which nobody may work meanwhile, and the tests that mirror its folder are run, those of the file
first, until one fails. A mutation that lives may be one that changes nothing: whoever reads the list tells.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from cosmic_ray.commands.init import _all_work_items
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_item import MutationSpec, TestOutcome

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("passes/integer", "passes/channels", "targets/aot", "targets/micro/kernels")
_LIMIT = 600
_TYPES = ("core/ReplaceBinaryOperator_BitOr",)
"""Operators whose every use in annotations (`int | None`) would be a mutation that nothing can notice."""


def tests_of(module: Path) -> list[str]:
    """The tests of a module: its own file, then those of its room."""
    room = ROOT / "tests" / module.parent.relative_to(ROOT)
    own = room / f"test_{module.stem}.py"
    return [str(path.relative_to(ROOT)) for path in ([own] if own.exists() else []) + [room]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9)
    options = parser.parse_args()
    if subprocess.run(["git", "status", "--porcelain", "passes", "targets"], cwd=ROOT, capture_output=True, text=True).stdout:
        sys.exit("passes or targets have changes that are not committed; mutations would be mixed with them")
    modules = [path for room in ROOMS for path in sorted((ROOT / room).glob("*.py")) if path.name != "__init__.py"]
    places: dict[tuple[str, tuple[int, int]], list[MutationSpec]] = {}
    for item in _all_work_items(modules, {}):
        for mutation in item.mutations:
            if not mutation.operator_name.startswith(_TYPES):
                places.setdefault((str(mutation.module_path), mutation.start_pos), []).append(mutation)
    draw = random.Random(options.seed)
    sample = [draw.choice(places[place]) for place in draw.sample(sorted(places), min(options.sample, len(places)))]
    end = time.monotonic() + 60 * options.minutes
    killed: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    lived: list[str] = []
    for mutation in sample:
        if time.monotonic() > end:
            break
        room = str(Path(mutation.module_path).parent.relative_to(ROOT))
        tried[room] += 1
        diff = _diff_of_a_survivor(mutation)
        killed[room] += diff is None
        lived += [] if diff is None else [diff]
        print(f"{sum(killed.values())} of {sum(tried.values())} killed", file=sys.stderr, flush=True)
    print("# Mutations", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    print(f"{sum(tried.values())} of the {len(sample)} drawn (seed {options.seed}) at {len(places):,} places were tried.")
    print("\n| room | tried | killed |", "|---|---|---|", sep="\n")
    for room in ROOMS:
        print(f"| {room} | {tried[room]} | {killed[room]} |")
    total = sum(tried.values())
    print(f"| all | {total} | {sum(killed.values())}, {100 * sum(killed.values()) / max(total, 1):.0f} % |")
    if lived:
        print("\nThose that lived:\n\n```diff", *lived, "```", sep="\n")


def _diff_of_a_survivor(mutation: MutationSpec) -> str | None:
    """The mutation as a diff where all tests pass, None where one fails."""
    module = Path(mutation.module_path)
    diff = ""
    for tests in tests_of(module):
        command = f"{sys.executable} -m pytest -n 0 -x -q -p no:cacheprovider --hypothesis-seed=0 {tests}"
        result = mutate_and_test([mutation], command, _LIMIT)
        if result.test_outcome != TestOutcome.SURVIVED:
            return None
        diff = "\n".join(line for line in str(result.diff).splitlines() if line[:2] in ("--", "@@") or line[:1] in "+-")
    return diff.replace(f"{ROOT}/", "")


if __name__ == "__main__":
    main()
