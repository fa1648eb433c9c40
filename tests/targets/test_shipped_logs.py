"""The logs that come with the package: whole, current, and taken by a plain build."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tests.targets.kernels.test_choose import site as layer_site
from tvmcompress.data.dataset import load_data
from tvmcompress.model import Model
from tvmcompress.targets import get_target
from tvmcompress.targets.kernels.choose import decide_together
from tvmcompress.targets.kernels.decisions import Choice, Workload, point_key
from tvmcompress.targets.kernels.records import final_decisions, read, workload_module, workload_of
from tvmcompress.targets.trials.tunable import TunableTarget
from tvmcompress.targets.tuning_log import TuningLog, packaged_log_directory, packaged_targets
from tvmcompress.tuning.logs import useful_records, verify

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LEAST_GAIN = 0.98
"""Of the time by the formulas: what a search must gain to be taken, too."""
KEYS = [name for name in packaged_targets() if name.startswith("cortex")]


def packaged(key: str) -> TuningLog:
    """The log that comes with the package."""
    directory = packaged_log_directory(key)
    assert directory is not None
    return TuningLog(directory)


@pytest.fixture(scope="module")
def digits() -> Model:
    """The example in int8."""
    original = tvmcompress.load(EXAMPLES / "digits.onnx")
    return tvmcompress.compress(original, load_data(EXAMPLES / "digits_calib.npz", original.inputs), quantize="int8").model


def test_there_are_some() -> None:
    assert {"cortex-m4", "cortex-m55"} <= set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_they_hold_what_gains_and_nothing_else(key: str) -> None:
    log = packaged(key)
    assert verify(log) == []
    for mod in log.modules():
        workload, records = workload_of(mod), read([log], mod)
        assert workload is not None
        assert workload["core"] == key
        assert useful_records(records) == records
        assert len(records) > 1
        assert all(record.cost and record.constant_bytes and record.flash_bytes > record.constant_bytes for record in records)


def test_that_of_x86_holds_what_gains_in_time() -> None:
    log = packaged("x86")
    assert verify(log) == []
    cores = set()
    for mod in log.modules():
        workload, records = workload_of(mod), read([log], mod)
        assert workload is not None
        cores.add(workload["core"])
        default, best = (record.cost or 0.0 for record in records)
        assert best <= LEAST_GAIN * default
        assert final_decisions([log], mod, records[0].decisions) == records[1].decisions
    assert cores == {"znver3", "znver4", "znver5", "x86-64-v3", "x86-64-v4"}


def test_what_holds_for_a_level_of_x86_holds_for_its_cpus() -> None:
    log = packaged("x86")
    decided: dict[str, dict[str, str]] = {}
    for mod in log.modules():
        workload = workload_of(mod)
        assert workload is not None
        default = read([log], mod)[0].decisions
        taken = final_decisions([log], mod, default)
        assert taken is not None
        decided.setdefault(workload.pop("core"), {})[json.dumps(workload, sort_keys=True)] = point_key(taken)
    general = decided["x86-64-v4"]
    assert general
    for cpu in ("znver4", "znver5"):
        assert all(key in decided[cpu] for key in general), f"{cpu} does not confirm what is said of its level"
    assert all(decided["znver4"][key] == point for key, point in general.items())


@pytest.mark.parametrize("key", KEYS)
def test_layers_of_the_digits_example_are_decided_by_them(key: str, digits: Model) -> None:
    target, log = get_target(key), packaged(key)
    assert isinstance(target, TunableTarget)
    sites = target.survey(digits.module)
    records = {site.choice.workload.key: read([log], workload_module(site.choice.workload, key)) for site in sites}
    decide = decide_together(sites, records, 0)
    assert any(decide(site.call, site.choice) != site.choice.default for site in sites)


FULL = json.loads((Path(__file__).parent / "full_logs.json").read_text())
MOST = 1.003
"""Times the cost that all records let a plain build have, with those that ship."""


@pytest.mark.parametrize(("core", "name"), [(core, name) for core, models in FULL.items() for name in models])
def test_they_keep_what_all_records_gain(core: str, name: str) -> None:
    """Against what benchmarks/tuning.py wrote down of the logs before they were pruned; layers are told by their digests."""
    recorded, log = FULL[core][name], packaged(core)
    known = {}
    for mod in log.modules():
        workload = {key: value for key, value in (workload_of(mod) or {}).items() if key != "core"}
        text = json.dumps(workload, sort_keys=True, separators=(",", ":"))
        known[digest(text)] = (Workload(*(workload[part] for part in ("family", "kernel", "shape"))), read([log], mod))
    sites, records, costs = [], {}, [0.0, 0.0]
    for number, layer in enumerate(recorded["layers"]):
        if layer["workload"] not in known:
            continue
        workload, found = known[layer["workload"]]
        points = [record.decisions for record in found]
        default = next(point for point in points if digest(point_key(point)) == layer["default"])
        made = layer_site(number, layer["calls"], len(points))
        choice = Choice(workload, default, lambda points=points: points)  # type: ignore[misc]
        sites.append(replace(made, choice=choice, alive=layer["alive"]))
        records[workload.key] = found
    decide = decide_together(sites, records, 0)
    for site in sites:
        by_point = {point_key(record.decisions): record.cost or 0.0 for record in records[site.choice.workload.key]}
        for index, point in enumerate((site.choice.default, decide(site.call, site.choice))):
            costs[index] += site.count * by_point[point_key(point)]
    assert costs[1] <= min(costs[0], MOST * recorded["full"])
    assert recorded["full"] <= recorded["untuned"]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")
@pytest.mark.parametrize(("core", "most"), [("cortex-m7", 1.0), ("cortex-m55", 0.99)])  # formulas leave less on M7
def test_a_plain_build_gains(core: str, most: float, digits: Model, tmp_path: Path) -> None:
    target = get_target(core)
    plain = target.build(digits.module, tmp_path / "plain")
    untuned = target.build(digits.module, tmp_path / "untuned", tuning_log=False)
    x = np.random.default_rng(0).integers(-128, 128, (4, *plain.inputs[0].shape[1:])).astype("int8")
    np.testing.assert_array_equal(plain.run([x])[0], untuned.run([x])[0])
    after, before = plain.measure([x[:1]]), untuned.measure([x[:1]])
    assert (after.instructions or 0) < most * (before.instructions or 0)
    assert (after.flash_bytes or 0) <= (before.flash_bytes or 0)
    assert (after.arena_bytes or 0) <= (before.arena_bytes or 0)
