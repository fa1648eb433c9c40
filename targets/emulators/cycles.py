"""Cycles, estimated: executed instructions, as LLVM's scheduling model of a core has them.

QEMU says how often each instruction is executed; runs of instructions that are executed equally often, up to a branch, are
blocks. LLVM's machine code analyser (llvm-mca) simulates the core's decoders, pipelines and buffers on each of the blocks that
take most instructions, repeated over and over, and what it gives for one round counts as often as the block was executed. The
rest counts at the mean of those.

What is left out: every load hits the first cache, every branch is foretold, blocks overlap with themselves rather than with
their neighbours, and the model is LLVM's, which for some cores is that of a relative. So this is an estimate, and it is called
one wherever it appears.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base import CycleEstimate
from .tools import run

_TOOLS = ("llvm-mca", "llvm-mc")
_TRIPLE = "aarch64-linux-gnu"
_FEATURES = "+v8.6a,+fullfp16"
"""What is disassembled: all that code of ours has."""
_COVERED = 0.96
"""Share of the executed instructions whose blocks are simulated."""
_ROUNDS = 24
_LONGEST = 400
"""Instructions of a block; longer ones are cut, which the core's buffers hardly notice."""
_ASSUMES = "data in L1, branches foretold, each block as if repeated"


@dataclass(frozen=True)
class Block:
    """Instructions that follow one another.

    Attributes:
        words: Their encodings.
        count: How often each was executed.
    """

    words: tuple[int, ...]
    count: int

    @property
    def executed(self) -> int:
        """Executed instructions."""
        return len(self.words) * self.count


def can_estimate() -> bool:
    """Whether LLVM's tools are installed."""
    return all(map(shutil.which, _TOOLS))


def read_blocks(path: Path) -> list[Block]:
    """The blocks of what the counting plugin wrote of each instruction."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return list(blocks(sorted((int(address, 16), int(word, 16), int(count)) for address, word, count in lines)))


def blocks(instructions: Sequence[tuple[int, int, int]]) -> Iterator[Block]:
    """Blocks of instructions, given as (address, encoding, how often), in order of their addresses."""
    words: list[int] = []
    before = (-1, 0, 0)
    for instruction in instructions:
        address, word, count = instruction
        if words and (address != before[0] + 4 or count != before[2] or _branches(before[1]) or len(words) == _LONGEST):
            yield Block(tuple(words), before[2])
            words = []
        words.append(word)
        before = instruction
    if words:
        yield Block(tuple(words), before[2])


def estimate(found: Sequence[Block], core: str, samples: int) -> CycleEstimate | None:
    """Cycles of an inference.

    Args:
        found: The blocks of so many inferences.
        core: As LLVM names it.
        samples: How many inferences.

    Returns:
        The estimate, or None where the installed LLVM does not know the core or one of its instructions.

    Raises:
        ToolError: A tool of LLVM's failed.
    """
    total = sum(block.executed for block in found)
    hottest: list[Block] = []
    covered = 0
    for block in sorted(found, key=lambda block: -block.executed):
        if covered >= _COVERED * total:
            break
        hottest.append(block)
        covered += block.executed
    version, cores = _llvm()
    texts = disassemble([word for block in hottest for word in block.words]) if core in cores else None
    if not hottest or texts is None:
        return None
    lines = iter(texts)
    cycles = simulate([[next(lines) for _ in block.words] for block in hottest], core)
    spent = sum(each * block.count for each, block in zip(cycles, hottest))
    return CycleEstimate(cycles=round(spent * total / covered / samples), model=f"LLVM {version}, {core}", assumes=_ASSUMES)


def simulate(blocks_of_text: Sequence[Sequence[str]], core: str) -> list[float]:
    """Cycles of one round of each block, in assembly language, on a core."""
    regions = ["\n".join(["# LLVM-MCA-BEGIN", *lines, "# LLVM-MCA-END", ""]) for lines in blocks_of_text]
    options = [f"-mtriple={_TRIPLE}", f"-mcpu={core}", f"-mattr={_FEATURES}", f"-iterations={_ROUNDS}"]
    out = _run(["llvm-mca", *options, "-instruction-info=false", "-resource-pressure=false", "-json"], "".join(regions))
    summaries = [region["SummaryView"] for region in json.loads(out)["CodeRegions"]]
    return [summary["TotalCycles"] / summary["Iterations"] for summary in summaries]


def disassemble(words: Sequence[int]) -> list[str] | None:
    """Instructions in LLVM's assembly language; None where it does not know one."""
    different = list(dict.fromkeys(words))
    lines = [" ".join(f"0x{byte:02x}" for byte in word.to_bytes(4, "little")) for word in different]
    out = _run(["llvm-mc", "--disassemble", f"--triple={_TRIPLE}", f"--mattr={_FEATURES}"], "\n".join(lines) + "\n")
    texts = [line.strip() for line in out.splitlines() if line.strip() and not line.strip().startswith(".")]
    if len(texts) != len(different):
        return None
    known = dict(zip(different, texts))
    return [known[word] for word in words]


def _run(command: Sequence[str], text: str) -> str:
    """What a tool of LLVM's makes of a file of text."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "input"
        file.write_text(text)
        return run([*command, file], what="estimating cycles", timeout=300)


def _branches(word: int) -> bool:
    """Whether an instruction is a branch (Arm DDI 0487, C4.1)."""
    return (word >> 26) & 7 == 5


@functools.cache
def _llvm() -> tuple[str, frozenset[str]]:
    """The version of the installed LLVM, and the cores that it knows."""
    version = run(["llvm-mca", "--version"], what="asking for LLVM's version", timeout=60)
    # The list is an error message.
    listed = subprocess.run(
        ["llvm-mca", f"-mtriple={_TRIPLE}", "-mcpu=help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    ).stderr
    found = re.search(r"version (\S+)", version)
    return found[1] if found else "of unknown version", frozenset(re.findall(r"^ +(\S+) +- ", listed, re.MULTILINE))
