"""What is kept of a build and its measurement."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ..targets.base import Measurement


class BuildRecord(BaseModel):
    """One model on one target.

    Attributes:
        model: Name of the model.
        target: Name of the target.
        measurement: What was measured; None where it could not be built.
        build_seconds: How long the build took.
        checked_samples: Samples on which the built model was compared with the model.
        largest_error: The largest difference found; 0 for an integer model, whose bytes are equal.
        problem: Why there is no measurement.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    target: str
    measurement: Measurement | None = None
    build_seconds: float | None = None
    checked_samples: int = 0
    largest_error: float | None = None
    problem: str | None = None
