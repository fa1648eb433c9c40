"""Kernels that no formula takes but a search may: each gives the bytes of the reference and writes only where it may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.targets.kernels.layers import channels, module, weights
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.integer import ops
from tvmcompress.targets import get_target
from tvmcompress.targets.kernels import spare_memory
from tvmcompress.targets.kernels.compiler_options import REGISTERS
from tvmcompress.targets.kernels.decisions import Decisions, point_key
from tvmcompress.targets.kernels.use_kernels import Site
from tvmcompress.targets.trials.image import measure
from tvmcompress.targets.trials.site import SiteTrials
from tvmcompress.targets.trials.tunable import TunableTarget

M4, M55 = (
    pytest.mark.skipif(bool(get_target(name).missing_tools()), reason=f"needs the tools of {name}")
    for name in ("cortex-m4", "cortex-m55")
)

_MOST = 2
"""Points of a space that are tried."""


@pytest.fixture(autouse=True)
def _ample_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare_memory, "_MOST", 8)


def site_of(mod: tvm.IRModule, core: str) -> Site:
    target = get_target(core)
    assert isinstance(target, TunableTarget)
    return target.survey(mod)[-1]


def assert_right(site: Site, core: str, wanted: Callable[[Decisions], bool], apart: Sequence[str]) -> None:
    """Some points of the space, for each combination of the decisions `apart` one, are right; there are such."""
    target = get_target(core)
    assert isinstance(target, TunableTarget)
    random = np.random.default_rng(0)
    points = [point for point in site.choice.space if wanted(point)]
    random.shuffle(points)  # type: ignore[arg-type]
    chosen = list({point_key({name: point[name] for name in apart}): point for point in points}.values())[:_MOST]
    assert chosen
    trials = SiteTrials(site)
    outcomes = measure([partial(trials.trial, point) for point in chosen], target.emulator())
    for point, outcome in zip(chosen, outcomes, strict=True):
        assert outcome.status == "ok", (point, outcome)
        assert outcome.cost > 0


def convolution(
    seed: int, shape: tuple[int, int, int], outputs: int, attrs: dict[str, Any], adds: bool = False
) -> tvm.IRModule:
    """A 3x3 convolution, the first operand of a sum with another input if it `adds`."""
    random = np.random.default_rng(seed)
    params = {"weight": weights(random, outputs, 3, 3, shape[2]), **channels(random, outputs, 9 * shape[2])}
    attrs = {"input_zero_point": 7, "output_zero_point": -9, "padding": (1, 1, 1, 1), **attrs}
    scale = {"multiplier": 1 << 30, "shift": 0}
    sums = {f"input{i}_{name}": value for i in (1, 2) for name, value in {"zero_point": 3, **scale}.items()}
    sums |= {f"output_{name}": value for name, value in {"multiplier": (1 << 30) + 5, "shift": -19, "zero_point": -4}.items()}

    def build(x: relax.Expr, *rest: relax.Expr) -> relax.Call:
        other, args = (rest[:1], rest[1:]) if adds else ((), rest)
        conv = ops.qconv2d(x, *args, **attrs)
        return ops.qadd(relax.BlockBuilder.current().emit(conv), *other, **sums) if adds else conv

    return module(build, [(1, *shape), *([(1, *shape[:2], outputs)] if adds else [])], params)


def depthwise(seed: int, shape: tuple[int, int, int], attrs: dict[str, Any]) -> tvm.IRModule:
    random = np.random.default_rng(seed)
    params = {"weight": weights(random, 1, 3, 3, shape[2]), **channels(random, shape[2], 9)}
    attrs = {"input_zero_point": -5, "output_zero_point": 8, "padding": (1, 1, 1, 1), **attrs}
    return module(lambda *args: ops.qdepthwise(*args, **attrs), [(1, *shape)], params)


@M4
@pytest.mark.parametrize(
    ("shape", "outputs", "adds", "attrs"),
    [
        ((9, 13, 8), 6, False, {}),
        ((8, 16, 16), 8, True, {}),
        ((5, 8, 112), 2, False, {"padding": (0, 1, 1, 1)}),
        ((12, 11, 12), 4, False, {"rounding": "single", "qmin": -90, "qmax": 70}),
        ((6, 9, 8), 2, False, {"output_zero_point": -128, "padding": (2, 0, 0, 2)}),
    ],
)
def test_minimal_filtering_of_four_outputs(
    shape: tuple[int, int, int], outputs: int, adds: bool, attrs: dict[str, Any]
) -> None:
    site = site_of(convolution(1, shape, outputs, attrs, adds), "cortex-m4")
    assert_right(site, "cortex-m4", lambda point: point.get("tile") == 4 and point["kernel"] == "winograd", ["inputs", "block"])


def test_minimal_filtering_of_four_outputs_keeps_to_sums_that_fit() -> None:
    deep = site_of(convolution(1, (8, 8, 116), 2, {}), "cortex-m4")
    assert {point["tile"] for point in deep.choice.space if point["kernel"] == "winograd"} <= {2}


@M4
@pytest.mark.parametrize(("shape", "attrs"), [((7, 9, 8), {}), ((10, 12, 4), {"strides": (2, 2), "padding": (0, 0, 1, 1)})])
def test_depthwise_by_other_tiles_and_options(shape: tuple[int, int, int], attrs: dict[str, Any]) -> None:
    site = site_of(depthwise(2, shape, attrs), "cortex-m4")
    assert_right(site, "cortex-m4", lambda point: True, ["tile", REGISTERS])


@M55
@pytest.mark.parametrize(
    ("shape", "attrs"),
    [
        ((8, 4, 16), {}),
        ((9, 5, 64), {"output_zero_point": -128}),
        ((4, 8, 4), {"qmin": -100, "qmax": 80}),
        ((7, 6, 16), {"padding": (0, 0, 0, 0)}),
        ((6, 12, 20), {"padding": (1, 0, 0, 1), "rounding": "single"}),
        ((3, 4, 8), {"padding": (0, 1, 2, 1)}),
    ],
)
def test_depthwise_along_columns(shape: tuple[int, int, int], attrs: dict[str, Any]) -> None:
    site = site_of(depthwise(3, shape, attrs), "cortex-m55")
    assert_right(site, "cortex-m55", lambda point: point["kernel"] == "columns", ["loops", REGISTERS])


@pytest.mark.parametrize(
    ("shape", "attrs"), [((8, 5, 4), {}), ((8, 8, 16), {"strides": (2, 2)}), ((8, 3, 16), {"padding": (0, 0, 0, 0)})]
)
def test_depthwise_along_columns_is_left_out_where_it_does_not_fit(shape: tuple[int, int, int], attrs: dict[str, Any]) -> None:
    site = site_of(depthwise(3, shape, attrs), "cortex-m55")
    assert {point["kernel"] for point in site.choice.space} == {"taps"}


@M55
@pytest.mark.parametrize(
    ("shape", "outputs", "adds", "attrs"),
    [
        ((5, 6, 16), 6, False, {}),
        ((6, 5, 32), 4, True, {}),
        ((4, 9, 16), 2, False, {"strides": (2, 2), "qmin": -60, "qmax": 90}),
        ((3, 4, 16), 12, True, {"rounding": "single"}),
        ((3, 7, 48), 4, False, {"output_zero_point": -128, "padding": (0, 0, 0, 0)}),
    ],
)
def test_four_pixels_by_two_channels(shape: tuple[int, int, int], outputs: int, adds: bool, attrs: dict[str, Any]) -> None:
    site = site_of(convolution(4, shape, outputs, attrs, adds), "cortex-m55")
    assert_right(site, "cortex-m55", lambda point: point.get("pixels") == 4, ["rows", "runs", "unroll"])
