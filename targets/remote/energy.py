"""The energy of inferences, where a machine has a counter or a sensor for it: read by runtime/energy.c, here or on a board."""

from __future__ import annotations

import functools
import math
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...passes._tvm import tvm
from ..measurement import Energy
from .facts import helper

SECONDS = 2.0
"""For which inferences run while energy is counted: sensors of power are slow."""

_SYSFS = "TVMCOMPRESS_SYSFS"
_COUNTERS = ("class/powercap/intel-rapl:0/energy_uj", "class/hwmon/hwmon*/energy1_input", "class/hwmon/hwmon*/power1_input")
_CURRENTS = "class/hwmon/hwmon*/curr1_input"


def here() -> Any | None:
    """What counts on this machine; None where nothing does, or where it may not be read."""
    root = Path(os.environ.get(_SYSFS, "/sys"))
    found = [path for pattern in (*_COUNTERS, _CURRENTS) for path in root.glob(pattern)]
    return _loaded() if any(os.access(path, os.R_OK) for path in found) else None


@functools.cache
def _loaded() -> Any:
    with tempfile.TemporaryDirectory(prefix="tvmcompress-energy-") as scratch:
        library = Path(scratch) / "energy.so"
        library.write_bytes(helper(platform.machine()))
        return tvm.runtime.load_module(str(library))


def energy_of(meter: Any, run: Callable[[int], object], milliseconds: float) -> Energy | None:
    """Count the energy of inferences that run for two seconds.

    Args:
        meter: The module of runtime/energy.c, on this machine or a board.
        run: Runs so many inferences.
        milliseconds: That one takes.

    Returns:
        None where the machine has neither a counter nor a sensor.
    """
    runs = max(1, math.ceil(1e3 * SECONDS / max(milliseconds, 1e-3)))
    if meter["meter_start"]() != 0:
        return None
    try:
        run(runs)
    finally:
        joules = float(meter["meter_stop"]())
    return Energy(
        millijoules=1e3 * joules / runs, runs=runs, seconds=round(float(meter["meter_seconds"]()), 3), sensor=_sensor(meter)
    )


def _sensor(meter: Any) -> str:
    name = b""
    while b"\0" not in name:
        name += int(meter["meter_sensor"](len(name) // 4)).to_bytes(4, "little")
    return name.split(b"\0")[0].decode("utf-8", "replace")
