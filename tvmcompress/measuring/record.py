"""What is kept of a build and its measurement."""

from __future__ import annotations

from ..targets.measurement import Latency, Measurement
from ..targets.record import Record
from ..tuning.progress import TuningResult


class RuntimeResult(Record):
    """A model in another runtime.

    Attributes:
        runtime: Its name.
        version: Of its package.
        latency: Of an inference, in turns with ours; None where it cannot run the model.
        largest_error: How far its first output is from the model's.
        problem: Why there are no figures.
    """

    runtime: str
    version: str
    latency: Latency | None = None
    largest_error: float | None = None
    problem: str | None = None


class BuildRecord(Record):
    """One model on one target.

    Attributes:
        model: Name of the model.
        target: Name of the target.
        measurement: What was measured; None where it could not be built.
        build_seconds: How long the build took.
        checked_samples: Samples on which the built model was compared with the model.
        largest_error: The largest difference found; 0 for an integer model, whose bytes are equal.
        problem: Why there is no measurement.
        notes: Options of the build that changed nothing, a sentence each.
        exit_code: What the command line makes of the problem: 0 where there is none or the target was to be left out, else
            1 a bug, 2 the user's input, 3 a board that the model does not fit, 5 a tool that is missing or failed.
        runtimes: The same model in other runtimes, timed in turns with this build.
        tuning: What was found by tuning for it in this run; None where there was none.
    """

    model: str
    target: str
    measurement: Measurement | None = None
    build_seconds: float | None = None
    checked_samples: int = 0
    largest_error: float | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()
    exit_code: int = 0
    tuning: TuningResult | None = None
    runtimes: tuple[RuntimeResult, ...] = ()
