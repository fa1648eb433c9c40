"""Mutations of the code that computes: how many a test notices.

Usage: python benchmarks/mutation.py record TESTS ...   (once: which test executes which line, and how long each takes)
       python benchmarks/mutation.py run [--sample 200] [--seed 0] [--minutes 120] [--limit 60] [--again] [--only FOLDER]
       python benchmarks/mutation.py table > mutation.md

Of all mutations that cosmic-ray's operators can make in passes/integer, passes/channels, targets/aot and targets/micro/kernels
a sample is drawn: first places in the code, then one mutation of each; "|" is left alone, which is mostly in types. Each is
planted in the checkout, in which nobody may work meanwhile, and the tests that execute its statement are run until one fails:
those that mirror its file or its folder before others, quick ones before slow ones, for at most the limit. Tests marked slow,
and those that need the measuring models, are left out. A mutant is killed when a test fails, when its process dies, or when a
test does not end in ten times its time; one that outlives the limit is counted as alive. A mutation that lives may change
nothing that can be observed: those are in mutation_equivalent.toml, each with a reason, and the table gives both figures.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutation_tests
from cosmic_ray.commands.init import _all_work_items
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_item import MutationSpec
from mutation_tests import ROOMS, ROOT, Executed

RESULTS = ROOT / "build" / "mutation" / "results.jsonl"
EQUIVALENT = Path(__file__).with_name("mutation_equivalent.toml")
_TYPES = ("core/ReplaceBinaryOperator_BitOr",)
"""Operators whose every use in annotations (`int | None`) would be a mutation that nothing can notice."""


@dataclass(frozen=True)
class Mutant:
    """A mutation of the sample."""

    module: Path
    operator: str
    occurrence: int
    line: int

    @property
    def key(self) -> str:
        return f"{self.module.relative_to(ROOT)} {self.operator} {self.occurrence}"

    @property
    def room(self) -> str:
        return str(self.module.parent.relative_to(ROOT))

    def diff(self, old: str, new: str) -> str:
        """The lines that change."""
        before, after = old.splitlines(), new.splitlines()
        start = next((i for i, (a, b) in enumerate(zip(before, after)) if a != b), 0)
        end = next((i for i, (a, b) in enumerate(zip(before[::-1], after[::-1])) if a != b), 0)
        changed = [f"-{line.strip()}" for line in before[start : len(before) - end]]
        return "\n".join([*changed, *(f"+{line.strip()}" for line in after[start : len(after) - end])])


def sample_of(count: int, seed: int) -> tuple[list[Mutant], int]:
    """The mutants that are tried, and at how many places there is one."""
    modules = [path for room in ROOMS for path in sorted((ROOT / room).glob("*.py")) if path.name != "__init__.py"]
    places: dict[tuple[str, tuple[int, int]], list[MutationSpec]] = {}
    for item in _all_work_items(modules, {}):
        for mutation in item.mutations:
            if not mutation.operator_name.startswith(_TYPES):
                places.setdefault((str(mutation.module_path), mutation.start_pos), []).append(mutation)
    draw = random.Random(seed)
    drawn = [draw.choice(places[place]) for place in draw.sample(sorted(places), min(count, len(places)))]
    return [Mutant(Path(m.module_path), m.operator_name, m.occurrence, m.start_pos[0]) for m in drawn], len(places)


def regions(source: str, line: int) -> list[range]:
    """The lines of the smallest statement around a line (of a compound one its head), then of the functions around it.

    None of them where the statement is executed at import. A function that TVMScript reads is not executed, what is around
    it is.
    """
    best, around = range(line, line + 1), []
    widest = len(source) + 1

    def visit(node: ast.AST, functions: list[range]) -> None:
        nonlocal best, around, widest
        for child in ast.iter_child_nodes(node):
            inner = functions
            if isinstance(child, ast.stmt):
                first = min([child.lineno, *(item.lineno for item in getattr(child, "decorator_list", []))])
                end = child.end_lineno or child.lineno
                body = getattr(child, "body", None)
                last = max(body[0].lineno - 1, child.lineno) if body else end
                if first <= line <= last and last - first < widest:
                    best, around, widest = range(first, last + 1), functions, last - first
                if isinstance(child, ast.FunctionDef):
                    inner = [range(first, end + 1), *functions]
            visit(child, inner)

    visit(ast.parse(source), [])
    return [best, *around] if around else []


@contextmanager
def planted(mutant: Mutant) -> Iterator[tuple[str, str]]:
    """The checkout with a mutation in it; gives the source before and after."""
    old = mutant.module.read_text("utf-8")
    new = mutate_code(old, get_operator(mutant.operator)(), mutant.occurrence)
    assert new is not None
    stat = mutant.module.stat()
    try:
        mutant.module.write_text(new, "utf-8")
        yield old, new
    finally:
        mutant.module.write_text(old, "utf-8")
        os.utime(mutant.module, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def run(options: argparse.Namespace) -> None:
    """Try the mutants that have no result yet, or with `--again` those that lived."""
    if subprocess.run(["git", "status", "--porcelain", "passes", "targets"], cwd=ROOT, capture_output=True, text=True).stdout:
        sys.exit("passes or targets have changes that are not committed; mutations would be mixed with them")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # what is planted goes, too
    executed, results, end = Executed.read(), read_results(), time.monotonic() + 60 * options.minutes
    mutation_tests.preload()
    drawn, _ = sample_of(options.sample, options.seed)
    reasons = read_reasons()
    for mutant in drawn:
        if not mutant.key.startswith(options.only):
            continue
        known = results.get(mutant.key)
        done = known is not None and (known["killed"] or not options.again or reason_of(mutant, known, reasons) is not None)
        if time.monotonic() > end or done:
            continue
        where: list[range | None] = [*regions(mutant.module.read_text("utf-8"), mutant.line)] or [None]
        found = (executed.tests_of(mutant.module, lines) for lines in where)
        tests: set[str] = next(filter(None, found), set())
        with planted(mutant) as (old, new):
            outcome = mutation_tests.try_tests(executed, mutant.module, tests, options.limit)
            diff = mutant.diff(old, new)
        results[mutant.key] = entry = {"line": mutant.line, "diff": diff, "covered": bool(tests), **outcome}
        with RESULTS.open("a") as file:
            file.write(json.dumps({"key": mutant.key, **entry}) + "\n")
        killed = sum(results[m.key]["killed"] for m in drawn if m.key in results)
        print(f"{killed} of {sum(m.key in results for m in drawn)}: {mutant.key} {outcome}", file=sys.stderr, flush=True)


def read_results() -> dict[str, dict[str, Any]]:
    """What is known of each mutant, the last word of each."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {entry["key"]: entry for entry in map(json.loads, lines)}


