"""Cycles, estimated: executed instructions, as LLVM's scheduling model of a core has them.

QEMU says how often each instruction is executed; runs of instructions that are executed equally often, up to a branch, are
blocks. LLVM's machine code analyser (llvm-mca) simulates the core's decoders, pipelines and buffers on each of the blocks that
take most instructions, repeated over and over, and what it gives for one round counts as often as the block was executed. The
rest counts at the mean of those.

What is left out: every load hits the first cache, or the memory of a microcontroller has no wait states; every branch is
foretold, or costs nothing besides itself; blocks overlap with themselves rather than with their neighbours; and the model is
LLVM's, which for some cores is that of a relative. So this is an estimate, and it is called one wherever it appears. Where LLVM
has no model of a core, or its model lacks instructions that much of the code lies among, there is none.
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

from ...passes.errors import UserError
from ..measurement import CycleEstimate

_TOOLS = ("llvm-mca", "llvm-mc")
_FEATURES = "+v8.6a,+fullfp16"
"""What is disassembled of 64-bit code: all that ours has."""
_COVERED = 0.96
"""Share of the executed instructions whose blocks are to be simulated."""
_LEAST = 0.85
"""The same, of those that a model has all instructions of."""
_ROUNDS = 24
_LONGEST = 400
"""Instructions of a block; longer ones are cut, which the core's buffers hardly notice."""
_NAMED = 4
_PROBE = "add r0, r0, r1\n"
_SECONDS = 300
"""That a tool may take."""
_UNSUPPORTED = re.compile(
    r"(?:found an unsupported instruction|unable to resolve scheduling class).*\n.*note: instruction:\s+(\S+)"
)
_CALL = re.compile(r"^(bl|blx|blr)\s")
_ASSUMES = "data in L1, branches foretold, each block as if repeated"
_ASSUMES_OF_MICROCONTROLLERS = "memory without wait states, branches as other instructions, each block as if repeated"


class NoEstimateError(UserError):
    """There is no estimate; the sentence says why."""


@dataclass(frozen=True)
class Executed:
    """An instruction, and how often it was executed.

    Attributes:
        address: Where it lies.
        code: Its bytes as they lie in memory.
        thumb: Whether it is Thumb code.
        branches: Whether it is a branch.
        count: How often it was executed.
    """

    address: int
    code: bytes
    thumb: bool
    branches: bool
    count: int


@dataclass(frozen=True)
class Block:
    """Instructions that follow one another.

    Attributes:
        codes: Their encodings, as they lie in memory.
        count: How often each was executed.
        thumb: Whether they are Thumb code.
    """

    codes: tuple[bytes, ...]
    count: int
    thumb: bool = False

    @property
    def executed(self) -> int:
        """Executed instructions."""
        return len(self.codes) * self.count


@dataclass(frozen=True)
class Core:
    """Whose model is asked.

    Attributes:
        name: As LLVM names it.
        triple: LLVM's, of the code.
    """

    name: str
    triple: str

    @property
    def wide(self) -> bool:
        """Whether it is a 64-bit core."""
        return self.triple.startswith("aarch64")

    @property
    def assumes(self) -> str:
        """What is taken for granted."""
        return _ASSUMES_OF_MICROCONTROLLERS if "none-eabi" in self.triple else _ASSUMES

    def options(self, prefix: str, thumb: bool) -> list[str]:
        """Of LLVM's tools, for code of this core; the name of the one for the triple starts in their own ways."""
        if self.wide:
            return [f"{prefix}triple={self.triple}", f"--mattr={_FEATURES}"]
        triple = self.triple.replace("armv7", "thumbv7") if thumb else self.triple
        attributes = ["--mattr=+neon"] if self.triple.startswith("armv7") else []
        return [f"{prefix}triple={triple}", *attributes] + ([] if prefix == "--m" else [f"--mcpu={self.name}"])


def can_estimate() -> bool:
    """Whether LLVM's tools are installed."""
    return all(map(shutil.which, _TOOLS))


def read_blocks(path: Path) -> list[Block]:
    """The blocks of what the counting plugin wrote of each instruction."""
    lines = (line.split() for line in path.read_text().splitlines())
    found = (
        Executed(int(address, 16), bytes.fromhex(code), state == "t", kind == "branch", int(count))
        for address, code, state, kind, count in lines
    )
    return list(blocks(sorted(found, key=lambda instruction: instruction.address)))


def blocks(instructions: Sequence[Executed]) -> Iterator[Block]:
    """Blocks of instructions, in order of their addresses."""
    run: list[Executed] = []
    for instruction in instructions:
        if run and (
            instruction.address != run[-1].address + len(run[-1].code)
            or (instruction.count, instruction.thumb) != (run[-1].count, run[-1].thumb)
            or run[-1].branches
            or len(run) == _LONGEST
        ):
            yield _block(run)
            run = []
        run.append(instruction)
    if run:
        yield _block(run)


def _block(run: Sequence[Executed]) -> Block:
    return Block(tuple(instruction.code for instruction in run), run[0].count, run[0].thumb)


