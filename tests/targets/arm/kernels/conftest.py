"""Fixtures for the tests of Cortex-A's kernels."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the test only."""
    return np.random.default_rng(list(request.node.name.encode()))
