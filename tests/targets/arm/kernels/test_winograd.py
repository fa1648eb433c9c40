"""Minimal filtering on Cortex-A: the bytes of the definition, by every plan, and only where it takes fewer instructions."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.targets.kernels.layers import assert_kernel, channels, module, weights, zero_points
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.integer import ops
from tvmcompress.targets import get_target
from tvmcompress.targets.arm.kernels.plan import Plan
from tvmcompress.targets.arm.kernels.winograd import SOURCE, _of_inputs, _of_products, _of_weights, winograd_plans
from tvmcompress.targets.kernels.decisions import Choice, Decisions
from tvmcompress.targets.kernels.use_kernels import Site
from tvmcompress.targets.trials.image import measure
from tvmcompress.targets.trials.site import SiteTrials
from tvmcompress.targets.trials.tunable import TunableTarget

needs_tools = pytest.mark.skipif(bool(get_target("cortex-a72").missing_tools()), reason="needs the Cortex-A tool chain")

# Height, width, channels, outputs, padding (top, left, bottom, right).
LAYERS = {
    "even": (8, 8, 16, 16, (1, 1, 1, 1)),
    "odd": (7, 11, 8, 24, (1, 1, 1, 1)),
    "valid": (6, 9, 24, 8, (0, 0, 0, 0)),
    "padded apart": (5, 6, 8, 16, (2, 0, 1, 2)),
    "narrow": (9, 4, 40, 48, (1, 1, 1, 1)),
}


def layer(name: str, clipped: bool = False) -> tvm.IRModule:
    """A 3x3 convolution, with inputs and weights that reach both ends of a byte."""
    height, width, depth, outputs, padding = LAYERS[name]
    rng = np.random.default_rng(list(name.encode()))
    params = {"weight": weights(rng, outputs, 3, 3, depth), **channels(rng, outputs, 9 * depth)}
    # The greatest sums, of all signs.
    params["weight"][0], params["weight"][1] = -128, 127
    attrs = zero_points(rng, clipped)
    return module(lambda *args: ops.qconv2d(*args, padding=padding, **attrs), [(1, height, width, depth)], params)


def site_of(mod: tvm.IRModule, core: str = "cortex-a72") -> Site:
    target = get_target(core)
    assert isinstance(target, TunableTarget)
    return target.survey(mod)[-1]


def counted(site: Site, points: list[Decisions], core: str = "cortex-a72") -> list[float]:
    """Executed instructions of right candidates."""
    target, trials = get_target(core), SiteTrials(site)
    assert isinstance(target, TunableTarget)
    outcomes = measure([partial(trials.trial, point) for point in points], target.emulator())
    assert [outcome.status for outcome in outcomes] == ["ok"] * len(points), outcomes
    return [outcome.cost for outcome in outcomes]


def filtering(choice: Choice) -> list[Decisions]:
    return [point for point in choice.space if point["source"] == SOURCE]


def test_the_formulas() -> None:
    """Two outputs of a row of three taps, twice as large."""
    d, g = np.random.default_rng(0).integers(-128, 128, (2, 4))
    products = [one * other for one, other in zip(_of_inputs(list(d)), _of_weights(list(g[:3])), strict=True)]  # type: ignore[operator]
    assert _of_products(products) == [2 * int(d[i : i + 3] @ g[:3]) for i in range(2)]


@needs_tools
@pytest.mark.parametrize("name", LAYERS)
def test_every_plan(name: str) -> None:
    site = site_of(layer(name))
    points = filtering(site.choice)
    assert len(points) >= 2
    counted(site, points)


@needs_tools
@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a72"])
@pytest.mark.parametrize("clipped", [False, True])
def test_the_build(core: str, clipped: bool, tmp_path: Path) -> None:
    """By the formula, which takes it, and with threads, where no thread may wait for another's weights."""
    mod = layer("even", clipped)
    assert site_of(mod, core).choice.default["source"] == SOURCE
    rng = np.random.default_rng(1)
    assert_kernel(mod, "conv2d", tmp_path / "one", rng, core)
    x = rng.integers(-128, 128, (2, 8, 8, 16)).astype("int8")
    target = get_target(core)
    built = [target.build(mod, tmp_path / str(threads), threads=threads) for threads in (1, 2)]
    np.testing.assert_array_equal(built[0].run([x])[0], built[1].run([x])[0])


@needs_tools
@pytest.mark.parametrize("name", ["even", "narrow"])
def test_the_formula_takes_what_is_less(name: str) -> None:
    choice = site_of(layer(name)).choice
    direct = [point for point in choice.space if point["source"] != SOURCE][:1]
    found = counted(site_of(layer(name)), [choice.default, *direct, *filtering(choice)])
    assert found[0] < found[1]
    assert found[0] <= 1.05 * min(found[2:])


def test_where_it_is_not_for() -> None:
    """Cores that multiply bytes faster, other strides and sizes, and weights that no cache would hold."""
    assert not filtering(site_of(layer("even"), "cortex-a76").choice)
    from tvmcompress.targets.arm.kernels.products import Dot, Pairs
    from tvmcompress.targets.kernels.layers import ConvolutionShape

    def plans(products: Dot | Pairs, **other: object) -> list[Plan]:
        sizes = {"height": 8, "width": 8, "channels": 16, "out_height": 8, "out_width": 8, "out_channels": 16}
        rest = {"kernel": (3, 3), "strides": (1, 1), "top": 1, "left": 1, "input_zero_point": 0}
        return list(winograd_plans(ConvolutionShape(**{**sizes, **rest, **other}), products))  # type: ignore[arg-type]

    assert plans(Pairs())
    assert not plans(Dot())
    others: list[dict[str, object]] = [{"strides": (2, 2)}, {"kernel": (3, 1)}, {"channels": 12}, {"out_channels": 12}]
    for other in [*others, {"channels": 408}, {"channels": 128, "out_channels": 128}, {"out_height": 1}]:
        assert not plans(Pairs(), **other), other
