"""The memory map of what was built for devices without an allocator: what lies in flash and what in RAM."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ..measuring.record import BuildRecord
from ..targets.measurement import Measurement
from .tables import plain_table
from .units import size


def memory_map(builds: Sequence[BuildRecord]) -> RenderableType:
    """One row a build with a planned arena, in bytes; nothing where there is none."""
    table = plain_table("Memory, bytes")
    for heading in ("model", "target"):
        table.add_column(heading, style="bold" if heading == "model" else None, no_wrap=True)
    table.add_figures("code", "constants", "arena", "at least", "stack")
    patches = []
    for build in builds:
        measured = build.measurement
        if measured is None or measured.arena_bytes is None or measured.arena_lower_bound is None:
            continue
        values = (
            *(measured.code_bytes, measured.constant_bytes, measured.arena_bytes, measured.arena_lower_bound),
            measured.stack_bytes,
        )
        table.add_row(build.model, build.target, *("" if value is None else f"{value:,}" for value in values))
        if measured.patches is not None:
            name = f"{build.model} on {build.target}"
            patches.append(Text.assemble((name, "bold"), f": {measured.patches.sentence(measured.arena_bytes)}"))
    if not table.row_count:
        return Text()
    note = Text("At least: the most bytes of the arena in use at once; no plan is smaller.", style="dim")
    return Group(Text(), table, *patches, note)


def flash_parts(measured: Measurement) -> str:
    """Bytes of flash, with what they are."""
    if measured.flash_bytes is None:
        return ""
    parts = _parts(code=measured.code_bytes, constants=measured.constant_bytes)
    return size(measured.flash_bytes) + (f" ({parts})" if parts else "")


def ram_parts(measured: Measurement) -> str:
    """Bytes of RAM, with what they are."""
    if measured.ram_bytes is None:
        return ""
    parts = _parts(arena=measured.arena_bytes, stack=measured.stack_bytes)
    bound = measured.arena_lower_bound
    return size(measured.ram_bytes) + (f" ({parts}{f'; an arena of at least {bound:,}' if bound else ''})" if parts else "")


def _parts(**parts: int | None) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in parts.items() if value is not None)