def estimate(found: Sequence[Block], core: Core, samples: int) -> CycleEstimate:
    """Cycles of an inference.

    Args:
        found: The blocks of so many inferences.
        core: The core.
        samples: How many inferences.

    Raises:
        NoEstimateError: The installed LLVM has no model of the core, or not of what most of the time goes to.
    """
    total = sum(block.executed for block in found)
    hottest: list[Block] = []
    covered = 0
    for block in sorted(found, key=lambda block: -block.executed):
        if covered >= _COVERED * total:
            break
        hottest.append(block)
        covered += block.executed
    version = has_model(core)
    lacking: set[str] = set()
    cycles = _simulated(hottest, core, version, lacking)
    known = [(block, each) for block, each in zip(hottest, cycles) if each is not None]
    covered = sum(block.executed for block, _ in known)
    if covered < _LEAST * total or not covered:
        share = 1 - covered / max(total, 1)
        raise NoEstimateError(
            f"LLVM {version}'s scheduling model of a {core.name} has nothing, or nothing that llvm-mca can use, for "
            f"{', '.join(sorted(lacking)[:_NAMED])}; {share:.0%} of the executed instructions lie among such ones"
        )
    spent = sum(each * block.count for block, each in known)
    return CycleEstimate(
        cycles=round(spent * total / covered / samples), model=f"LLVM {version}, {core.name}", assumes=core.assumes
    )


def _simulated(found: Sequence[Block], core: Core, version: str, lacking: set[str]) -> list[float | None]:
    """Cycles of a round of each block; None where the model lacks an instruction of it, whose name is then added."""
    cycles: list[float | None] = [None] * len(found)
    for thumb in (False, True):
        those = [index for index, block in enumerate(found) if block.thumb == thumb]
        texts = disassemble([code for index in those for code in found[index].codes], core, thumb)
        if texts is None:
            raise NoEstimateError(f"LLVM {version} does not know an instruction of the code for {core.name}")
        lines = iter(texts)
        parts = [[next(lines) for _ in found[index].codes] for index in those]
        for index, each in zip(those, simulate(parts, core, thumb, lacking)):
            cycles[index] = each
    return cycles


def simulate(
    texts: Sequence[Sequence[str]], core: Core, thumb: bool = False, lacking: set[str] | None = None
) -> list[float | None]:
    """Cycles of one round of each block; None where the model lacks an instruction of it.

    Args:
        texts: The blocks in assembly language.
        core: The core.
        thumb: Whether they are Thumb code.
        lacking: Where the names of instructions that the model lacks are put.

    Raises:
        NoEstimateError: llvm-mca refuses the blocks for another reason.
    """
    command = ["llvm-mca", *core.options("--m", thumb), f"--mcpu={core.name}", f"--iterations={_ROUNDS}"]
    command += ["--json", "--instruction-info=false", "--resource-pressure=false"]
    left = {index: [_not_called(line) for line in lines] for index, lines in enumerate(texts)}
    found: list[float | None] = [None] * len(texts)
    while left:
        regions = ["\n".join(["# LLVM-MCA-BEGIN", *lines, "# LLVM-MCA-END", ""]) for lines in left.values()]
        done = _run(command, "".join(regions))
        if done.returncode == 0:
            for index, region in zip(left, json.loads(done.stdout)["CodeRegions"]):
                found[index] = region["SummaryView"]["TotalCycles"] / region["SummaryView"]["Iterations"]
            break
        refused = _UNSUPPORTED.search(done.stderr)
        if refused is None:
            raise NoEstimateError(f"llvm-mca refuses the code for {core.name}: {_first_line(done.stderr)}")
        name = refused[1]
        if lacking is not None:
            lacking.add(name)
        left = {index: lines for index, lines in left.items() if name not in (line.split()[0] for line in lines)}
        if len(left) == len(regions):
            # It names some by a synonym.
            raise NoEstimateError(f"LLVM's scheduling model of a {core.name} has nothing for {name}")
    return found


def disassemble(codes: Sequence[bytes], core: Core, thumb: bool = False) -> list[str] | None:
    """Instructions in LLVM's assembly language; None where it does not know one."""
    # In Thumb code IT changes how those behind it read.
    different = list(codes) if thumb else list(dict.fromkeys(codes))
    lines = [" ".join(f"0x{byte:02x}" for byte in code) for code in different]
    done = _run(["llvm-mc", "--disassemble", *core.options("--", thumb)], "\n".join(lines) + "\n")
    texts = [line.strip() for line in done.stdout.splitlines() if line.strip() and not line.strip().startswith(".")]
    if done.returncode != 0 or len(texts) != len(different):
        return None
    if thumb:
        return texts
    known = dict(zip(different, texts))
    return [known[code] for code in codes]


def has_model(core: Core) -> str:
    """The version of the installed LLVM.

    Raises:
        NoEstimateError: It does not know the core, or has no scheduling model of it.
    """
    version = _version()
    refusal = _refusal(core)
    if refusal:
        raise NoEstimateError(f"LLVM {version} has no scheduling model of a {core.name}")
    return version


def _not_called(line: str) -> str:
    """An instruction as it is, but a call as the branch that it is: llvm-mca would add what is called, at a guess."""
    return _CALL.sub(lambda found: {"bl": "b", "blx": "bx", "blr": "br"}[found[1]] + "\t", line)


def _run(command: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
    """What a tool of LLVM's makes of a file of text.

    Raises:
        NoEstimateError: It does not come to an end.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "input"
        file.write_text(text)
        try:
            return subprocess.run(
                [*command, str(file)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise NoEstimateError(f"{command[0]} was stopped after {_SECONDS} seconds") from error


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if "error" in line), "no reason given")


@functools.cache
def _refusal(core: Core) -> bool:
    """Whether llvm-mca has no model of a core."""
    if core.name == "generic":
        return True
    done = _run(["llvm-mca", f"--mtriple={core.triple}", f"--mcpu={core.name}"], _PROBE if not core.wide else "nop\n")
    return done.returncode != 0 or "not a recognized processor" in done.stderr


@functools.cache
def _version() -> str:
    """Of the installed LLVM."""
    found = re.search(r"version (\S+)", _run(["llvm-mca", "--version"], "").stdout)
    return found[1] if found else "of unknown version"
