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


def check_targets(targets: Sequence[str], tune: int, skip_missing: bool = False) -> None:
    """Refuse at the start what would be refused after the work is done.

    Raises:
        UserError: A target is unknown, or there is none that can be tuned.
        MissingToolError: A tool of a target is missing.
    """
    from ..errors import UserError
    from ..targets.registry import get_target

    chosen = [get_target(name) for name in targets]
    if not skip_missing:
        for target in chosen:
            target.require_tools()
    if tune and not any(target.description.family == "x86" for target in chosen):
        raise UserError("--tune tries schedules on x86; add --target x86")


def build_options(
    targets: Sequence[str],
    *,
    threads: int | None = None,
    patch_wise: bool = False,
    emit: str | None = None,
    soft_float: bool = True,
    spend_flash: str | None = None,
    sparse_weights: bool = False,
) -> dict[str, dict[str, Any]]:
    """What options of the command line mean for each family of targets.

    Raises:
        UserError: An option that no target has a use for, or a value that there is not.
    """
    from ..errors import UserError
    from ..targets.aot.generate import EMITTED
    from ..targets.registry import get_target
    from .recipe_options import size_of

    families = {get_target(name).description.family for name in targets}
    if emit is not None and emit not in EMITTED:
        raise UserError(f"--emit {emit} is neither {' nor '.join(EMITTED)}")
    if emit is not None and not families & {"cortex-m", "cortex-a"}:
        raise UserError("--emit says what is written for Cortex-M and Cortex-A; add --target cortex-m4")
    given_micro = (
        ("--patch-wise", patch_wise),
        ("--no-soft-float", not soft_float),
        ("--spend-flash", spend_flash is not None),
        ("--sparse-weights", sparse_weights),
    )
    for option, given in given_micro:
        if given and "cortex-m" not in families:
            raise UserError(f"{option} is for microcontrollers; add --target cortex-m4")
    emitting = {} if emit is None else {"emit": emit}
    micro: dict[str, Any] = dict(emitting)
    if patch_wise:
        micro["patch_wise"] = True
    if not soft_float:
        micro["soft_float"] = False
    if spend_flash is not None:
        micro["spend_flash"] = size_of("spend_flash", spend_flash)
    if sparse_weights:
        micro["sparse_weights"] = True
    return {"x86": {} if threads is None else {"threads": threads}, "cortex-a": emitting, "cortex-m": micro}


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

        def tell(model: str, target: str, what: str) -> None:
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
            on_build=tell,
        )


def _tune(name: str, model: Model, trials: int) -> None:
    from ..tuning.progress import TuningProgress
    from ..tuning.tune import tune

    with bars() as bar:

        def tell(progress: TuningProgress) -> None:
            bar(f"tune {name}", progress.total_trial, progress.total_trials)

        tune(model.module, "x86", trials, on_progress=tell)
