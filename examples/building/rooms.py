"""A room of a building as its sensor sees it: empty, somebody working, or a meeting.

    python rooms.py          # writes calib.npz and test.npz

Four hours, one value each five minutes, of carbon dioxide, temperature, humidity and light, and beside them what the clock
says. People breathe out 19 l of carbon dioxide an hour, 90 g of water, 100 W of heat; ventilation takes them away, at a
rate that is another one in each room; daylight comes through windows whether somebody is there or not, lamps only mostly.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

CLASSES = ("empty", "somebody", "meeting")
STEPS = 48
_HOURS = 5 / 60


def hours(kind: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The last four hours of a room.

    Args:
        kind: Which of `CLASSES` the room is at the end.
        rng: Draws everything else.

    Returns:
        `series`, (4, STEPS): carbon dioxide (ppm / 400), temperature (°C / 10 - 2), humidity (share), light (klx).
        `calendar`, (4,): sine and cosine of the hour, 1 on weekends, 1 in holidays.
    """
    weekend, holiday = rng.random() < (0.35 if kind == 0 else 0.08), rng.random() < (0.2 if kind == 0 else 0.05)
    end = rng.uniform(6, 23) if kind == 0 else rng.normal(13.5, 3)
    people = np.zeros(STEPS)
    start = rng.integers(STEPS - 30, STEPS - 5)
    count = (0, rng.integers(1, 3), rng.integers(4, 11))[kind]
    people[start:] = count
    if rng.random() < 0.5:
        first = rng.integers(0, 12)
        people[first : first + rng.integers(6, 18)] = rng.integers(1, 9)
        people[start:] = count
    volume, changes = rng.uniform(60, 150), rng.uniform(0.5, 3.0)
    carbon, warmth, water = rng.uniform(420, 600), rng.uniform(19, 23), rng.uniform(0.3, 0.5)
    rows = []
    for step in range(STEPS):
        clock = end - (STEPS - 1 - step) * _HOURS
        carbon += _HOURS * (people[step] * 19_000 / volume - changes * (carbon - 420))
        warmth += _HOURS * (people[step] * 0.1 * 18 / volume - 0.25 * (warmth - 21))
        water += _HOURS * (people[step] * 0.09 * 0.6 / volume * 10 - changes * 0.3 * (water - 0.4))
        daylight = max(0.0, np.sin((clock - 6.5) / 12 * np.pi)) * rng.uniform(0.2, 0.5)
        lamps = 0.4 if people[step] and rng.random() < 0.9 else 0.0
        rows.append([carbon / 400, warmth / 10 - 2, water, daylight + lamps])
    series = np.array(rows).T + rng.normal(0, 1, (4, STEPS)) * np.array([[0.04], [0.02], [0.01], [0.02]])
    return series, np.array([np.sin(end / 12 * np.pi), np.cos(end / 12 * np.pi), weekend, holiday])


def rooms(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rooms of all classes in turn.

    Returns:
        float32 (count, 4, STEPS), float32 (count, 4), and which of `CLASSES` each is, int64 (count,).
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    series, calendar = zip(*(hours(int(label), rng) for label in labels))
    return np.stack(series).astype(np.float32), np.stack(calendar).astype(np.float32), labels


def main() -> None:
    """Write the files that the story uses: arrays called like the network's inputs, and labels."""
    parser = argparse.ArgumentParser(description="Write calib.npz and test.npz.")
    parser.add_argument("--output", type=Path, default=Path())
    folder = parser.parse_args().output
    for name, count, seed in (("calib", 200, 1), ("test", 900, 2)):
        series, calendar, labels = rooms(count, seed)
        np.savez(folder / f"{name}.npz", series=series, calendar=calendar, y=labels)


if __name__ == "__main__":
    main()
