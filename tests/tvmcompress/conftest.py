"""The digits example, as several test files use it."""

from __future__ import annotations

from pathlib import Path

import pytest

import tvmcompress
from tvmcompress import Model

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="session")
def digits() -> Path:
    """The folder of the digits example."""
    return EXAMPLES


@pytest.fixture(scope="session")
def digits_model() -> Model:
    """The trained network of the digits example."""
    return tvmcompress.load(EXAMPLES / "digits.onnx")
