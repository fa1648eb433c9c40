"""Candidates under the emulators: the right ones are counted, whatever else one does is noticed, and the others go on."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import tirx as T

from tvmcompress.targets import get_target
from tvmcompress.targets.trials import image
from tvmcompress.targets.trials.trial import Trial

SIZE = 512
X = np.random.default_rng(0).integers(-100, 100, SIZE).astype("int8")

CORES = [
    pytest.param(name, marks=pytest.mark.skipif(bool(get_target(name).missing_tools()), reason=f"needs the tools of {name}"))
    for name in ("cortex-m4", "cortex-m55", "cortex-a72")
]


def kernel(step=1, reach=SIZE, place=0):
    """One more than the input, `reach` elements from `place` on; with `step` 1 it is right."""

    @T.prim_func(s_tir=True)
    def func(x: T.Buffer((SIZE,), "int8"), one: T.Buffer((4,), "int8"), out: T.Buffer((SIZE,), "int8")):
        T.func_attr({"tirx.noalias": True})
        for i in range(reach):
            out[i + place] = x[T.min(i + place, SIZE - 1)] + T.int8(step) * one[0]

    return func


@T.prim_func(s_tir=True)
def endless(x: T.Buffer((SIZE,), "int8"), one: T.Buffer((4,), "int8"), out: T.Buffer((SIZE,), "int8")):
    T.func_attr({"tirx.noalias": True})
    while one[0] == T.int8(1):
        out[0] = out[0] + x[0]


@T.prim_func(s_tir=True)
def reversed_in_place(x: T.Buffer((SIZE,), "int8"), one: T.Buffer((4,), "int8"), out: T.Buffer((SIZE,), "int8")):
    T.func_attr({"tirx.noalias": True})
    for i in range(SIZE):
        out[SIZE - 1 - i] = x[i] + one[0]


def far_away(place):
    """Writes where nothing is."""

    @T.prim_func(s_tir=True)
    def func(x: T.Buffer((SIZE,), "int8"), one: T.Buffer((4,), "int8"), out: T.Buffer((SIZE,), "int8")):
        T.func_attr({"tirx.noalias": True})
        for i in range(SIZE):
            out[i + place * T.Cast("int32", one[0])] = x[i]

    return func


def trial(func, expected=X + 1, inplace=None):
    return Trial(func, [X, np.ones(4, "int8")], [0], expected.astype("int8"), inplace)


def planted(far):
    """Candidates, and what is to come of them; `far` of one that writes where nothing should be."""
    return {
        "right": (trial(kernel()), "ok"),
        "another value": (trial(kernel(step=2)), "wrong"),
        "beyond its end": (trial(kernel(reach=SIZE + 8)), "wrong"),
        "before its start": (trial(kernel(reach=SIZE + 1, place=-1)), "wrong"),
        "endless": (trial(endless), "timeout"),
        "far away": (trial(far_away(0x60000000)), far),
        "right in place": (trial(kernel(), inplace=0), "ok"),
        "wrong in place": (trial(reversed_in_place, (X + 1)[::-1].copy(), inplace=0), "wrong"),
        "right out of place": (trial(reversed_in_place, (X + 1)[::-1].copy()), "ok"),
    }


@pytest.mark.parametrize("core", CORES)
def test_planted_candidates_are_rejected_and_the_others_counted(core, monkeypatch) -> None:
    monkeypatch.setattr(image, "_LIMIT", 5.0)
    # There is memory there on one of the emulated boards.
    expected = planted("wrong" if core == "cortex-m55" else "crash")
    makers = [lambda made=made: made for made, _ in expected.values()]
    outcomes = dict(zip(expected, image.measure(makers, get_target(core).emulator())))
    assert {name: outcome.status for name, outcome in outcomes.items()} == {n: status for n, (_, status) in expected.items()}
    # The call's own few instructions differ with the place of the arguments.
    assert 0 < outcomes["right"].cost < 100 * SIZE
    assert abs(outcomes["right"].cost - outcomes["right in place"].cost) <= 4
    assert all(outcome.reason for outcome in outcomes.values() if outcome.status != "ok")
    assert outcomes["right"].flash_bytes > 4
