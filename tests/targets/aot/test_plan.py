"""Plans of the arena: nothing alive at once overlaps, and the size meets its lower bound where one can tell."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tvmcompress
from tvmcompress.passes._tvm import tvm
from tvmcompress.targets.aot.compiled import compile_program
from tvmcompress.targets.aot.plan import ALIGNMENT, Buffer, _Search, lower_bound, plan
from tvmcompress.targets.aot.program import make_program
from tvmcompress.targets.aot.schedule import FLOAT_REGISTERS
from tvmcompress.targets.channels_last import channels_last
from tvmcompress.targets.integer_io import core_and_specs
from tvmcompress.targets.micro.target import CortexMTarget
from tvmcompress.targets.registry import get_target


@st.composite
def _buffers(draw: st.DrawFn) -> dict[str, Buffer]:
    found = {}
    for index in range(draw(st.integers(0, 14))):
        first = draw(st.integers(-1, 12))
        found[f"b{index}"] = Buffer(draw(st.integers(0, 5000)), first, first + draw(st.integers(0, 5)))
    return found


def _most_alive(buffers: dict[str, Buffer]) -> int:
    """The lower bound, written anew: bytes alive at each step."""
    sizes = {name: max(1, -(-b.size // ALIGNMENT)) * ALIGNMENT for name, b in buffers.items()}
    return max((sum(sizes[n] for n, b in buffers.items() if b.first <= t <= b.last) for t in range(-1, 20)), default=0)


@settings(max_examples=150, deadline=None)
@given(_buffers())
def test_nothing_alive_at_once_overlaps(buffers: dict[str, Buffer]) -> None:
    made = plan(buffers)
    aligned = {name: Buffer(-(-max(b.size, 1) // 8) * 8, b.first, b.last) for name, b in buffers.items()}
    assert made.lower_bound == lower_bound(aligned)
    assert made.lower_bound == _most_alive(buffers) <= made.size
    for name, b in buffers.items():
        assert made.offsets[name] % ALIGNMENT == 0
        assert made.offsets[name] + b.size <= made.size
    names = sorted(buffers)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            a, b = buffers[one], buffers[other]
            if a.first <= b.last and b.first <= a.last:
                x, y = made.offsets[one], made.offsets[other]
                assert x + a.size <= y or y + b.size <= x, (one, other)


def test_a_chain_needs_its_two_largest_neighbours() -> None:
    sizes = [1000, 4000, 3000, 500, 2000, 16]
    made = plan({f"t{i}": Buffer(size, i, i + 1) for i, size in enumerate(sizes)})
    assert made.size == made.lower_bound == 7000


def test_a_residual_network_meets_the_bound() -> None:
    buffers = {}
    for block in range(9):
        for k in range(3):
            buffers[f"{block}.{k}"] = Buffer(16384 // (1 + block // 3), 3 * block + k, 3 * block + k + (3 if k == 2 else 1))
    made = plan(buffers)
    assert made.size <= 1.05 * made.lower_bound


def test_the_search_beats_every_single_order() -> None:
    # Largest first leaves a hole here that only another order fills.
    buffers = {
        "a": Buffer(800, 0, 2),
        "b": Buffer(600, 1, 3),
        "c": Buffer(500, 3, 5),
        "d": Buffer(400, 2, 4),
        "e": Buffer(900, 5, 6),
        "f": Buffer(300, 4, 6),
    }
    assert plan(buffers).size == plan(buffers).lower_bound


def test_the_same_buffers_give_the_same_plan() -> None:
    buffers = {f"t{i}": Buffer(100 * (i * 7 % 5 + 1), i, i + 1 + i % 3) for i in range(20)}
    assert plan(buffers) == plan(dict(buffers))


@pytest.mark.parametrize("buffers", [{}, {"only": Buffer(0, 0, 0)}])
def test_next_to_nothing(buffers: dict[str, Buffer]) -> None:
    assert plan(buffers).size == len(buffers) * ALIGNMENT


@st.composite
def _few(draw: st.DrawFn) -> dict[str, Buffer]:
    """Five buffers of whole alignment units, some of which shrink in the middle of their lives."""
    found = {}
    for index in range(draw(st.integers(1, 5))):
        first, life, size = draw(st.integers(0, 5)), draw(st.integers(0, 4)), 8 * draw(st.integers(1, 40))
        shrinks = None
        if life and draw(st.booleans()):
            shrinks = first + draw(st.integers(1, life)), 8 * draw(st.integers(1, size // 8))
        found[f"b{index}"] = Buffer(size, first, first + life, shrinks)
    return found


def _at(buffer: Buffer, step: int) -> int:
    """Bytes of a buffer in use at a step."""
    if not buffer.first <= step <= buffer.last:
        return 0
    return buffer.shrinks[1] if buffer.shrinks is not None and step >= buffer.shrinks[0] else buffer.size


def _smallest(buffers: dict[str, Buffer]) -> int:
    """The best arena, by placing the buffers in every order as low as they go, step by step."""
    best = sum(b.size for b in buffers.values())
    for order in itertools.permutations(buffers.values()):
        heights = [0] * 12
        for b in order:
            base = max(heights[b.first : b.last + 1])
            for step in range(b.first, b.last + 1):
                heights[step] = base + _at(b, step)
        best = min(best, max(heights))
    return best


@settings(max_examples=150, deadline=None)
@given(_few())
def test_a_plan_called_optimal_is(buffers: dict[str, Buffer]) -> None:
    made = plan(buffers)
    assert made.optimal
    assert made.size == _smallest(buffers)
    assert made.lower_bound == max(sum(_at(b, step) for b in buffers.values()) for step in range(12))
    for step in range(12):
        alive = sorted((made.offsets[name], made.offsets[name] + _at(b, step)) for name, b in buffers.items() if _at(b, step))
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(alive))


def test_branch_and_bound_finds_what_first_fit_misses() -> None:
    """Without local search, from the worst of plans."""
    random_ = random.Random(1)
    for _ in range(20):
        firsts = [random_.randrange(8) for _ in range(9)]
        buffers = {f"b{i}": Buffer(8 * random_.randrange(1, 50), f, f + random_.randrange(5)) for i, f in enumerate(firsts)}
        search = _Search(buffers, lower_bound(buffers), 0)
        search.size = sum(b.size for b in buffers.values()) + 1
        assert search.prove() or search.size == lower_bound(buffers)
        assert search.size == plan(buffers).size


@pytest.mark.parametrize("nodes", [1, 5, 12])
def test_a_search_that_is_broken_off_has_proved_nothing(nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmcompress.targets.aot.plan._MOST_NODES", nodes)
    random_ = random.Random(2)
    firsts = [random_.randrange(8) for _ in range(12)]
    buffers = {f"b{i}": Buffer(8 * random_.randrange(1, 50), f, f + random_.randrange(5)) for i, f in enumerate(firsts)}
    search = _Search(buffers, 0, 0)
    search.size = sum(b.size for b in buffers.values()) + 1
    assert not search.prove()


@pytest.mark.parametrize(("steps", "life"), [(12, 4), (24, 5), (40, 6)])
def test_random_programs_are_within_five_percent_of_the_bound(steps: int, life: int) -> None:
    random_ = random.Random(steps)
    for _ in range(2):
        buffers = {}
        for step in range(steps):
            buffers[f"t{step}"] = Buffer(random_.randrange(16, 20000), step, step + random_.randrange(1, life))
            buffers[f"w{step}"] = Buffer(random_.randrange(0, 4000), step, step)
        made = plan(buffers)
        assert made.size <= 1.05 * made.lower_bound


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        *("ic_resnet8_int8.tflite", "kws_dscnn_int8.tflite", "vww_mobilenetv1_025_96_int8.tflite"),
        "ad_autoencoder_int8.tflite",
        "cifar_resnet20_fp32.onnx",
    ],
)
def test_the_arenas_of_trained_models_are_optimal(shared: Path, name: str) -> None:
    """Of the Cortex-M4's kernels; ResNet-20 in float, which has the same tensors four times as large."""
    target = CortexMTarget(get_target("cortex-m4").description)
    core = core_and_specs(tvmcompress.load(shared / "models" / name).module)[0]
    core = core if name.endswith("tflite") else channels_last(core)
    program = make_program(core, "net", FLOAT_REGISTERS, target.kernel_passes())
    made = compile_program(program, tvm.target.Target(target.description.tvm)).arena.plan
    assert made.optimal
    assert made.size == made.lower_bound
