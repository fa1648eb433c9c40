"""Inner loops in assembly: each gives the bytes of the reference and writes only where it may; libraries have each once."""

from __future__ import annotations

import re
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.targets.kernels.layers import channels, module, weights
from tests.targets.micro.kernels.test_decided import _ample_memory, convolution, depthwise, site_of  # noqa: F401
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.targets import get_target
from tvmcompress.targets.kernels.decisions import Decisions, point_key
from tvmcompress.targets.kernels.records import KernelRecord, append, workload_module
from tvmcompress.targets.kernels.use_kernels import Site
from tvmcompress.targets.micro.kernels.epilogue import Epilogue
from tvmcompress.targets.micro.kernels.routines import fits, routine_source, routines_in
from tvmcompress.targets.trials.image import measure
from tvmcompress.targets.trials.site import SiteTrials
from tvmcompress.targets.trials.trial import Outcome
from tvmcompress.targets.trials.tunable import TunableTarget
from tvmcompress.targets.tuning_log import TuningLog

M4 = pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the tools of cortex-m4")
POINTWISE = {"padding": (0, 0, 0, 0)}
CUT = {"output_zero_point": -128}
SINGLE = {"rounding": "single"}


def routines_of(site: Site, **wanted: Any) -> list[Decisions]:
    """The points of a space that have a routine; of those that differ in LLVM's options alone the first."""
    found: dict[str, Decisions] = {}
    for point in site.choice.space:
        if point.get("loop") == "routine" and all(point.get(name) == value for name, value in wanted.items()):
            own = {name: value for name, value in point.items() if name not in ("registers", "strength_reduction")}
            found.setdefault(point_key(own), point)
    return list(found.values())


def tried(site: Site, points: list[Decisions], core: str = "cortex-m4") -> list[Outcome]:
    """What came of points; all are right."""
    target = get_target(core)
    assert isinstance(target, TunableTarget)
    trials = SiteTrials(site)
    outcomes = measure([partial(trials.trial, point) for point in points], target.emulator())
    for point, outcome in zip(points, outcomes, strict=True):
        assert outcome.status == "ok", (point, outcome)
    return outcomes


def pointwise(seed: int, shape: tuple[int, int, int], outputs: int, attrs: dict[str, Any]) -> tvm.IRModule:
    random = np.random.default_rng(seed)
    params = {"weight": weights(random, outputs, 1, 1, shape[2]), **channels(random, outputs, shape[2])}
    attrs = {"input_zero_point": 7, "output_zero_point": -9, **attrs}
    return module(lambda *args: ops.qconv2d(*args, **attrs), [(1, *shape)], params)


def dense(seed: int, inputs: int, outputs: int, one_scale: bool, attrs: dict[str, Any]) -> tvm.IRModule:
    random = np.random.default_rng(seed)
    params = {"weight": weights(random, outputs, inputs), **channels(random, outputs, inputs)}
    if one_scale:
        params |= {name: np.full_like(params[name], params[name][0]) for name in ("multiplier", "shift")}
    attrs = {"input_zero_point": 7, "output_zero_point": -9, **attrs}
    return module(lambda *args: ops.qdense(*args, **attrs), [(1, inputs)], params)


@M4
@pytest.mark.parametrize(
    ("mod", "forms"),
    [
        (pointwise(1, (5, 5, 16), 12, {}), {"signed"}),
        (pointwise(2, (4, 4, 32), 2, {**CUT, "strides": (2, 2)}), {"cut"}),
        (pointwise(3, (1, 2, 8), 4, SINGLE), {"single"}),
        (convolution(4, (6, 9, 3), 6, CUT), {"cut"}),
        (convolution(5, (7, 8, 5), 4, {"strides": (2, 2), "padding": (0, 1, 1, 0)}), {"signed"}),
        (convolution(6, (9, 7, 4), 2, {"rounding": "single"}), {"single"}),
    ],
    ids=["pointwise", "pointwise by 2", "two pixels", "rows with rests", "by 2", "single rounding"],
)
def test_panels(mod: tvm.IRModule, forms: set[str]) -> None:
    """Of two and three pixels, byte planes and halfwords, rounds of every length, panels that end beside the map."""
    site = site_of(mod, "cortex-m4")
    points = [p for n in (2, 3) for p in routines_of(site, kernel="panel", pixels=n) if p["source"] != "image"]
    points = [p for form in ("planes", "halfwords") for p in [q for q in points if q["weights"] == form][::3]]
    assert {point["pixels"] for point in points} == {2, 3}
    outcomes = tried(site, points)
    called = [name.partition(":")[0] for outcome in outcomes for name in outcome.library if ":" in name]
    assert len(called) == len(points)
    assert {form for form in ("cut", "signed", "single") if any(f"_{form}_" in name for name in called)} == forms
    assert all(int(name.partition(":")[2]) > 80 for outcome in outcomes for name in outcome.library if ":" in name)


@M4
@pytest.mark.parametrize("one_scale", [False, True])
@pytest.mark.parametrize(
    ("inputs", "outputs", "attrs"), [(24, 8, CUT), (36, 4, {}), (128, 12, SINGLE)], ids=["even", "odd", "single rounding"]
)
def test_fully_connected(inputs: int, outputs: int, one_scale: bool, attrs: dict[str, Any]) -> None:
    site = site_of(dense(7, inputs, outputs, one_scale, attrs), "cortex-m4")
    points = routines_of(site)
    (plain,) = tried(site, [next(point for point in site.choice.space if "loop" not in point)])
    outcomes = tried(site, points)
    assert len({name for outcome in outcomes for name in outcome.library if ":" in name}) == len(points) > 1, points
    assert min(outcome.cost for outcome in outcomes) < plain.cost


