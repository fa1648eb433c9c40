"""The options that say how time is measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer

_timing = partial(typer.Option, rich_help_panel="Timing")


@dataclass(frozen=True)
class TimingOptions:
    """How often models run, and against whom, where time is measured: on x86 and on boards."""

    runs: Annotated[
        int | None, _timing("--runs", min=1, help="Inferences to time on x86 and on boards.", show_default="200")
    ] = None
    warmup: Annotated[
        int | None, _timing("--warmup", min=0, help="Inferences before, which are not timed.", show_default="20")
    ] = None
    duration: Annotated[
        float | None, _timing("--duration", min=0.001, help="Go on for so many seconds, in rounds of --runs (x86, here).")
    ] = None
    percentile: Annotated[
        list[float] | None,
        _timing("--percentile", min=0, max=100, help="Also show this percentile of the times (repeatable)."),
    ] = None
    compare: Annotated[
        str | None,
        _timing(
            "--compare",
            metavar="onnxruntime,openvino,litert",
            help="Time these runtimes on the same model too, in turns with ours (x86, here; those installed).",
        ),
    ] = None

    @property
    def measuring(self) -> dict[str, Any]:
        """The options of `measure` that were given."""
        given = {"runs": self.runs, "warm_up": self.warmup, "duration": self.duration}
        return {name: value for name, value in given.items() if value is not None}

    def runtimes(self, targets: list[str], boards: bool) -> tuple[str, ...]:
        """The runtimes to compare with; refuses what says nothing here.

        Raises:
            UserError: Options say nothing for these targets, or a runtime is unknown.
            MissingToolError: A runtime is not installed.
        """
        from ...errors import UserError
        from ...measuring.runtimes import check_runtimes
        from ...targets.registry import get_target

        families = {get_target(name).description.family for name in targets}
        timed = "x86" in families or boards
        here = "x86" in families and not boards
        for option, value, has in (
            ("--runs", self.runs, timed), ("--warmup", self.warmup, timed), ("--duration", self.duration, here),
            ("--percentile", self.percentile, timed), ("--compare", self.compare, here),
        ):  # fmt: skip
            if value and not has:
                where = "x86 on this machine" if has is here and timed else "x86 and on boards"
                raise UserError(f"{option} is about time, which is measured on {where}; instructions are counted exactly")
        names = tuple(name.strip() for name in (self.compare or "").split(",") if name.strip())
        check_runtimes(names)
        return names
