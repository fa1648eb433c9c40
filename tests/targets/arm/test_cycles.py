"""Estimated cycles: blocks of what was executed, and what LLVM's model makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tvmcompress.passes._tvm import tvm
from tvmcompress.targets import get_target
from tvmcompress.targets.emulators import cycles
from tvmcompress.targets.emulators.cycles import Block, blocks, disassemble, estimate, simulate

needs_llvm = pytest.mark.skipif(not cycles.can_estimate(), reason="needs llvm-mca")
needs_tools = pytest.mark.skipif(bool(get_target("cortex-a76").missing_tools()), reason="needs the Cortex-A tool chain")

# add x0, x0, x1; mul x0, x0, x1; b.ne of -8; sdot v0.4s, v1.16b, v2.4b[0]; ret.
ADD, MUL, BRANCH, SDOT, RET = 0x8B010000, 0x9B017C00, 0x54FFFFC1, 0x4F82E020, 0xD65F03C0


def test_blocks_end_at_branches_at_gaps_and_where_counts_change() -> None:
    executed = [
        *((0x100, ADD, 9), (0x104, MUL, 9), (0x108, BRANCH, 9)),
        *((0x10C, ADD, 9), (0x110, ADD, 4)),
        *((0x200, MUL, 4), (0x204, RET, 4)),
    ]
    expected = [((ADD, MUL, BRANCH), 9), ((ADD,), 9), ((ADD,), 4), ((MUL, RET), 4)]
    assert list(blocks(executed)) == [Block(words, count) for words, count in expected]
    assert sum(block.executed for block in blocks(executed)) == sum(count for _, _, count in executed)
    long = [(4 * i, ADD, 1) for i in range(1000)]
    assert sum(len(block.words) for block in blocks(long)) == 1000


@needs_llvm
def test_what_is_disassembled_in_order() -> None:
    texts = disassemble([SDOT, ADD, SDOT, MUL])
    assert texts is not None
    assert [text.split()[0] for text in texts] == ["sdot", "add", "sdot", "mul"]
    assert texts[0] == texts[2]
    # Not allocated.
    assert disassemble([ADD, 0xFFFFFFFF]) is None


@needs_llvm
def test_what_waits_for_itself_takes_its_latency() -> None:
    """A sum a cycle on any core; products that each need the one before, at least three; the same, independent, fewer."""
    add, chain, apart = simulate([["add x0, x0, x1"], ["mul x0, x0, x1"], ["mul x0, x2, x1"]], "cortex-a72")
    assert add == pytest.approx(1, abs=0.5)
    assert chain >= 3
    assert apart < chain


@needs_llvm
def test_an_estimate_adds_up() -> None:
    one = estimate([Block((MUL,), 1000)], "cortex-a72", 1)
    both = estimate([Block((MUL,), 1000), Block((ADD,), 1000)], "cortex-a72", 1)
    assert one is not None
    assert both is not None
    assert 3000 <= one.cycles < both.cycles <= one.cycles + 1500
    halved = estimate([Block((MUL,), 1000)], "cortex-a72", 2)
    assert halved is not None
    assert halved.cycles == pytest.approx(one.cycles / 2, abs=1)
    assert "cortex-a72" in one.model
    assert "data in L1" in one.assumes
    assert estimate([Block((MUL,), 10)], "a core of tomorrow", 1) is None
    assert estimate([], "cortex-a72", 1) is None


@needs_llvm
@needs_tools
def test_measurements_say_that_it_is_an_estimate(integer_net: tvm.IRModule, tmp_path: Path) -> None:
    artifact = get_target("cortex-a76").build(integer_net, tmp_path)
    plain, full = artifact.measure(), artifact.measure(cycles=True)
    assert plain.cycle_estimate is None
    assert full.cycle_estimate is not None
    assert full.instructions == plain.instructions
    assert full.classes == plain.classes
    assert any("an estimate, about" in note and "data in L1" in note for note in full.notes)
    # No core of these starts more than eight instructions in a cycle, and kernels do not wait for most of the time.
    assert plain.instructions is not None
    assert plain.instructions / 8 < full.cycle_estimate.cycles < 4 * plain.instructions
    several = artifact.measure(
        [np.repeat(np.zeros(spec.shape, spec.dtype), 3, axis=0) for spec in artifact.inputs], cycles=True
    )
    assert several.cycle_estimate is not None
    assert several.cycle_estimate.cycles == pytest.approx(full.cycle_estimate.cycles, rel=0.05)


@needs_tools
def test_without_llvm_there_is_none(integer_net: tvm.IRModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = get_target("cortex-a72").build(integer_net, tmp_path)
    monkeypatch.setattr("tvmcompress.targets.emulators.artifact.can_estimate", lambda: False)
    measured = artifact.measure(cycles=True)
    assert measured.cycle_estimate is None
    assert measured.instructions
    assert not any("estimate" in note for note in measured.notes)
