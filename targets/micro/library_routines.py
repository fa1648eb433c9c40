"""The routines that kernels call, as a source of the library or of a program of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..aot.generate import Generated
from ..emulators.tools import run
from .kernels.routines import renamed, routine_source, routines_in

UNWINDER = "__aeabi_unwind_cpp_pr0"
"""What LLVM has take exceptions through functions that call others, though nothing here raises any (Exception Handling ABI for
the Arm Architecture, section 7)."""


def with_routines(generated: Generated) -> Generated:
    """A library with the routines that its objects call, under its own prefix."""
    prefix, needed = generated.prefix, routines_in(path.read_bytes() for path in generated.objects)
    if not needed:
        return generated
    options = [part for name in needed for part in ("--redefine-sym", f"{name}={renamed(name, prefix)}")]
    options += ["--remove-section=.ARM.exidx*", "--remove-section=.rel.ARM.exidx*", f"--strip-symbol={UNWINDER}"]
    for path in generated.objects:
        run(["arm-none-eabi-objcopy", *options, path], what="renaming routines", timeout=60)
    source = generated.folder / f"{prefix}_routines.c"
    source.write_text(routine_source(needed, prefix))
    return replace(generated, sources=(*generated.sources, source))


def trial_routines(folder: Path, objects: Sequence[bytes]) -> list[Path]:
    """The sources of what candidates call, written into a folder; none where they call nothing."""
    needed = routines_in(objects)
    if not needed:
        return []
    source = folder / "routines.c"
    source.write_text(routine_source(needed) + f"\nvoid {UNWINDER}(void);\nvoid {UNWINDER}(void) {{}}\n")
    return [source]
