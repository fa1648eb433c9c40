"""How far the joints of a robot arm are from where its encoders say.

    python arm.py            # writes calib.npz and test.npz

The encoders sit at the motors, before the gears. Behind them a gear gives way under torque (softly for small torques,
harder for larger ones), has play that the direction of motion takes up, a ripple with the angle, and drifts as it warms.

Inputs, 20 for each pose: six angles (rad), six speeds (rad/s), six torques (Nm), the gears' temperature and the load's
mass (°C / 10 and kg). Outputs: the errors of the six joints in milliradians.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

JOINTS = 6
_STIFFNESS = np.array([32.0, 26.0, 22.0, 12.0, 9.0, 7.0])
_PLAY = np.array([0.35, 0.4, 0.45, 0.6, 0.7, 0.8])
_LINKS = np.array([0.0, 22.0, 11.0, 3.0, 1.5, 0.5])


def poses(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Poses at random.

    Returns:
        Inputs, float32 (count, 20), and errors in milliradians, float32 (count, 6).
    """
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-1.6, 1.6, (count, JOINTS))
    speeds = rng.normal(0, 0.8, (count, JOINTS))
    warmth, load = rng.uniform(1.5, 5.5, (count, 1)), rng.uniform(0, 5, (count, 1))
    reach = np.cumsum(angles, axis=1)
    torques = _LINKS * (1 + 0.3 * load) * np.sin(reach) + 2.5 * speeds + rng.normal(0, 0.4, (count, JOINTS))
    bent = torques / _STIFFNESS / (1 + 0.25 * np.tanh(np.abs(torques) / 8))
    play = _PLAY * np.tanh(6 * speeds)
    ripple = 0.25 * np.sin(5 * angles + np.arange(JOINTS))
    errors = bent + play + ripple * (1 + 0.1 * warmth) + 0.12 * (warmth - 2) * np.cos(angles)
    inputs = np.concatenate([angles, speeds, torques, warmth, load], axis=1)
    return inputs.astype(np.float32), (errors + rng.normal(0, 0.03, errors.shape)).astype(np.float32)


def main() -> None:
    """Write the files that the story uses."""
    parser = argparse.ArgumentParser(description="Write calib.npz and test.npz.")
    parser.add_argument("--output", type=Path, default=Path())
    folder = parser.parse_args().output
    np.savez(folder / "calib.npz", x=poses(300, 1)[0])
    x, errors = poses(1000, 2)
    np.savez(folder / "test.npz", x=x, errors=errors)


if __name__ == "__main__":
    main()
