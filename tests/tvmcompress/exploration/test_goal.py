"""Goals: what counts as lost, when a first look may refuse, and which points no other one beats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmcompress import UserError
from tvmcompress.evaluation.output_comparison import OutputQuality
from tvmcompress.exploration.goal import Goal, doubt, front, lost
from tvmcompress.targets.measurement import Energy, Latency, Measurement

PERFECT = OutputQuality(error=0.0, accuracy=0.9, agreement=1.0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_the_front_is_what_no_point_beats(points: list[tuple[int, int]]) -> None:
    found = front(points)
    values = [points[index] for index in found]

    def beaten(point: tuple[int, int]) -> bool:
        return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)

    assert set(values) == {point for point in points if not beaten(point)}
    assert values == sorted(set(values))


def test_what_is_lost() -> None:
    assert lost(OutputQuality(error=0.1, accuracy=0.85, agreement=0.9), PERFECT) == pytest.approx(5)
    unlabelled = OutputQuality(error=0.0, agreement=1.0)
    assert lost(OutputQuality(error=0.1, agreement=0.9), unlabelled) == pytest.approx(10)
    assert lost(OutputQuality(error=0.02), OutputQuality(error=0.0)) == pytest.approx(2)


def test_a_first_look_is_unsure_where_few_samples_differ() -> None:
    same = OutputQuality(error=0.0, accuracy=0.9, agreement=1.0)
    assert doubt(same, 64) > 0
    assert doubt(OutputQuality(error=0.1, accuracy=0.8, agreement=0.75), 64) == pytest.approx(300 * (0.25 / 64) ** 0.5)
    assert doubt(same, 64) > doubt(same, 640)


def test_costs() -> None:
    emulated = Measurement(target="t", source="qemu", instructions=1000, flash_bytes=200, ram_bytes=30)
    timed = Measurement(target="t", source="hardware", latency=Latency(median_ms=2.0, p10_ms=1.0, p90_ms=3.0, runs=9))
    assert (Goal("t").cost(emulated), Goal("t").unit(emulated)) == (1000, "instructions")
    assert (Goal("t").cost(timed), Goal("t").unit(timed)) == (2.0, "ms")
    assert (Goal("t", "flash").cost(emulated), Goal("t", "ram").cost(emulated)) == (200, 30)
    assert Goal("t", "ram").unit(emulated) == "bytes"


def test_limits() -> None:
    def takes(flash: int | None, ram: int | None) -> Measurement:
        return Measurement(target="t", source="qemu", instructions=1, flash_bytes=flash, ram_bytes=ram)

    goal = Goal("t", max_flash=100, max_ram=1200)
    assert goal.exceeded(takes(100, 1200)) is None
    assert goal.exceeded(takes(100, 1201)) == "RAM 1,201 bytes"
    assert goal.exceeded(takes(101, 1201)) == "flash 101 bytes"
    assert goal.exceeded(takes(None, None)) is None
    assert Goal("t").exceeded(takes(10**9, 10**9)) is None


def test_what_cannot_be_made_small() -> None:
    with pytest.raises(UserError, match="'speed' is nothing"):
        Goal("t", "speed")  # type: ignore[arg-type]


def test_energy_is_never_guessed() -> None:
    timed = Measurement(target="t", source="hardware", latency=Latency(median_ms=2.0, p10_ms=1.0, p90_ms=3.0, runs=9))
    with pytest.raises(UserError, match="reports no energy, and it is not estimated"):
        Goal("t", "energy").cost(timed)
    told = timed.model_copy(update={"energy": Energy(millijoules=0.25, runs=8, seconds=2.0, sensor="RAPL")})
    assert (Goal("t", "energy").cost(told), Goal("t", "energy").unit(told)) == (0.25, "mJ")
