"""Strips in memory: slices and results without copies, an input that the result follows, a smaller arena, the same bytes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tvmcompress
from tests.passes.integer.spatial_nets import Net, spatial_nets, tall_net
from tests.targets.aot.memory import check_memory
from tests.targets.aot.test_library import HOST, Library, infer
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.patching.patch_execution import PatchExecution, prefixes
from tvmcompress.targets.aot.compiled import compile_program
from tvmcompress.targets.aot.generate import generate
from tvmcompress.targets.aot.memory_map import memory_plan
from tvmcompress.targets.aot.plan import ALIGNMENT
from tvmcompress.targets.aot.program import make_program
from tvmcompress.targets.aot.schedule import FLOAT_REGISTERS
from tvmcompress.targets.integer_io import core_and_specs
from tvmcompress.targets.registry import get_target


@given(spatial_nets(channels=4), st.data())
@settings(max_examples=4, deadline=None, derandomize=True)
def test_every_step_finds_its_tensors(net: Net, data: st.DataObject) -> None:
    mod = net.module()
    found = list(prefixes(mod["main"]))
    if found:
        prefix = data.draw(st.sampled_from(found))
        mod = PatchExecution(prefix.end.name, data.draw(st.integers(2, 4)))(mod)
    program = make_program(mod, "net", FLOAT_REGISTERS)
    made = compile_program(program, tvm.target.Target(HOST))
    check_memory(program, made.arena)


@pytest.mark.parametrize("patch_wise", [False, True])
def test_the_map_of_the_arena(patch_wise: bool, tmp_path: Path) -> None:
    """Every step finds its result in it, nothing lies on anything else, and it is as high as the arena."""
    made = Library(tall_net().core(), tmp_path, patch_wise=patch_wise).made
    found = memory_plan(made.program, made.arena)
    assert found.steps == tuple(step.layer for step in made.program.steps)
    alive = [[b for b in found.buffers if b.first <= step <= b.last] for step in range(len(found.steps))]
    for layer, buffers in zip(found.steps, alive):
        assert any(layer in buffer.holds and not buffer.workspace for buffer in buffers)
        placed = sorted((buffer.offset, buffer.offset + buffer.bytes) for buffer in buffers)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(placed))
    top = max(buffer.offset + buffer.bytes for buffer in found.buffers)
    assert 0 <= made.arena.plan.size - top < ALIGNMENT


def test_the_arena_shrinks_and_every_byte_stays(tmp_path: Path) -> None:
    net = tall_net()
    core = net.core()
    (tmp_path / "whole").mkdir()
    (tmp_path / "strips").mkdir()
    whole = Library(core, tmp_path / "whole")
    strips = Library(core, tmp_path / "strips", patch_wise=True)
    patches = strips.made.patches
    assert patches is not None
    assert (whole.made.patches, patches.whole_arena_bytes) == (None, whole.bytes)
    assert strips.bytes < 0.6 * whole.bytes
    assert strips.bytes == strips.made.arena.plan.lower_bound
    # Strips are alike but for the first and the last, and nothing is copied to cut or to join them.
    program = strips.made.program
    assert len(program.functions) <= 3 * len(whole.made.program.functions)
    assert not [name for name in program.functions if "slice" in name or "concat" in name]
    assert len(program.steps) == patches.layers * patches.strips + len(whole.made.program.steps) - patches.layers
    # Figures by layer are those of the layer, not of its patches.
    assert {step.layer for step in program.steps} == {step.layer for step in whole.made.program.steps}
    x = net.input()
    np.testing.assert_array_equal(infer(strips, x)[0], infer(whole, x)[0])
    np.testing.assert_array_equal(infer(strips, x)[0], run(core, [x])[0])
    assert f"{strips.bytes:,} bytes instead of {whole.bytes:,}" in patches.sentence(strips.bytes)


def test_nothing_changes_where_patches_do_not_help(tmp_path: Path) -> None:
    # A single row cannot be cut.
    net = Net((1, 1, 64, 16), 0)
    net.convolution(4, 1, 1, (0, 0))
    made = generate(net.core(), HOST, tmp_path, registers=FLOAT_REGISTERS, patch_wise=True)
    assert made.patches is None
    assert len(made.program.steps) == 1


@pytest.mark.shared
@pytest.mark.parametrize(("file", "whole", "strips"), [("ic_resnet8_int8", 36_000, 31_000)])
def test_the_arena_of_trained_models_on_the_m4(shared: Path, tmp_path: Path, file: str, whole: int, strips: int) -> None:
    target = get_target("cortex-m4")
    if target.missing_tools():
        pytest.skip("needs the Cortex-M tool chain")
    model = tvmcompress.load(shared / "models" / f"{file}.tflite")
    artifact = target.build(model.module, tmp_path, patch_wise=True)
    info = artifact.info  # type: ignore[attr-defined]
    assert info.patches.whole_arena_bytes <= whole
    assert info.arena_bytes <= strips
    core, inputs, _ = core_and_specs(model.module)
    x = np.random.default_rng(0).integers(-128, 128, (1, *inputs[0].shape[1:])).astype("int8")
    np.testing.assert_array_equal(artifact.run([x])[0], np.concatenate([run(core, [one[None]])[0] for one in x]))
