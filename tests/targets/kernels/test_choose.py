"""Decisions for all layers together, against trying every combination."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer import ops
from tvmcompress.targets.kernels.choose import decide_together, extra_flash
from tvmcompress.targets.kernels.decisions import Choice, Workload
from tvmcompress.targets.kernels.records import KernelRecord
from tvmcompress.targets.kernels.use_kernels import Site

# Of each layer: how often it is called, and of each point (instructions, bytes of flash), the default first.
POINT = st.tuples(st.integers(1, 50), st.integers(0, 20))
LAYERS = st.lists(st.tuples(st.integers(1, 3), st.lists(POINT, min_size=1, max_size=4)), min_size=1, max_size=4)
SIZES = st.builds(
    lambda code, constants, workspaces, library: KernelRecord(
        {"point": 0}, 1, code + constants, 0, constants, workspaces, tuple(sorted(library))
    ),
    st.integers(0, 4000),
    st.integers(0, 9000),
    st.integers(0, 4),
    st.sets(st.sampled_from(["memset", "memcpy"])),
)


def site(number: int, calls: int, points: int) -> Site:
    """A layer of its own shape."""
    x = relax.Var("x", relax.TensorType((1, 1, 1, number + 1), "int8"))
    scales = ops.add_parameters(0.1, 0.1, 0.2)
    added = ops.qadd(x, x, input1_zero_point=0, input2_zero_point=0, output_zero_point=0, **scales)
    call = relax.BlockBuilder().normalize(added)
    workload = Workload("dsp", "conv2d", {"number": number})
    choice = Choice(workload, {"point": 0}, lambda: [{"point": index} for index in range(points)])
    return Site(choice, call, None, lambda decide: None, calls)


@settings(deadline=None, max_examples=60)
@given(LAYERS, st.integers(0, 30))
def test_the_best_within_the_flash(layers: list[tuple[int, list[tuple[int, int]]]], spare: int) -> None:
    sites = [site(number, calls, len(points)) for number, (calls, points) in enumerate(layers)]
    records = {
        made.choice.workload.key: [KernelRecord({"point": i}, cost, flash, 0) for i, (cost, flash) in enumerate(points)]
        for made, (_, points) in zip(sites, layers)
    }
    decide = decide_together(sites, records, spare)
    taken = [int(decide(made.call, made.choice)["point"]) for made in sites]

    def cost(combination: tuple[int, ...]) -> int:
        return sum(calls * points[i][0] for i, (calls, points) in zip(combination, layers))

    def extra(combination: tuple[int, ...]) -> int:
        return sum(points[i][1] - points[0][1] for i, (_, points) in zip(combination, layers))

    every = itertools.product(*(range(len(points)) for _, points in layers))
    least = min(cost(combination) for combination in every if extra(combination) <= spare)
    assert cost(tuple(taken)) == least
    assert extra(tuple(taken)) <= spare


NAMES = st.sets(st.sampled_from(["a", "b", "c"]), max_size=2)


@settings(deadline=None, max_examples=60)
@example([[((1, 0), {"a"})], [((2, 12), set()), ((1, 11), {"a", "b"})]], {"a": 1, "b": 1, "c": 1}, 0)
@given(
    st.lists(st.lists(st.tuples(POINT, NAMES), min_size=1, max_size=4), min_size=1, max_size=3),
    st.fixed_dictionaries({name: st.integers(1, 25) for name in "abc"}),
    st.integers(0, 30),
)
def test_routines_are_paid_once(
    layers: list[list[tuple[tuple[int, int], set[str]]]], sizes: dict[str, int], spare: int
) -> None:
    """Those of several layers count once, those of the defaults are there anyway."""
    sites = [site(number, 1, len(points)) for number, points in enumerate(layers)]
    records = {
        made.choice.workload.key: [
            KernelRecord({"point": i}, cost, flash, 0, library=tuple(f"{name}:{sizes[name]}" for name in sorted(names)))
            for i, ((cost, flash), names) in enumerate(points)
        ]
        for made, points in zip(sites, layers)
    }
    decide = decide_together(sites, records, spare)
    taken = tuple(int(decide(made.call, made.choice)["point"]) for made in sites)

    def cost(combination: tuple[int, ...]) -> int:
        return sum(points[i][0][0] for i, points in zip(combination, layers))

    def flash(combination: tuple[int, ...]) -> int:
        called = set().union(*(points[i][1] for i, points in zip(combination, layers)))
        return sum(points[i][0][1] for i, points in zip(combination, layers)) + sum(sizes[name] for name in called)

    most = flash((0,) * len(layers)) + spare
    every = itertools.product(*(range(len(points)) for points in layers))
    assert cost(taken) == min(cost(combination) for combination in every if flash(combination) <= most)
    assert flash(taken) <= most


def test_routines_that_unknown_layers_may_call_are_not_saved() -> None:
    """What a layer without records calls is known to nobody."""
    known, unknown = site(0, 1, 2), site(1, 1, 2)
    records = {
        known.choice.workload.key: [
            KernelRecord({"point": 0}, 9, 10, 0, library=("a:100",)),
            KernelRecord({"point": 1}, 5, 10, 0, library=("b:90",)),
        ]
    }
    assert decide_together([known], records, 0)(known.call, known.choice) == {"point": 1}
    for spare, taken in ((89, 0), (90, 1)):
        assert decide_together([known, unknown], records, spare)(known.call, known.choice) == {"point": taken}


def test_equal_layers_are_counted_from_their_own_defaults() -> None:
    """Where one has weights as halfwords already, another that gets them takes more flash all the same."""
    one, other = site(0, 1, 2), site(1, 1, 2)
    choice = Choice(one.choice.workload, {"point": 1}, lambda: [{"point": 0}, {"point": 1}])
    sites = [replace(one, choice=choice), replace(other, choice=replace(one.choice))]
    records = {one.choice.workload.key: [KernelRecord({"point": 0}, 9, 10, 0), KernelRecord({"point": 1}, 5, 20, 0)]}
    for spare, taken in ((9, 0), (10, 1)):
        decide = decide_together(sites, records, spare)
        assert [decide(made.call, made.choice)["point"] for made in sites] == [1, taken]


def test_without_records_the_formula_decides() -> None:
    one = site(0, 1, 3)
    failed = [KernelRecord({"point": 1}, None, 0, 0)]
    foreign = [KernelRecord({"point": 0}, 9, 0, 0), KernelRecord({"point": 7}, 1, 0, 0)]
    for records in ([], failed, foreign):
        decide = decide_together([one], {one.choice.workload.key: records}, 100)
        assert decide(one.call, one.choice) == {"point": 0}


def test_a_better_point_without_the_default_is_not_compared() -> None:
    one = site(0, 1, 3)
    decide = decide_together([one], {one.choice.workload.key: [KernelRecord({"point": 1}, 1, 0, 0)]}, 100)
    assert decide(one.call, one.choice) == {"point": 0}
    assert np.array_equal(list(one.choice.space), [{"point": i} for i in range(3)])


@given(
    SIZES,
    SIZES,
    st.integers(1, 5),
    st.booleans(),
    st.integers(4, 12),
    st.dictionaries(st.sampled_from(["memset", "memcpy"]), st.integers(4, 320), min_size=2),
    st.sets(st.sampled_from(["memset", "memcpy"])),
)
def test_flash_is_never_counted_too_low(
    option: KernelRecord,
    default: KernelRecord,
    layers: int,
    shared: bool,
    argument: int,
    library: dict[str, int],
    elsewhere: set[str],
) -> None:
    """Against a program's flash: functions shared by equal layers or not, and library functions that others may call, too."""

    def program(record: KernelRecord) -> int:
        code = record.flash_bytes - record.constant_bytes
        called = set(record.library) | elsewhere
        own = record.constant_bytes + argument * record.workspaces
        return (1 if shared else layers) * code + layers * own + sum(library[name] for name in called)

    assert program(option) - program(default) <= extra_flash(option, default, layers)
    assert extra_flash(default, default, layers) == 0
