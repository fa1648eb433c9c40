"""Which of the first layers are computed patch by patch, and in how many patches, so that the arena becomes small.

Every prefix of the network with every number of patches is a candidate. Their arenas are estimated from the lifetimes and
workspaces of the network as it is; the few best are compiled and planned, and the smallest arena is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...passes._tvm import tvm
from ...passes.graph.analysis import count_macs
from ...passes.graph.module_params import static_shape
from ...passes.patching.patch_execution import PatchExecution, Prefix, prefixes
from ..measurement import Patches
from .arena import Arena
from .compiled import Compile, Compiled
from .plan import align, usage
from .program import Program, Step

_COMPILED = 3
"""Candidates that are compiled."""
_NEAR = 1.03
"""Arenas are as good as the smallest up to this factor; then fewer multiply-accumulates count."""
MOST_EXTRA = 0.5
"""Candidates that compute more than this share of the network's multiply-accumulates twice are left out."""


@dataclass(frozen=True)
class _Candidate:
    prefix: Prefix
    patches: int
    arena: int
    extra_macs: int


def choose_patches(mod: tvm.IRModule, whole: Compiled, compiled: Compile) -> tuple[Compiled, Patches] | None:
    """The module compiled with its first layers in patches, where that makes the arena smaller; otherwise None.

    Args:
        mod: An integer program.
        whole: What it compiles to as it is.
        compiled: Compiles a module.
    """
    macs, size = count_macs(mod), whole.arena.plan.size
    found = [c for c in _candidates(mod, whole.program, whole.arena) if c.extra_macs <= MOST_EXTRA * macs]
    best: tuple[Compiled, Patches] | None = None
    for candidate in _ranked(found)[:_COMPILED]:
        if candidate.arena >= size:
            continue
        name = candidate.prefix.end.name
        cut = tvm.transform.Sequential([PatchExecution(name, candidate.patches)])(mod)
        made = compiled(cut)
        if made.arena.plan.size < size:
            size = made.arena.plan.size
            best = (
                made,
                Patches(
                    end=name,
                    layers=len(candidate.prefix.layers),
                    strips=candidate.patches,
                    extra_macs=candidate.extra_macs,
                    macs=macs,
                    whole_arena_bytes=whole.arena.plan.size,
                ),
            )
    return best


def _ranked(candidates: list[_Candidate]) -> list[_Candidate]:
    """The best candidate first, then the best of what is left, each time of another prefix if there is one."""
    ranked: list[_Candidate] = []
    left = list(candidates)
    while left:
        smallest = min(candidate.arena for candidate in left)
        near = [candidate for candidate in left if candidate.arena <= _NEAR * smallest]
        best = min(near, key=lambda candidate: (candidate.extra_macs, candidate.arena, candidate.patches))
        ranked.append(best)
        left = [c for c in left if not c.prefix.end.same_as(best.prefix.end)]
    return ranked


def _candidates(mod: tvm.IRModule, program: Program, arena: Arena) -> Iterator[_Candidate]:
    steps = {step.layer: (index, step) for index, step in enumerate(program.steps)}
    in_use = usage(arena.buffers)
    for prefix in prefixes(mod["main"]):
        if prefix.end.name not in steps:
            continue
        inside = [steps[var.name][0] for var in prefix.layers if var.name in steps]
        outside = max((size for step, size in in_use.items() if not min(inside) <= step <= max(inside)), default=0)
        counts = {len(prefix.patches(count)) for count in range(2, prefix.height + 1)}
        for count in sorted(counts - {1}):
            needs = max(outside, _while_in_patches(prefix, count, steps, arena))
            yield _Candidate(prefix, count, needs, prefix.extra_macs(count))


def _while_in_patches(prefix: Prefix, count: int, steps: dict[str, tuple[int, Step]], arena: Arena) -> int:
    """An estimate of the bytes in use while the patches are computed."""
    whole = align(_row_bytes(prefix.end) * prefix.height)
    patches = prefix.patches(count)
    needed = [prefix.rows(patch) for patch in patches]
    sources = [align(_row_bytes(source) * static_shape(source)[1]) for source in prefix.sources]
    if len(prefix.sources) == 1:
        # The result follows behind what is still to be read of the input.
        (source,) = prefix.sources
        lead = max(
            (
                patch[1] * _row_bytes(prefix.end) - later.get(source, (0, 0))[0] * _row_bytes(source)
                for patch, later in zip(patches, needed[1:])
            ),
            default=0,
        )
        kept = max(whole, align(max(lead, 1)) + sources[0])
    else:
        kept = whole + sum(sources)
    # Patches between the first and the last are alike.
    return kept + max(_patch_bytes(prefix, rows, steps, arena) for rows in (needed[0], needed[len(needed) // 2], needed[-1]))


def _patch_bytes(prefix: Prefix, rows: dict, steps: dict[str, tuple[int, Step]], arena: Arena) -> int:
    """The most bytes that the tensors between the input and the end take in one patch, with the workspaces."""
    size = {var: align(_row_bytes(var) * (rows[var][1] - rows[var][0])) for var in prefix.layers}
    size[prefix.end] = 0
    last = {
        call.args[position]: index
        for index, (call, window) in enumerate(prefix.layers.values())
        for position in window.operands
    }
    most, alive = 0, 0
    for index, (var, (call, window)) in enumerate(prefix.layers.items()):
        at, step = steps.get(var.name, (-1, None))
        workspace = sum(align(arena.buffers[name].size) for name in arena.workspaces[at]) if at >= 0 else 0
        dying = sum(size[op] for op in {call.args[p] for p in window.operands} if op in size and last[op] == index)
        written_over = min(dying, size[var]) if step is not None and step.inplace is not None else 0
        most = max(most, alive + size[var] - written_over + workspace)
        alive += size[var] - dying
    return most


def _row_bytes(var: tvm.relax.Var) -> int:
    _, _, width, channels = static_shape(var)
    return width * channels
