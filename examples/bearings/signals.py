"""Vibrations of a rolling bearing, sound or with a fault, as an accelerometer on its housing sees them.

    python signals.py        # writes calib.npz and test.npz

A fault makes an impulse each time that a ball passes it, and each impulse rings the housing's resonance. How often that
is follows from the geometry: 3.585 times a turn for the outer race, 5.415 for the inner race (strongest while the fault is
in the load zone, once a turn), 4.714 for a ball (a SKF 6205, the bearing of the Case Western data). The balls slip a
little, so that no two intervals are alike. Shaft, a second machine and noise lie over it. Speed, load, resonance and the
size of the fault are drawn for each window.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

CLASSES = ("sound", "outer race", "inner race", "ball")
RATE = 12_000
"""Samples a second."""
WINDOW = 1024
"""Samples that the network sees at once: 85 ms, two to three turns."""
_PER_TURN = (0.0, 3.585, 5.415, 4.714)


def window(kind: int, rng: np.random.Generator) -> np.ndarray:
    """One window of acceleration in units of g.

    Args:
        kind: Which of `CLASSES`.
        rng: Draws everything else.

    Returns:
        float32, shape (WINDOW,).
    """
    time = np.arange(WINDOW) / RATE
    turns = rng.uniform(26, 33)
    signal = sum(
        rng.uniform(0.02, 0.1) * np.sin(2 * np.pi * order * turns * time + rng.uniform(0, 2 * np.pi)) for order in (1, 2, 3)
    )
    hum = rng.uniform(300, 900)
    signal = signal + rng.uniform(0, 0.08) * np.sin(2 * np.pi * hum * time + rng.uniform(0, 2 * np.pi))
    if kind:
        signal = signal + _impulses(kind, turns, time, rng)
    return (signal + rng.normal(0, rng.uniform(0.06, 0.14), WINDOW)).astype(np.float32)


def _impulses(kind: int, turns: float, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a fault adds: one decaying oscillation after each passage of a ball."""
    interval = 1 / (turns * _PER_TURN[kind])
    resonance, decay = rng.uniform(2600, 3600), rng.uniform(700, 1100)
    size = rng.uniform(0.25, 1.0)
    ringing = np.zeros(len(time))
    at = rng.uniform(-interval, 0)
    while at < time[-1]:
        since = np.maximum(time - at, 0.0)
        strength = size * rng.uniform(0.85, 1.15)
        if kind == 2:
            strength *= 0.55 + 0.45 * np.cos(2 * np.pi * turns * at)
        elif kind == 3:
            strength *= 0.65 + 0.35 * np.cos(2 * np.pi * 0.398 * turns * at)
        ringing += np.where(time >= at, strength * np.exp(-decay * since) * np.sin(2 * np.pi * resonance * since), 0.0)
        at += interval * rng.normal(1, 0.01)
    return ringing


def windows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of all classes in turn.

    Returns:
        Windows, float32 (count, 1, WINDOW), and which of `CLASSES` each is, int64 (count,).
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    return np.stack([window(int(label), rng) for label in labels])[:, None], labels


def main() -> None:
    """Write the files that the story uses."""
    parser = argparse.ArgumentParser(description="Write calib.npz and test.npz.")
    parser.add_argument("--output", type=Path, default=Path())
    folder = parser.parse_args().output
    for name, count, seed in (("calib", 200, 1), ("test", 800, 2)):
        x, y = windows(count, seed)
        np.savez(folder / f"{name}.npz", x=x, y=y)


if __name__ == "__main__":
    main()