def read_reasons() -> dict[tuple[str, str], str]:
    """Why mutants are equivalent, by their file and what changes."""
    named = tomllib.loads(EQUIVALENT.read_text())["mutant"]
    return {(entry["module"], entry["diff"].strip()): entry["reason"] for entry in named}


def reason_of(mutant: Mutant, result: dict[str, Any], reasons: dict[tuple[str, str], str]) -> str | None:
    """Why a mutant that lives is equivalent, where it is named."""
    return None if result["killed"] else reasons.get((str(mutant.module.relative_to(ROOT)), result["diff"]))


def table(options: argparse.Namespace) -> None:
    """Print the table."""
    drawn, places = sample_of(options.sample, options.seed)
    results, reasons = read_results(), read_reasons()
    counted: dict[str, Counter[str]] = {room: Counter() for room in (*ROOMS, "all")}
    lived: list[str] = []
    for mutant in drawn:
        if (result := results.get(mutant.key)) is None:
            continue
        module = str(mutant.module.relative_to(ROOT))
        reason = reason_of(mutant, result, reasons)
        state = "killed" if result["killed"] else "equivalent" if reason else "alive"
        for name in (mutant.room, "all"):
            counted[name].update(["tried", state])
        if not result["killed"]:
            said = reason or ("no test executes it" if not result["covered"] else result["how"])
            lived.append(f"{module}:{result['line']}, {said}\n\n```diff\n{result['diff']}\n```\n")
    print("# Mutations", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    total = counted["all"]["tried"]
    print(f"{total} of the {len(drawn)} drawn (seed {options.seed}, from {places:,} places) were tried, ", end="")
    print(f"with at most {options.limit:.0f} CPU seconds each.\n")
    print("| room | tried | killed | of all | equivalent | of the others |", "|---|---|---|---|---|---|", sep="\n")
    for name, of in counted.items():
        share = 100 * of["killed"] / max(of["tried"], 1)
        others = 100 * of["killed"] / max(of["tried"] - of["equivalent"], 1)
        print(f"| {name} | {of['tried']} | {of['killed']} | {share:.1f} % | {of['equivalent']} | {others:.1f} % |")
    if lived:
        print("\n## Those that live\n", *lived, sep="\n")


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["record", "run", "table"])
    parser.add_argument("tests", nargs="*")
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--limit", type=float, default=60, help="CPU seconds for a mutant")
    parser.add_argument("--again", action="store_true", help="try those that lived, and are not named as equivalent, once more")
    parser.add_argument("--only", default="", metavar="FOLDER", help="of these files alone")
    options = parser.parse_args()
    if options.what == "record":
        mutation_tests.record(options.tests)
    else:
        {"run": run, "table": table}[options.what](options)


if __name__ == "__main__":
    main()
