"""Autotuning: measuring candidate schedules of a model's functions and keeping the best in a tuning log."""

from .progress import TaskResult, TuningProgress, TuningResult
from .tune import tune

__all__ = ["TaskResult", "TuningProgress", "TuningResult", "tune"]
