"""What layers get where no log knows them: routines where these pay for themselves, decided for a model as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.targets.kernels.layers import channels, module, weights
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.targets import get_target
from tvmcompress.targets.trials.tunable import TunableTarget

M4 = get_target("cortex-m4")
assert isinstance(M4, TunableTarget)
tools = pytest.mark.skipif(bool(M4.missing_tools()), reason="needs the tools of cortex-m4")


def pointwise(count: int, depth: int, **attrs: int) -> tvm.IRModule:
    """So many pointwise convolutions one after the other."""
    random = np.random.default_rng(count)
    params = {}
    for number in range(count):
        layer = {"weight": weights(random, depth, 1, 1, depth), **channels(random, depth, depth)}
        params |= {f"{name}{number}": value for name, value in layer.items()}

    def build(x: relax.Expr, *args: relax.Expr) -> relax.Expr:
        for number in range(count):
            made = ops.qconv2d(x, *args[4 * number : 4 * number + 4], input_zero_point=-128, output_zero_point=-128, **attrs)
            x = made if number == count - 1 else relax.BlockBuilder.current().emit(made)
        return x

    return module(build, [(1, 6, 6, depth)], params)


def loops(mod: tvm.IRModule) -> list[bool]:
    return [site.choice.default.get("loop") == "routine" for site in M4.survey(mod)]


@pytest.mark.parametrize(
    ("count", "depth", "attrs", "taken"),
    [
        (3, 64, {}, True),
        (1, 64, {}, True),  # saves more of LLVM's code than the routine takes
        (1, 8, {}, False),  # a single small layer would be larger for it
        (3, 64, {"qmax": 100}, False),  # routines have no such epilogue
    ],
)
def test_routines_are_taken_where_they_pay(count: int, depth: int, attrs: dict[str, int], taken: bool) -> None:
    assert loops(pointwise(count, depth, **attrs)) == [taken] * count


def test_what_the_formula_takes_elsewhere_is_in_the_space() -> None:
    (site,) = M4.survey(pointwise(1, 8))
    others = [point for point in site.choice.formulas if point.get("loop") == "routine"]
    assert {point["weights"] for point in others} == {"planes", "halfwords"}
    assert all(point in site.choice.space for point in others)


@tools
@pytest.mark.parametrize(("count", "depth"), [(3, 64), (1, 8)])
def test_they_save_instructions_and_take_no_more_flash(count: int, depth: int, tmp_path: Path) -> None:
    """Against layers that only have another limit, and so none."""
    measured = []
    x = np.random.default_rng(0).integers(-128, 128, (1, 6, 6, depth)).astype("int8")
    for index, attrs in enumerate(({}, {"qmax": 126})):
        mod = pointwise(count, depth, **attrs)
        built = M4.build(mod, tmp_path / str(index), tuning_log=False)
        np.testing.assert_array_equal(built.run([x])[0], run(mod, [x])[0])
        measured.append(built.measure([x]))
    ours, plain = measured
    assert (ours.flash_bytes or 0) <= (plain.flash_bytes or 0) + 64
    if count > 1:
        assert (ours.instructions or 0) < 0.95 * (plain.instructions or 0)
