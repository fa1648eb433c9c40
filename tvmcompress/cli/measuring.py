"""Tuning, building and measuring with progress shown, for the commands that do so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .progress import bars

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..measuring.record import BuildRecord
    from ..model import Model


def measure_all(
    models: Mapping[str, Model],
    targets: Sequence[str],
    samples: Dataset | None,
    output: Path | None,
    *,
    options: Mapping[str, Mapping[str, Any]],
    tune: int = 0,
    runs: int | None = None,
    skip_missing: bool = False,
) -> list[BuildRecord]:
    """Tune each model if asked to, then build and measure each on each target, with the `options` of its family."""
    if not targets:
        return []
    from ..measuring.benchmarking import benchmark

    if tune:
        for name, model in models.items():
            _tune(name, model, tune)
    measuring: dict[str, Any] = {**options["x86"], **({"runs": runs} if runs is not None else {})}
    total = len(models) * len(targets)
    with bars() as bar:
        done = 0

        def report(model: str, target: str, what: str) -> None:
            nonlocal done
            bar(f"{target}: {model}, {what}", 0, 1)
            if what == "build":
                bar("models on targets", done, total)
                done += 1

        return benchmark(
            models,
            targets,
            samples=samples,
            output=output,
            skip_missing=skip_missing,
            build_options=options,
            measure_options={"x86": measuring},
            on_build=report,
        )


def _tune(name: str, model: Model, trials: int) -> None:
    from ..tuning.progress import TuningProgress
    from ..tuning.tune import tune

    with bars() as bar:

        def report(progress: TuningProgress) -> None:
            bar(f"tune {name}", progress.total_trial, progress.total_trials)

        tune(model.module, "x86", trials, on_progress=report)
