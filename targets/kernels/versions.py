"""Which version each family's kernels are of, so that what was measured of others is passed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VERSIONS = {"dsp": 2, "helium": 2, "neon": 2, "scalar": 1, "x86": 1}
"""By family; to be raised when what was measured of its kernels no longer holds."""


def is_current(workload: Mapping[str, Any]) -> bool:
    """Whether a workload, as a log keys it, is of today's kernels."""
    return VERSIONS.get(str(workload.get("family")), -1) == workload.get("version")
