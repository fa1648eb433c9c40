"""Tuning, building and measuring with progress shown, for the commands that do so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import print_line
from .progress import bars

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..measuring.record import BuildRecord
    from ..model import Model
    from ..targets.remote.boards import BoardPool
    from ..tuning.progress import TuningResult


def measure_all(
    models: Mapping[str, Model],
    targets: Sequence[str],
    samples: Dataset | None,
    output: Path | None,
    *,
    options: Mapping[str, Mapping[str, Any]],
    tune: int = 0,
    timing: Mapping[str, Any] | None = None,
    compare: Sequence[str] = (),
    files: Mapping[str, Path] | None = None,
    log: Path | None = None,
    skip_missing: bool = False,
    boards: BoardPool | None = None,
) -> list[BuildRecord]:
    """Tune each model if asked to, then build and measure each on each target, with the `options` of its family.

    The rest is as `measuring.benchmarking.benchmark` has it.
    """
    if not targets:
        return []
    from ..measuring.benchmarking import benchmark
    from ..measuring.measured_log import MeasuredLog

    tuned: dict[tuple[str, str], TuningResult | None] = {}
    if tune:
        for target in targets:
            tuned.update({(name, target): _tune(name, model, target, tune) for name, model in models.items()})
            if not any(tuned[name, target] for name in models):
                print_line("Warning", f"--tune changed nothing for {target}: it has kernels to tune for int8 models only")
    timed = dict(timing or {})
    measuring: dict[str, dict[str, Any]] = {"x86": {**options["x86"], **timed}}
    measuring["cortex-a"] = {"cycles": True} if boards is None else timed
    measuring["cortex-m"] = {"cycles": True}
    total = len(models) * len(targets)
    with bars() as bar:
        done = 0

        def report(model: str, target: str, what: str) -> None:
            nonlocal done
            bar(f"{target}: {model}, {what}", 0, 1)
            if what == "build":
                bar("models on targets", done, total)
                done += 1

        builds = benchmark(
            models,
            targets,
            samples=samples,
            output=output,
            skip_missing=skip_missing,
            build_options=options,
            measure_options=measuring,
            boards=boards,
            compare=compare,
            files=files,
            log=None if log is None else MeasuredLog(log),
            on_build=report,
        )
    found = {key: result for key, result in tuned.items() if result is not None}
    return [build.model_copy(update={"tuning": found.get((build.model, build.target))}) for build in builds]


def _tune(name: str, model: Model, target: str, trials: int) -> TuningResult | None:
    """Tune a model for a target, if there is something to tune: on Cortex what is quantized, on cores with kernels."""
    from ..compression import is_quantized
    from ..targets.registry import get_target
    from ..targets.trials.tunable import TunableTarget
    from ..tuning.tune import tune
    from .tune import reporter

    described = get_target(target)
    if isinstance(described, TunableTarget) and not (is_quantized(model) and described.kernel_passes()):
        return None
    with bars() as bar:
        return tune(model, target, trials, on_progress=reporter(bar, f"{name}, {target}"))
