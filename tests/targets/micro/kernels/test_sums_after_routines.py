"""Sums that join a convolution whose panels a routine multiplies: the bytes of the reference, and no place written twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.targets.kernels.layers import channels, module, weights
from tests.targets.micro.kernels.test_decided import _ample_memory, site_of  # noqa: F401
from tests.targets.micro.kernels.test_routines import M4, routines_of, tried
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.targets import get_target
from tvmcompress.targets.kernels.use_kernels import Site
from tvmcompress.targets.micro.kernels.panel import PanelConvolution
from tvmcompress.targets.micro.kernels.panel_source import PanelSource
from tvmcompress.targets.trials.image import measure
from tvmcompress.targets.trials.site import SiteTrials
from tvmcompress.targets.trials.tunable import TunableTarget

SCALES = [(0.1, 0.07, 0.2), (0.05, 0.11, 0.12), (0.1, 0.1, 0.13)]
"""The convolution's is the larger one, the other operand's is, or both have the same."""


def summed(
    rng: np.random.Generator,
    size: tuple[int, int, int],
    outputs: int,
    kernel: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    scales: tuple[float, float, float] = SCALES[0],
    cut: bool = False,
    rounding: str = "double",
    late: bool = False,
) -> tvm.IRModule:
    """A convolution and its sum with another input, of which it is the second operand if it comes `late`."""
    taps = kernel[0] * kernel[1] * size[2]
    params = {"weight": weights(rng, outputs, *kernel, size[2]) // 4, **channels(rng, outputs, taps)}
    params["shift"] = params["shift"] + 2
    ends = (size[0] + padding[0] + padding[2], size[1] + padding[1] + padding[3])
    out = [(end - length) // step + 1 for end, length, step in zip(ends, kernel, strides, strict=True)]
    points = {"input1_zero_point": 9, "input2_zero_point": -20, "output_zero_point": -128 if cut else -4}

    def build(x: relax.Expr, other: relax.Expr, *args: relax.Expr) -> relax.Call:
        layer: dict[str, Any] = {"strides": strides, "padding": padding, "rounding": rounding}
        conv = ops.qconv2d(x, *args, input_zero_point=7, output_zero_point=points[f"input{1 + late}_zero_point"], **layer)
        made = relax.BlockBuilder.current().emit(conv)
        factors = ops.add_parameters(*([scales[1], scales[0], scales[2]] if late else scales))
        return ops.qadd(*((other, made) if late else (made, other)), **points, **factors, rounding=rounding)

    return module(build, [(1, *size), (1, *out, outputs)], params)


def panels(site: Site, count: int) -> list[dict[str, Any]]:
    """So many routines of two pixels and of three, with byte planes and with halfwords."""
    forms = [{"pixels": pixels, "weights": form} for pixels in (2, 3) for form in ("planes", "halfwords")]
    return [point for form in forms for point in routines_of(site, kernel="panel", **form)[:count]]


@M4
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize(
    ("size", "outputs", "more"),
    [
        ((5, 5, 16), 12, {}),
        ((9, 9, 8), 6, {"strides": (2, 2), "cut": True, "late": True}),
        ((1, 2, 8), 4, {"cut": True}),
        ((2, 4, 12), 98, {"rounding": "single"}),  # outputs of a panel do not fit the stack
    ],
    ids=["pointwise", "by 2", "two pixels", "many channels"],
)
def test_pointwise(size: tuple[int, int, int], outputs: int, more: dict[str, Any], scales: tuple[float, float, float]) -> None:
    mod = summed(np.random.default_rng(1), size, outputs, (1, 1), scales=scales, **more)
    site = site_of(mod, "cortex-m4")
    assert site.addition is not None
    points = panels(site, 1)
    assert {point["pixels"] for point in points} == {2, 3}
    outcomes = tried(site, points)
    assert all(any("panel" in name for name in outcome.library) for outcome in outcomes)


@M4
@settings(max_examples=3, deadline=None, derandomize=True)
@given(st.data())
def test_drawn_layers(data: st.DataObject) -> None:
    kernel = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    strides = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    top, left, bottom, right = (data.draw(st.integers(0, most)) for most in (kernel[0] - 1, kernel[1] - 1) * 2)
    size = data.draw(st.integers(kernel[0] + 1, 7)), data.draw(st.integers(kernel[1] + 1, 11)), data.draw(st.integers(1, 12))
    how = {"cut": data.draw(st.booleans()), "late": data.draw(st.booleans()), "scales": data.draw(st.sampled_from(SCALES))}
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    outputs = 2 * data.draw(st.integers(1, 5))
    site = site_of(summed(rng, size, outputs, kernel, strides, (top, left, bottom, right), **how), "cortex-m4")
    points = panels(site, 2)
    assert points
    tried(site, points)


@M4
@pytest.mark.parametrize("scales", SCALES)
def test_extremes_where_the_formula_takes_a_routine(scales: tuple[float, float, float], tmp_path: Path) -> None:
    """All inputs the least, all the greatest, or either."""
    mod = summed(np.random.default_rng(2), (4, 6, 48), 24, (1, 1), scales=scales, cut=True)
    target = get_target("cortex-m4")
    assert isinstance(target, TunableTarget)
    (site,) = target.survey(mod)
    assert site.choice.default["loop"] == "routine"
    rng = np.random.default_rng(3)
    inputs = [rng.choice([-128, 127], (4, 4, 6, depth)).astype("int8") for depth in (48, 24)]
    for one, ends in zip(inputs, ((-128, 127), (127, -128)), strict=True):
        one[0], one[1] = ends
    expected = np.concatenate([run(mod, [x[i : i + 1] for x in inputs])[0] for i in range(4)])
    assert expected.min() == -128
    assert len(np.unique(expected)) > 20
    artifact = target.build(mod, tmp_path, tuning_log=False)
    np.testing.assert_array_equal(artifact.run(inputs)[0], expected)


@M4
@pytest.mark.parametrize("wrong", ["weights", "sum"])
def test_wrong_candidates_are_found_out(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_of(summed(np.random.default_rng(4), (4, 5, 8), 4, (1, 1)), "cortex-m4")
    (point,) = panels(site, 1)[-1:]
    if wrong == "weights":
        right = PanelConvolution.constants

        def planted(self: PanelConvolution, *args: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            stream, counts = right(self, *args)
            # One bit of one weight.
            stream[2] ^= 8
            return stream, counts

        monkeypatch.setattr(PanelConvolution, "constants", planted)
    else:
        # The last pixel never joins the sum.
        monkeypatch.setattr(PanelSource, "walk", property(lambda self: self.conv.out_height * self.conv.out_width - 1))
    target = get_target("cortex-m4")
    assert isinstance(target, TunableTarget)
    (outcome,) = measure([lambda: SiteTrials(site).trial(point)], target.emulator())
    assert outcome.status == "wrong"
