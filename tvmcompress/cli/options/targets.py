"""The options that say for which targets a model is built, and how."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import completion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...targets.base import Target

_targets = partial(typer.Option, rich_help_panel="Targets")

WhichBuildOption = Annotated[
    str | None, typer.Option("--target", "-t", help="Which build of the folder, where it holds several.")
]


@dataclass(frozen=True)
class BuildOptions:
    """What is built."""

    target: Annotated[
        list[str] | None,
        _targets("--target", "-t", help="Build and measure for this target (repeatable).", autocompletion=completion.targets),
    ] = None
    tune: Annotated[int, _targets(min=0, metavar="N", help="Try N schedules or kernels first, see `tvmcompress tune`.")] = 0
    threads: Annotated[
        int | None, _targets(min=1, help="Threads of an inference on x86, and the most that a library for Cortex-A may use.")
    ] = None
    patch_wise: Annotated[
        bool,
        _targets("--patch-wise", help="Compute the first layers patch by patch where that takes less RAM (Cortex-M, int8)."),
    ] = False
    emit: Annotated[
        str | None,
        _targets(
            metavar="object|c",
            help="Kernels for Cortex as object files (the default, faster), or as C99 source for any compiler.",
        ),
    ] = None
    prefix: Annotated[
        str | None,
        _targets(
            metavar="NAME",
            help="What all C names and files start with, so that one firmware links several models (Cortex).",
            show_default="model",
        ),
    ] = None
    soft_float: Annotated[
        bool,
        _targets(
            help="Compute float layers by library calls on a core without a floating-point unit, or refuse them.",
        ),
    ] = True
    spend_flash: Annotated[
        str | None,
        _targets(
            metavar="SIZE",
            help="Flash to spend for fewer instructions, on weights of 16 bits where they save most (Cortex-M4, M7, M33; 8K).",
        ),
    ] = None
    sparse_weights: Annotated[
        bool,
        _targets(
            "--sparse-weights/--dense-weights",
            help="Store int8 weights of pattern 2:4 in 2.5 bytes for four: less flash, more instructions (Cortex-M).",
        ),
    ] = False

    float16: Annotated[
        bool,
        _targets("--float16", help="Compute a float model in float16 (64-bit Cortex-A from Armv8.2 on, such as cortex-a76)."),
    ] = False

    def by_family(self, targets: Sequence[str], *, skip_missing: bool = False) -> dict[str, dict[str, Any]]:
        """What the options mean for each family of targets; refuses at the start what would be refused after the work.

        Raises:
            UserError: A target is unknown, no target has a use for an option, or a value is none.
            MissingToolError: A tool of a target is missing.
        """
        from ...errors import UserError
        from ...targets.aot.generate import EMITTED, check_prefix
        from ...targets.registry import get_target
        from .recipe_values import size_of

        chosen = [get_target(name) for name in targets]
        if not skip_missing:
            for target in chosen:
                target.require_tools()
        families = {target.description.family for target in chosen}
        if self.emit is not None and self.emit not in EMITTED:
            raise UserError(f"--emit {self.emit} is neither {' nor '.join(EMITTED)}")
        if self.prefix is not None:
            check_prefix(self.prefix)
        if self.tune and not any(_can_be_tuned(target) for target in chosen):
            raise UserError("--tune tries schedules and kernels, of which these targets have none to try; add --target x86")
        cortex = {"cortex-m", "cortex-a"}
        for option, given, takers, sentence in (
            ("--emit", self.emit, cortex, "says what is written for Cortex-M and Cortex-A; add --target cortex-m4"),
            ("--prefix", self.prefix, cortex, "starts the C names of Cortex-M and Cortex-A; add --target cortex-m4"),
            ("--patch-wise", self.patch_wise, {"cortex-m"}, _MICRO),
            ("--no-soft-float", not self.soft_float, {"cortex-m"}, _MICRO),
            ("--spend-flash", self.spend_flash, {"cortex-m"}, _MICRO),
            ("--sparse-weights", self.sparse_weights, {"cortex-m"}, _MICRO),
            ("--threads", self.threads, {"x86", "cortex-a"}, "is for x86 and Cortex-A; add --target x86"),
            ("--float16", self.float16, {"cortex-a"}, "is for 64-bit Cortex-A from Armv8.2 on; add --target cortex-a76"),
        ):
            if given and not families & takers:
                raise UserError(f"{option} {sentence}")
        if self.threads is not None and "cortex-a" in families:
            from ...targets.arm.target import check_threads

            check_threads(self.threads)
        if self.float16:
            from ...targets.arm.halves import check_halves

            for target in chosen:
                if target.description.family == "cortex-a":
                    check_halves(target.description)
        named = (("emit", self.emit), ("prefix", self.prefix))
        generated = {name: value for name, value in named if value is not None}
        micro: dict[str, Any] = dict(generated)
        if self.patch_wise:
            micro["patch_wise"] = True
        if not self.soft_float:
            micro["soft_float"] = False
        if self.spend_flash is not None:
            micro["spend_flash"] = size_of("spend_flash", self.spend_flash, least=0)
        if self.sparse_weights:
            micro["sparse_weights"] = True
        threads = {} if self.threads is None else {"threads": self.threads}
        halves = {"float16": True} if self.float16 else {}
        return {"x86": threads, "cortex-a": {**generated, **threads, **halves}, "cortex-m": micro}


_MICRO = "is for microcontrollers; add --target cortex-m4"


def _can_be_tuned(target: Target) -> bool:
    from ...targets.trials.tunable import TunableTarget

    return target.description.family == "x86" or (isinstance(target, TunableTarget) and bool(target.kernel_passes()))
