"""The arena over time: bytes upwards, steps of the network to the right."""

from __future__ import annotations

from markupsafe import Markup

from ...targets.measurement import MemoryPlan
from ..units import size
from .svg import COLORS, WIDTH, Axis, drawing, element, shortened, text

_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 54, 8, 10, 38, 280
_LETTER = 6.2


def arena_map(plan: MemoryPlan, arena_bytes: int, least: int) -> Markup:
    """A box for each buffer, as long as it is in use.

    Args:
        plan: What lies where, and when.
        arena_bytes: Of the whole arena.
        least: The most bytes in use at once.
    """
    ground = float(_HEIGHT - _BOTTOM)
    up = Axis((0.0, float(arena_bytes)), ground, _TOP)
    count = len(plan.steps)
    step = (WIDTH - _LEFT - _RIGHT) / max(count, 1)
    parts: list[Markup] = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = up.at(share * arena_bytes)
        parts.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=float(at), y2=float(at), class_="grid"))
        parts.append(text(_LEFT - 5, at + 4, size(share * arena_bytes), "end", "tick"))
    colors: dict[str, str] = {}
    for buffer in sorted(plan.buffers, key=lambda b: (b.first, b.offset)):
        name = buffer.holds[-1] if buffer.holds else "buffer"
        color = COLORS[-1] if buffer.workspace else colors.setdefault(name, COLORS[len(colors) % (len(COLORS) - 1)])
        left, right = _LEFT + buffer.first * step, _LEFT + (buffer.last + 1) * step
        top, bottom = up.at(min(buffer.offset + buffer.bytes, arena_bytes)), up.at(buffer.offset)
        what = "workspace of " if buffer.workspace else ""
        steps = f"step {buffer.first + 1}" + (f" to {buffer.last + 1}" if buffer.last > buffer.first else "")
        words = f"{what}{', '.join(buffer.holds)}: {buffer.bytes:,} bytes at {buffer.offset:,}, {steps}"
        parts.append(
            element(
                "rect",
                element("title", words),
                x=float(left + 0.5),
                y=float(top),
                width=float(max(right - left - 1, 0.5)),
                height=float(max(bottom - top, 0.8)),
                fill=color,
                class_="buffer workspace" if buffer.workspace else "buffer",
            )
        )
        room = int((right - left - 6) / _LETTER)
        if room >= min(len(name), 7) and bottom - top >= 13 and not buffer.workspace:
            parts.append(text((left + right) / 2, (top + bottom) / 2 + 4, shortened(name, room), "middle", "inside"))
    if 0 < least < arena_bytes:
        at = up.at(least)
        parts.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=float(at), y2=float(at), class_="bound"))
    every = max(1, -(-count // 16))
    for number in range(0, count, every):
        parts.append(text(_LEFT + (number + 0.5) * step, ground + 15, str(number + 1), "middle", "tick"))
    parts.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=ground, y2=ground, class_="axis"))
    parts.append(text((_LEFT + WIDTH - _RIGHT) / 2, _HEIGHT - 6, "steps of the network, in order", "middle", "words"))
    return drawing(_HEIGHT, f"The arena of {size(arena_bytes)} over {count} steps", parts)


def fullest_step(plan: MemoryPlan) -> tuple[int, str]:
    """Where most bytes are in use: the step, from one, and its layer."""
    used = [sum(b.bytes for b in plan.buffers if b.first <= step <= b.last) for step in range(len(plan.steps))]
    step = max(range(len(used)), key=used.__getitem__)
    return step + 1, plan.steps[step]