@M4
@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize(
    ("shape", "outputs", "adds", "attrs"),
    [((9, 13, 8), 6, False, {}), ((8, 16, 16), 8, True, {}), ((6, 9, 8), 2, False, {**CUT, "padding": (2, 0, 0, 2)})],
)
def test_products_of_minimal_filtering(
    shape: tuple[int, int, int], outputs: int, adds: bool, attrs: dict[str, Any], tile: int
) -> None:
    site = site_of(convolution(8, shape, outputs, attrs, adds), "cortex-m4")
    points = routines_of(site, tile=tile)
    tried(site, [next(p for p in points if p["inputs"] == inputs) for inputs in ("strips", "whole")] + points[-1:])


@M4
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize(
    ("outputs", "attrs"), [(4, CUT), (5, {}), (6, SINGLE), (12, CUT)], ids=["four", "five", "six, single rounding", "two tiles"]
)
def test_depthwise(outputs: int, strides: tuple[int, int], attrs: dict[str, Any]) -> None:
    """Rows of one tile and of several, bands that overlap, tiles of every length."""
    width = outputs * strides[1]
    site = site_of(depthwise(10, (7, width, 8), {"strides": strides, "padding": (1, 1, 1, 1), **attrs}), "cortex-m4")
    points = [point for point in routines_of(site) if point["band"] in (1, 3)]
    assert {point["tile"] for point in points} == {tile for tile in (outputs, 2, 4, 6) if outputs % tile == 0 and tile <= 6}
    tried(site, points)


@M4
def test_cores_without_single_precision_have_them_too() -> None:
    site = site_of(pointwise(9, (3, 5, 16), 6, {}), "cortex-m33")
    tried(site, routines_of(site)[:4], "cortex-m33")


def test_what_routines_have_no_epilogue_for() -> None:
    assert fits(Epilogue("double", 3))
    assert fits(Epilogue("single", 3, shared_shift=False))
    assert not fits(Epilogue("single", 3, shared_shift=True))
    assert not fits(Epilogue("double", 3, qmax=100))
    # One channel of a pair.
    for mod in (pointwise(1, (5, 5, 16), 5, {}), dense(1, 16, 6, True, {})):
        assert not routines_of(site_of(mod, "cortex-m4"))


def test_names_are_found_whole() -> None:
    names = ["tvmcompress_products_6_once", "tvmcompress_products_6", "tvmcompress_panel3_wide_cut_16"]
    content = b"\0".join([b"", *(name.encode() for name in names), b"tvmcompress_other_3", b"tvmcompress_products_6x", b""])
    assert routines_in([content, b"nothing"]) == sorted(names)
    assert re.findall(r"\)\) void (\w+)\(", routine_source(names, "mine")) == [
        name.replace("tvmcompress", "mine") for name in names
    ]


@M4
def test_a_library_has_a_routine_once_for_layers_of_all_sizes(tmp_path: Path) -> None:
    """As a log decides; under the library's prefix, and with nothing that only exceptions need."""
    random = np.random.default_rng(0)
    params = {}
    for number, (inputs, outputs) in enumerate([(16, 8), (8, 24)]):
        layer = {"weight": weights(random, outputs, 1, 1, inputs), **channels(random, outputs, inputs)}
        params |= {f"{name}{number}": value for name, value in layer.items()}

    def build(x: relax.Expr, *args: relax.Expr) -> relax.Call:
        first = ops.qconv2d(x, *args[:4], input_zero_point=7, output_zero_point=-128)
        return ops.qconv2d(
            relax.BlockBuilder.current().emit(first), *args[4:], input_zero_point=-128, output_zero_point=-128
        )

    mod = module(build, [(1, 5, 5, 16)], params)
    target = get_target("cortex-m4")
    assert isinstance(target, TunableTarget)
    log = TuningLog(tmp_path / "log")
    for site in target.survey(mod):
        point = routines_of(site, pixels=3, unroll=2, weights="planes")[0]
        key = workload_module(site.choice.workload, "cortex-m4")
        append(log, key, KernelRecord(site.choice.default, 9, 9000, default=True), tvm.target.Target(target.description.tvm))
        append(log, key, KernelRecord(point, 1, 9000), tvm.target.Target(target.description.tvm))
    built = target.build(mod, tmp_path / "build", prefix="mine", tuning_log=log.directory)
    x = random.integers(-128, 128, (1, 5, 5, 16)).astype("int8")
    np.testing.assert_array_equal(built.run([x])[0], run(mod, [x])[0])
    listed = subprocess.run(["arm-none-eabi-nm", "-A", tmp_path / "build" / "libmine.a"], capture_output=True, text=True).stdout
    symbols = [line.split()[-2:] for line in listed.splitlines() if line.split()]
    routines = [name for kind, name in symbols if kind == "T" and re.match(r"mine_(panel|dense|products)", name)]
    assert routines == ["mine_panel3_planes_cut_2", "mine_panel3_planes_cut_2_once"]
    assert not [name for _, name in symbols if "tvmcompress" in name or "unwind" in name]
    assert (tmp_path / "build" / "mine_routines.c").name in (tmp_path / "build" / "CMakeLists.txt").read_text()
