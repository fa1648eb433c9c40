"""Kernels for cores without the DSP extension: each point gives the bytes of the reference and writes only where it may."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.targets.kernels.layers import CONVOLUTIONS, DEPTHWISE, assert_kernel, channels, module, weights, zero_points
from tests.targets.micro.kernels.test_decided import _ample_memory, site_of  # noqa: F401
from tests.targets.micro.kernels.test_routines import dense, pointwise
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.targets import get_target
from tvmcompress.targets.kernels.decisions import Decisions, point_key
from tvmcompress.targets.kernels.layers import NotRepresentable
from tvmcompress.targets.kernels.use_kernels import Site
from tvmcompress.targets.micro.kernels.scalar_assembly import long_sums_fit
from tvmcompress.targets.micro.kernels.scalar_conv import ScalarKernel
from tvmcompress.targets.micro.kernels.scalar_epilogue import ScalarEpilogue
from tvmcompress.targets.trials.image import measure
from tvmcompress.targets.trials.site import SiteTrials
from tvmcompress.targets.trials.trial import Outcome
from tvmcompress.targets.trials.tunable import TunableTarget

CORES = ("cortex-m3", "cortex-m0plus")
LEAST, MOST = -128, 127

pytestmark = pytest.mark.skipif(bool(get_target("cortex-m3").missing_tools()), reason="needs the Cortex-M tool chain")


def layer(rng: np.random.Generator, case: tuple[Any, ...], wise: bool) -> tvm.IRModule:
    """A convolution or a depthwise one as `layers` has them."""
    height, width, depth, *outputs, kernel, strides, padding = case
    taps = kernel[0] * kernel[1] * (1 if wise else depth)
    attrs: dict[str, Any] = {**zero_points(rng, clipped=bool(rng.integers(2))), "strides": strides, "padding": padding}
    if rng.integers(3) == 0:
        attrs["rounding"] = "single"
    if wise:
        params = {"weight": weights(rng, 1, *kernel, depth), **channels(rng, depth, taps)}
        return module(lambda *args: ops.qdepthwise(*args, **attrs), [(1, height, width, depth)], params)
    params = {"weight": weights(rng, outputs[0], *kernel, depth), **channels(rng, outputs[0], taps)}
    return module(lambda *args: ops.qconv2d(*args, **attrs), [(1, height, width, depth)], params)


def outcomes(tried: Iterable[tuple[Site, Decisions]], core: str) -> list[Outcome]:
    target = get_target(core)
    assert isinstance(target, TunableTarget)
    subjects: dict[int, SiteTrials] = {}
    made = [partial(subjects.setdefault(id(site), SiteTrials(site)).trial, point) for site, point in tried]
    return measure(made, target.emulator())


def assert_right(tried: list[tuple[Site, Decisions]], core: str) -> None:
    for (site, point), outcome in zip(tried, outcomes(tried, core), strict=True):
        assert outcome.status == "ok", (site.choice.workload, point, outcome)
        assert outcome.cost > 0


def some(site: Site, rng: np.random.Generator, count: int) -> list[tuple[Site, Decisions]]:
    """The default, and others of its space."""
    others = rng.permutation(len(site.choice.space) - 1)[:count]
    return [(site, site.choice.default), *((site, site.choice.space[1 + i]) for i in others)]


@pytest.mark.parametrize("core", CORES)
def test_layers_with_every_kind_of_rest(core: str) -> None:
    rng = np.random.default_rng(1)
    cases = [(case, False) for case in CONVOLUTIONS.values()]
    cases += [(case, True) for case in DEPTHWISE.values() if case[3][1] == 3]
    sites = [site_of(layer(rng, case, wise), core) for case, wise in cases]
    assert_right([pair for site in sites for pair in some(site, rng, 1)], core)


@pytest.mark.parametrize("core", CORES)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(st.data())
def test_every_decision_on_drawn_layers(core: str, data: st.DataObject) -> None:
    kernel = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    strides = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    top, left, bottom, right = (data.draw(st.integers(0, most)) for most in (kernel[0] - 1, kernel[1] - 1) * 2)
    height = data.draw(st.integers(kernel[0] + 1, 6))
    width = data.draw(st.integers(kernel[1] + 1, 13))
    depth, outputs = data.draw(st.integers(1, 9)), 4 * data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    padding = (top, left, bottom, right)
    sites = [site_of(layer(rng, (height, width, depth, outputs, kernel, strides, padding), False), core)]
    wise = (height, width, depth, (kernel[0], 3), strides, (top, 1, bottom, 1))
    sites.append(site_of(layer(rng, wise, True), core))
    tried: dict[str, tuple[Site, Decisions]] = {}
    for index, site in enumerate(sites):
        points = list(site.choice.space)
        rng.shuffle(points)  # type: ignore[arg-type]
        for point in points:
            # Each combination but that of rounds, with some round.
            own = {name: value for name, value in point.items() if name != "unroll"}
            tried.setdefault(f"{index} {point_key(own)}", (site, point))
    blocks = {(p["products"], p["pixels"], p["channels"]) for _, p in tried.values() if "products" in p}
    assert len(blocks) >= (11 if core == "cortex-m3" else 4)
    assert_right(list(tried.values()), core)


@pytest.mark.parametrize("core", CORES)
def test_fully_connected(core: str) -> None:
    rng = np.random.default_rng(2)
    mods = [dense(i, inputs, outputs, False, attrs) for i, (inputs, outputs, attrs) in enumerate(
        [(64, 10, {}), (12, 3, {}), (640, 16, {"output_zero_point": -128}), (7, 13, {"rounding": "single"}), (33, 8, {})]
    )]  # fmt: skip
    tokens = {"weight": weights(rng, 12, 20), **channels(rng, 12, 20)}
    mods.append(module(lambda *a: ops.qdense(*a, input_zero_point=9, output_zero_point=-20), [(1, 5, 20)], tokens))
    assert_right([pair for mod in mods for pair in some(site_of(mod, core), rng, 3)], core)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_greatest_sums(core: str, sign: int, tmp_path: Path) -> None:
    """Sums that just fit, of inputs that are all the least, all the greatest, or either."""
    depth, outputs = 256, 8
    rng = np.random.default_rng(3)
    params = {"weight": np.full((outputs, 1, 1, depth), 127 * sign, "int8"), **channels(rng, outputs, depth)}
    params["shift"][:] = np.arange(-15, -15 - outputs, -1)
    params["bias"] = rng.choice([-1, 1], outputs).astype("int32") * (1 << 21)
    mod = module(lambda *a: ops.qconv2d(*a, input_zero_point=0, output_zero_point=5), [(1, 3, 4, depth)], params)
    assert long_sums_fit(params["weight"].reshape(outputs, -1))
    assert not long_sums_fit(np.full((1, 259), 127, "int8"))
    x = rng.choice([LEAST, MOST], (4, 3, 4, depth)).astype("int8")
    x[0], x[1] = LEAST, MOST
    x[2, :, ::2], x[2, :, 1::2] = LEAST, MOST
    target = get_target(core)
    expected = np.concatenate([run(mod, [x[i : i + 1]])[0] for i in range(len(x))])
    assert len(np.unique(expected)) > 8
    np.testing.assert_array_equal(target.build(mod, tmp_path, tuning_log=False).run([x])[0], expected)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("rounding", ["double", "single"])
@pytest.mark.parametrize(
    "points", [{"output_zero_point": -128}, {"output_zero_point": 127}, {"output_zero_point": -3, "qmin": -100, "qmax": 99}]
)
def test_requantization_at_its_limits(core: str, rounding: str, points: dict[str, int], tmp_path: Path) -> None:
    """One input; every scale, biases up to 2**28."""
    rng = np.random.default_rng(4)
    outputs = 22 * 8
    params = {
        "weight": rng.choice([-127, 127, 1, 64], (outputs, 1, 1, 1)).astype("int8"),
        "bias": rng.integers(-1 << 28, 1 << 28, outputs).astype("int32"),
        "multiplier": rng.choice([1 << 30, (1 << 31) - 1, (1 << 30) + 1, 1717986918], outputs).astype("int32"),
        "shift": -np.tile(np.arange(1, 23), 8).astype("int32"),
    }
    # Half of them within a byte.
    params["bias"][::2] >>= np.maximum(0, 21 + params["shift"][::2])
    mod = module(lambda *a: ops.qconv2d(*a, input_zero_point=-9, rounding=rounding, **points), [(1, 8, 16, 1)], params)
    x = rng.permutation(np.arange(-64, 64)).astype("int8").reshape(1, 8, 16, 1)
    artifact = get_target(core).build(mod, tmp_path, tuning_log=False)
    assert any("model_conv2d" in function for function in artifact.info.layers)
    expected = run(mod, [x])[0]
    assert len(np.unique(expected)) > 100
    np.testing.assert_array_equal(artifact.run([x])[0], expected)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("scales", [(0.1, 0.07, 0.2), (0.05, 0.11, 0.08), (0.1, 0.1, 0.13)])
def test_addition(core: str, scales: tuple[float, float, float], tmp_path: Path) -> None:
    """The scale of either operand is the larger one, or of neither."""
    rng = np.random.default_rng(5)
    points = {"input1_zero_point": 5, "input2_zero_point": -128, "output_zero_point": -4, "qmax": 100}
    mod = module(lambda a, b: ops.qadd(a, b, **points, **ops.add_parameters(*scales)), [(1, 5, 7, 3)] * 2, {})
    assert_kernel(mod, "add", tmp_path, rng, core)


@pytest.mark.parametrize("core", CORES)
def test_scales_without_a_place_keep_the_generic_kernel(core: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    params = {"weight": rng.integers(-2, 3, (4, 1, 1, 4)).astype("int8"), **channels(rng, 4, 4)}
    params["shift"] = np.zeros(4, "int32")
    with pytest.raises(NotRepresentable):
        ScalarEpilogue("double", 0, LEAST, MOST, True).factor(params["multiplier"], params["shift"])
    mod = module(lambda *a: ops.qconv2d(*a, input_zero_point=0, output_zero_point=0), [(1, 4, 4, 4)], params)
    x = rng.integers(LEAST, MOST + 1, (1, 4, 4, 4)).astype("int8")
    artifact = get_target(core).build(mod, tmp_path)
    assert any("qconv2d" in function for function in artifact.info.layers)
    np.testing.assert_array_equal(artifact.run([x])[0], run(mod, [x])[0])


def test_accumulators_that_may_not_fit_are_refused() -> None:
    epilogue = ScalarEpilogue("double", 0, LEAST, MOST, True)
    bias, factor = np.array([(1 << 29) - 127 * 128 * 128 - 1]), (np.array([1 << 30]), np.array([-3]))
    weight = np.full((1, 128), 127, "int8")
    assert epilogue.parameters(weight, bias, *factor).tolist() == [[2 * bias[0], 1 << 30, 3]]
    with pytest.raises(NotRepresentable):
        epilogue.parameters(weight, bias + 1, *factor)


def test_wrong_candidates_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ScalarKernel.constants

    def wrong(self: ScalarKernel, *args: np.ndarray) -> list[np.ndarray]:
        stream, counts = right(self, *args)
        # One bit of one weight.
        stream[0] ^= 8
        return [stream, counts]

    site = site_of(pointwise(7, (4, 5, 8), 4, {}), "cortex-m3")
    monkeypatch.setattr(ScalarKernel, "constants", wrong)
    (outcome,) = outcomes([(site, site.choice.default)], "cortex-m3")
    assert outcome.status == "wrong"


def test_little_memory_takes_small_panels(tmp_path: Path) -> None:
    target = get_target("cortex-m3")
    assert isinstance(target, TunableTarget)
    mod = pointwise(8, (8, 8, 256), 8, {})
    (free,) = target.survey(mod)
    assert (free.choice.default["pixels"], free.choice.default["channels"]) != (2, 1)
    arenas = [target.build(mod, tmp_path / str(patches), patch_wise=patches).info.arena_bytes for patches in (False, True)]
    assert arenas[1] < arenas[0]


def test_depthwise_of_another_width_keeps_the_generic_kernel(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    params = {"weight": weights(rng, 1, 3, 5, 6), **channels(rng, 6, 15)}
    mod = module(
        lambda *a: ops.qdepthwise(*a, padding=(1, 2, 1, 2), input_zero_point=3, output_zero_point=-5), [(1, 8, 9, 6)], params
    )
    x = rng.integers(LEAST, MOST + 1, (1, 8, 9, 6)).astype("int8")
    artifact = get_target("cortex-m3").build(mod, tmp_path)
    assert any("qdepthwise" in function for function in artifact.info.layers)
    np.testing.assert_array_equal(artifact.run([x])[0], run(mod, [x])[0])


def test_a_routine_of_many_layers_is_there_once(tmp_path: Path) -> None:
    def twice(x: relax.Expr, *args: relax.Expr) -> relax.Call:
        made = relax.BlockBuilder.current().emit(ops.qconv2d(x, *args, input_zero_point=1, output_zero_point=1))
        return ops.qconv2d(made, *args, input_zero_point=1, output_zero_point=1)

    rng = np.random.default_rng(10)
    params = {"weight": weights(rng, 16, 1, 1, 16), **channels(rng, 16, 16)}
    artifact = get_target("cortex-m0plus").build(module(twice, [(1, 4, 4, 16)], params), tmp_path)
    source = (tmp_path / "model_routines.c").read_text()
    names = [line for line in source.splitlines() if line.startswith("void")]
    assert len(names) == len(set(names)) == 2
    assert artifact.measure().instructions
