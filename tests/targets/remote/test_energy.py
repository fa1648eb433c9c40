"""Energy: what counters and sensors report is what was used, here and on a board; where there are none, nothing is said."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import tvmcompress
from tests.boards import Cluster
from tvmcompress import Model, benchmark
from tvmcompress.targets.measurement import Energy
from tvmcompress.targets.remote import energy
from tvmcompress.targets.remote.boards import Boards
from tvmcompress.targets.remote.energy import energy_of, here
from tvmcompress.targets.remote.tracker import Tracker


@pytest.fixture(autouse=True)
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for /sys, in which nothing counts."""
    monkeypatch.setenv("TVMCOMPRESS_SYSFS", str(tmp_path))
    monkeypatch.setattr(energy, "SECONDS", 0.2)
    return tmp_path


@pytest.fixture(scope="module")
def digits_model() -> Model:
    return tvmcompress.load(Path(__file__).resolve().parents[3] / "examples" / "digits.onnx")


def put(folder: Path, **values: object) -> None:
    """Files with a value each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")


def counted(run: Any) -> Energy:
    found = energy_of(here(), run, 100.0)
    assert found is not None
    return found


def test_nothing_counts(digits_model: Model, sysfs: Path) -> None:
    put(sysfs / "class/hwmon/hwmon0", name="coretemp", temp1_input=40000)
    assert here() is None
    (record,) = benchmark({"digits": digits_model}, ["x86"])
    assert record.measurement is not None
    assert record.measurement.energy is None


def test_packages_that_count_round_and_round(sysfs: Path) -> None:
    first, second = (sysfs / f"class/powercap/intel-rapl:{number}" for number in (0, 1))
    put(first, energy_uj=900, max_energy_range_uj=1000)
    put(second, energy_uj=10, max_energy_range_uj=1000)

    def run(runs: int) -> None:
        assert runs == 2  # of 100 ms each
        put(first, energy_uj=100)
        put(second, energy_uj=60)

    found = counted(run)
    assert found.millijoules == pytest.approx(1e-3 * (200 + 50) / 2)
    assert (found.runs, found.sensor) == (2, "RAPL, the processor's packages")


def test_a_chip_that_counts(sysfs: Path) -> None:
    chip = sysfs / "class/hwmon/hwmon3"
    put(chip, name="ina238", energy1_input=5_000_000)
    assert counted(lambda runs: put(chip, energy1_input=7_000_000)).millijoules == pytest.approx(1000)


@pytest.mark.parametrize(
    "values",
    [
        {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": 5000, "curr1_input": 400},
        {"name": "ina3221", "power1_label": "VDD_IN", "power1_input": 2_000_000},
    ],
    ids=["voltage and current", "power"],
)
def test_power_is_added_up(sysfs: Path, values: dict[str, Any]) -> None:
    put(sysfs / "class/hwmon/hwmon1", **values)
    found = counted(lambda runs: time.sleep(0.1))
    assert found.sensor == "ina3221 VDD_IN"
    assert found.millijoules * found.runs == pytest.approx(1e3 * 2.0 * found.seconds, rel=0.01)


def test_a_benchmark_reports_it(digits_model: Model, sysfs: Path) -> None:
    put(sysfs / "class/hwmon/hwmon1", name="ina3221", power1_input=3_000_000)
    (record,) = benchmark({"digits": digits_model}, ["x86"])
    assert record.measurement is not None
    found = record.measurement.energy
    assert found is not None
    assert found.millijoules * found.runs == pytest.approx(1e3 * 3.0 * found.seconds, rel=0.01)


def test_a_board_reports_its_own(sysfs: Path) -> None:
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    put(sysfs / "class/hwmon/hwmon1", name="a sensor of some length", in1_input=5000, curr1_input=400)
    with Cluster() as own:
        own.start("metered")
        boards = Boards(Tracker(own.address), "metered", 20, 5)
        found = boards.do(lambda board: energy_of(board.meter, lambda runs: time.sleep(0.1), 50.0), "counting energy")
    assert found is not None
    assert (found.runs, found.sensor) == (4, "a sensor of some length")
    assert found.millijoules * found.runs == pytest.approx(1e3 * 2.0 * found.seconds, rel=0.01)
