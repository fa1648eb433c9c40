"""Estimated cycles: blocks of what was executed, and what LLVM's model makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tvmcompress.passes._tvm import tvm
from tvmcompress.targets import get_target
from tvmcompress.targets.emulators import cycles
from tvmcompress.targets.emulators.artifact import EmulatedArtifact
from tvmcompress.targets.emulators.cycles import Block, Core, Executed, NoEstimateError, blocks, disassemble, estimate, simulate

needs_llvm = pytest.mark.skipif(not cycles.can_estimate(), reason="needs llvm-mca")
needs_tools = pytest.mark.skipif(bool(get_target("cortex-a76").missing_tools()), reason="needs the Cortex-A tool chain")

# add x0, x0, x1; mul x0, x0, x1; b.ne of -8; sdot v0.4s, v1.16b, v2.4b[0]; ret.
ADD, MUL, BRANCH, SDOT, RET = (
    word.to_bytes(4, "little") for word in (0x8B010000, 0x9B017C00, 0x54FFFFC1, 0x4F82E020, 0xD65F03C0)
)
A72 = Core("cortex-a72", "aarch64-linux-gnu")
M4 = Core("cortex-m4", "thumbv7em-none-eabihf")
# adds r0, r0, r1; smlad r0, r1, r2, r3; it ne; addne r0, r0, r1.
T_ADD, T_SMLAD, T_IT, T_ADDNE = (bytes.fromhex(text) for text in ("4018", "21fb0230", "18bf", "4018"))


def test_blocks_end_at_branches_at_gaps_and_where_counts_change() -> None:
    executed = [
        Executed(address, code, False, code in (BRANCH, RET), count)
        for address, code, count in (
            *((0x100, ADD, 9), (0x104, MUL, 9), (0x108, BRANCH, 9)),
            *((0x10C, ADD, 9), (0x110, ADD, 4)),
            *((0x200, MUL, 4), (0x204, RET, 4)),
        )
    ]
    expected = [((ADD, MUL, BRANCH), 9), ((ADD,), 9), ((ADD,), 4), ((MUL, RET), 4)]
    assert list(blocks(executed)) == [Block(words, count) for words, count in expected]
    assert sum(block.executed for block in blocks(executed)) == sum(instruction.count for instruction in executed)
    long = [Executed(4 * i, ADD, False, False, 1) for i in range(1000)]
    assert sum(len(block.codes) for block in blocks(long)) == 1000
    thumb = [Executed(0, T_ADD, True, False, 2), Executed(2, T_SMLAD, True, False, 2), Executed(6, T_ADD, True, False, 2)]
    assert list(blocks(thumb)) == [Block((T_ADD, T_SMLAD, T_ADD), 2, True)]
    assert len(list(blocks([*thumb, Executed(8, ADD, False, False, 2)]))) == 2


@needs_llvm
def test_what_is_disassembled_in_order() -> None:
    texts = disassemble([SDOT, ADD, SDOT, MUL], A72)
    assert texts is not None
    assert [text.split()[0] for text in texts] == ["sdot", "add", "sdot", "mul"]
    assert texts[0] == texts[2]
    # Not allocated.
    assert disassemble([ADD, bytes([255] * 4)], A72) is None
    thumb = disassemble([T_IT, T_ADDNE, T_ADD], M4, True)
    assert thumb is not None
    assert [text.split()[0] for text in thumb] == ["it", "addne", "adds"]


@needs_llvm
def test_what_waits_for_itself_takes_its_latency() -> None:
    """A sum a cycle on any core; products that each need the one before, at least three; the same, independent, fewer."""
    add, chain, apart = simulate([["add x0, x0, x1"], ["mul x0, x0, x1"], ["mul x0, x2, x1"]], A72)
    assert add == pytest.approx(1, abs=0.5)
    assert chain is not None
    assert apart is not None
    assert chain >= 3
    assert apart < chain


@needs_llvm
def test_microcontrollers() -> None:
    """One instruction after the other on a Cortex-M4, two at once on a Cortex-M7; a call is the branch that it is."""
    independent = ["add.w r0, r1, #1", "add.w r2, r3, #1", "add.w r4, r5, #1", "add.w r6, r7, #1"]
    m7 = Core("cortex-m7", M4.triple)
    (one,), (two,) = (simulate([independent], core, True) for core in (M4, m7))
    assert one == pytest.approx(4, abs=0.2)
    assert two == pytest.approx(2, abs=0.2)
    (call,) = simulate([["bl #-4"]], M4, True)
    assert call is not None
    assert call < 5
    found = estimate([Block((T_ADD, T_SMLAD), 1000, True)], M4, 1)
    assert found.cycles == pytest.approx(2000, rel=0.1)
    assert "memory without wait states" in found.assumes
    assert "cortex-m4" in found.model


@needs_llvm
@pytest.mark.parametrize(
    ("name", "triple", "code", "words"),
    [
        ("cortex-a7", "armv7-linux-gnueabihf", "010080e0", "has no scheduling model of a cortex-a7"),
        ("cortex-m0plus", "thumbv6m-none-eabi", "4018", "has no scheduling model of a cortex-m0plus"),
        ("generic", "aarch64-linux-gnu", "0000018b", "has no scheduling model of a generic"),
        ("cortex-z9", "aarch64-linux-gnu", "0000018b", "has no scheduling model of a cortex-z9"),
        # vldrw.u32 q0, [r1], and vldmia r1, {d16, d17}
        (
            "cortex-m55",
            "thumbv8.1m.main-none-eabihf",
            "91ed001f",
            "has nothing, or nothing that llvm-mca can use, for vldrw.u32",
        ),
        ("cortex-a9", "armv7-linux-gnueabihf", "040bd1ec", "has nothing, or nothing that llvm-mca can use, for vldmia"),
    ],
)
def test_what_llvm_has_no_model_of(name: str, triple: str, code: str, words: str) -> None:
    with pytest.raises(NoEstimateError, match=words):
        estimate([Block((bytes.fromhex(code),), 10, triple.startswith("thumb"))], Core(name, triple), 1)


@needs_llvm
def test_what_the_model_lacks_counts_at_the_mean() -> None:
    m7 = Core("cortex-m7", M4.triple)
    known, unknown = Block((T_ADD,) * 4, 900, True), Block((T_IT, T_ADDNE), 100, True)
    assert simulate([["it ne", "addne r0, r0, r1"], ["adds r0, r0, r1"]], m7, True)[0] is None
    alone, both = (estimate(found, m7, 1).cycles for found in ([known], [known, unknown]))
    assert both == pytest.approx(alone * (known.executed + unknown.executed) / known.executed, rel=0.001)


@needs_llvm
def test_an_estimate_adds_up() -> None:
    one = estimate([Block((MUL,), 1000)], A72, 1)
    both = estimate([Block((MUL,), 1000), Block((ADD,), 1000)], A72, 1)
    assert 3000 <= one.cycles < both.cycles <= one.cycles + 1500
    assert estimate([Block((MUL,), 1000)], A72, 2).cycles == pytest.approx(one.cycles / 2, abs=1)
    assert "cortex-a72" in one.model
    assert "data in L1" in one.assumes


@needs_llvm
@pytest.mark.parametrize("core", ["cortex-a7", "cortex-m4", "cortex-m55"])
def test_other_targets_say_whether_there_is_an_estimate(core: str, integer_net: tvm.IRModule, tmp_path: Path) -> None:
    target = get_target(core)
    if target.missing_tools():
        pytest.skip("needs the tool chain")
    artifact = target.build(integer_net, tmp_path)
    assert isinstance(artifact, EmulatedArtifact)
    measured = artifact.measure(cycles=True)
    if core == "cortex-m4":
        assert measured.cycle_estimate is not None
        # It starts one instruction in a cycle, and of few the result is waited for.
        assert 1 <= measured.cycle_estimate.cycles / (measured.instructions or 0) < 1.5
    else:
        assert measured.cycle_estimate is None
        assert any("cycles are not estimated: LLVM" in note for note in measured.notes)


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
