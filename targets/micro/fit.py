"""Whether a model fits a board, and if not, by how much it does not, and what would make it fit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...passes.errors import LimitError
from ..aot.generate import Generated
from ..aot.plan import usage
from ..base import TargetDescription
from ..registry import list_targets
from .project import STACK_BYTES

Compiled = Callable[[Path, bool], Generated]
"""Compiles the model into a folder, patch-wise or not."""

_TIGHT = 0.05
"""Less than this share of the weights is as good as none."""


def check_fit(description: TargetDescription, generated: Generated, code: int, compiled: Compiled) -> None:
    """Refuse a model that does not fit.

    Args:
        description: The board; what has size 0 is not limited.
        generated: The library.
        code: Bytes of its code, 0 where it is not compiled yet.
        compiled: Compiles the model anew, to see what patch-wise execution would save.

    Raises:
        LimitError: It does not fit; the sentence has the figures and what would make it fit.
    """
    flash, arena = code + generated.constant_bytes, generated.arena.plan.size
    problems, remedies = [], []
    if description.flash_bytes and flash > description.flash_bytes:
        parts = f"{code:,} of code and {generated.constant_bytes:,} of constants" if code else "for its constants alone"
        problems.append(
            f"the model needs {flash:,} bytes of flash ({parts}) and {description.name} has {description.flash_bytes:,}: "
            f"{flash - description.flash_bytes:,} too many"
        )
        remedies += _smaller_constants(description, generated, code)
    if description.ram_bytes and arena + STACK_BYTES > description.ram_bytes:
        excess = arena + STACK_BYTES - description.ram_bytes
        problems.append(
            f"the model needs {arena:,} bytes of RAM for activations and {STACK_BYTES:,} for the stack, and "
            f"{description.name} has {description.ram_bytes:,}: {excess:,} too many; the most are in use {_at_peak(generated)}"
        )
        remedies += _smaller_arena(description, generated, compiled)
    if problems:
        remedies.append(_larger_boards(description, flash, arena + STACK_BYTES))
        raise LimitError(f"{'; and '.join(problems)}. What would make it fit: {'; '.join(remedies)}")


def _smaller_constants(description: TargetDescription, generated: Generated, code: int) -> list[str]:
    room, constants = description.flash_bytes - code, generated.constant_bytes
    floats = sum(value.nbytes for value in generated.program.constants.values() if value.dtype == np.float32)
    found = []
    if 2 * floats > constants:
        quarter = constants - floats + floats // 4
        found.append(f"weights in int8 (--quantize int8), {quarter:,} bytes of them, which {_fits(quarter, room)}")
    if room >= _TIGHT * constants:
        found.append(
            f"constants of {100 * room / constants:.0f} % of their size: prune to it with --max-flash {description.flash_bytes}"
        )
    elif not found:
        found.append("a smaller network, since the code leaves no room for weights")
    return found


def _smaller_arena(description: TargetDescription, generated: Generated, compiled: Compiled) -> list[str]:
    room, arena = description.ram_bytes - STACK_BYTES, generated.arena.plan.size
    if any(spec.dtype.startswith("float") for spec in generated.inputs):
        quarter = arena // 4
        less = f"activations in int8 (--quantize int8), about {quarter:,} bytes, which {_fits(quarter, room)}"
        return [less, _pruned(description, arena)]
    found = []
    if generated.patches is None:
        with tempfile.TemporaryDirectory() as scratch:
            patches = compiled(Path(scratch), True)
        size = patches.arena.plan.size
        if size < arena:
            found.append(f"the first layers in patches (--patch-wise), {size:,} bytes, which {_fits(size, room)}")
    return [*found, _pruned(description, arena)]


def _fits(size: int, room: int) -> str:
    return "fits" if size <= room else f"is still {size - room:,} over"


def _pruned(description: TargetDescription, arena: int) -> str:
    room = description.ram_bytes - STACK_BYTES
    if room < _TIGHT * arena:
        return "a smaller input"
    share = f"{100 * room / arena:.0f} % of their size"
    return f"activations of {share}: prune to it with --max-ram {room}, or lower the input's size"


def _at_peak(generated: Generated) -> str:
    """Where the arena is fullest."""
    in_use = usage(generated.arena.buffers)
    step = max(in_use, key=in_use.__getitem__)
    if step < 0:
        return "by the inputs"
    return f"at layer '{generated.program.steps[step].layer}' ({in_use[step]:,} bytes)"


def _larger_boards(description: TargetDescription, flash: int, ram: int) -> str:
    """The targets that the model fits, those of the same core first."""
    fitting = [
        target
        for target in list_targets()
        if target.family == description.family
        and (not target.flash_bytes or target.flash_bytes >= flash)
        and (not target.ram_bytes or target.ram_bytes >= ram)
    ]
    names = [target.name for target in sorted(fitting, key=lambda t: (t.core != description.core, t.ram_bytes, t.name))]
    return f"a larger board: {', '.join(names[:4])}" if names else "no board known here is large enough as it is"
