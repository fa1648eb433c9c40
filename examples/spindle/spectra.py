"""Spectra of a milling machine's spindle, with sound tools and with worn ones.

    python spectra.py        # writes calib.npz (sound) and test.npz (both)

A spectrum is the energy in 64 bands of the vibration at the spindle's bearing, in decibels over the sensor's noise,
divided by 20. Teeth that cut make lines at the tooth frequency and its multiples; speed, teeth, depth of cut and the
machine's resonances vary. A worn tool rubs: it adds broad noise around a resonance, lifts the multiples of the turning
frequency, since teeth wear unequally, and takes a little from the cutting lines.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

BANDS = 64
_FREQUENCIES = np.geomspace(40, 8000, BANDS)


def spectrum(wear: float, rng: np.random.Generator) -> np.ndarray:
    """One spectrum.

    Args:
        wear: 0 for a sound tool, 1 for one at the end of its life.
        rng: Draws the cut.

    Returns:
        float32, shape (BANDS,).
    """
    turning = rng.uniform(60, 140)
    teeth = rng.choice([2, 3, 4])
    depth = rng.uniform(0.3, 1.0)
    energy = 10 ** (-_FREQUENCIES / 9000) * rng.uniform(1.5, 2.5)
    for order in range(1, 9):
        line = depth * 40 / order**1.2 * (1 - 0.2 * wear)
        energy += line * _line(turning * teeth * order)
        energy += depth * (0.6 + 2.5 * wear) / order * _line(turning * order)
    for resonance, width, gain in ((900, 0.2, 4.0), (2700, 0.15, 2.5)):
        energy *= 1 + gain * np.exp(-((np.log(_FREQUENCIES / resonance) / width) ** 2))
    energy += wear * depth * rng.uniform(0.6, 2.4) * np.exp(-((np.log(_FREQUENCIES / 4300) / 0.35) ** 2))
    energy *= rng.lognormal(0, 0.15, BANDS)
    return (10 * np.log10(energy) / 20).astype(np.float32)


def _line(frequency: float) -> np.ndarray:
    """A narrow line, as the bands see it."""
    return np.exp(-((np.log(_FREQUENCIES / frequency) / 0.06) ** 2))


def spectra(count: int, seed: int, worn: bool = False) -> np.ndarray:
    """Spectra of sound tools, or of worn ones; float32 (count, BANDS)."""
    rng = np.random.default_rng(seed)
    return np.stack([spectrum(rng.uniform(0.3, 1.0) if worn else 0.0, rng) for _ in range(count)])


def main() -> None:
    """Write the files that the story uses."""
    parser = argparse.ArgumentParser(description="Write calib.npz and test.npz.")
    parser.add_argument("--output", type=Path, default=Path())
    folder = parser.parse_args().output
    np.savez(folder / "calib.npz", x=spectra(200, 1))
    both = np.concatenate([spectra(400, 2), spectra(400, 3, worn=True)])
    np.savez(folder / "test.npz", x=both, worn=np.arange(800) >= 400)


if __name__ == "__main__":
    main()
