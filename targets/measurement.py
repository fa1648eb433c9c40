"""What was measured of a build, or is known of it: time, executed instructions, memory, energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from .record import Record


class Latency(Record):
    """Seconds of one inference on hardware.

    Attributes:
        median_ms, p10_ms, p90_ms: Of the runs.
        runs: How many were timed.
        threads: Threads used.
        samples_ms: Every run, in order; empty where they were not kept.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    threads: int = 1
    samples_ms: tuple[float, ...] = ()

    @staticmethod
    def of(milliseconds: Sequence[float] | np.ndarray, threads: int = 1) -> Latency:
        """The record of runs, with all of them.

        Args:
            milliseconds: Of each run, in order.
            threads: Threads used.
        """
        times = np.asarray(milliseconds, np.float64)
        return Latency(
            median_ms=float(np.median(times)),
            p10_ms=float(np.percentile(times, 10)),
            p90_ms=float(np.percentile(times, 90)),
            runs=len(times),
            threads=threads,
            samples_ms=tuple(float(f"{value:.6g}") for value in times),
        )

    def percentile(self, percent: float) -> float | None:
        """Milliseconds that so many percent of the runs do not exceed; None where the runs were not kept."""
        return float(np.percentile(self.samples_ms, percent)) if self.samples_ms else None


class Energy(Record):
    """Energy of one inference by a counter or a sensor of the machine itself: of all that this looks after, idle included.

    Attributes:
        millijoules: Of one inference on the mean.
        runs: Over how many.
        seconds: How long these took.
        sensor: What reports it.
    """

    millijoules: float
    runs: int
    seconds: float
    sensor: str


class Patches(Record):
    """What is computed in patches.

    Attributes:
        end: The layer whose result is put together of patches; all layers before it are computed in patches, too.
        layers: How many layers these are.
        strips: How many patches, called as artifacts and reports have it.
        extra_macs: Multiply-accumulates that come on top because neighbouring patches overlap.
        macs: Multiply-accumulates of the network without them.
        whole_arena_bytes: The arena without patches.
    """

    end: str
    layers: int
    strips: int
    extra_macs: int
    macs: int
    whole_arena_bytes: int

    def sentence(self, arena_bytes: int) -> str:
        """What was won and what it costs."""
        return (
            f"the first {self.layers} layers, up to '{self.end}', run in {self.strips} patches: an arena of {arena_bytes:,} "
            f"bytes instead of {self.whole_arena_bytes:,}, {100 * self.extra_macs / max(self.macs, 1):.1f} % more "
            "multiply-accumulates"
        )


class ArenaBuffer(Record):
    """A piece of a planned arena.

    Attributes:
        holds: The layers whose results lie there, or the layer that works there.
        workspace: Whether it is room that a kernel needs while it runs.
        offset: Bytes from the start of the arena.
        bytes: Its size.
        first, last: The steps between which it is in use, both included.
    """

    holds: tuple[str, ...]
    workspace: bool
    offset: int
    bytes: int
    first: int
    last: int


class CycleEstimate(Record):
    """Cycles of one inference, estimated and not measured.

    Attributes:
        cycles: How many.
        model: Whose model of which core.
        assumes: What it takes for granted.
    """

    cycles: int
    model: str
    assumes: str

    def sentence(self) -> str:
        """What a reader must know of it."""
        return f"an estimate, about {self.cycles:,} cycles by the scheduling model of {self.model}: {self.assumes}"


class MemoryPlan(Record):
    """What lies where in a planned arena, and when.

    Attributes:
        steps: The layer that each step computes, in order.
        buffers: What lies in the arena.
    """

    steps: tuple[str, ...]
    buffers: tuple[ArenaBuffer, ...]


class Measurement(Record):
    """What one build does on one target.

    Attributes:
        target: Name of the target.
        source: "hardware" for seconds from a device, "qemu" for executed instructions; neither is converted into the other.
        latency: On hardware.
        instructions: Executed instructions of one inference under an emulator: exact and repeatable, and no time.
        functions: Executed instructions by function, most first.
        layers: Executed instructions by layer of the model, in its order, with all that they call; the rest is the driver's.
        classes: Executed instructions by class (load, store, ...), where the emulator tells.
        cycle_estimate: Cycles as a model of the core has them, where there is one; an estimate.
        flash_bytes: Code and constants of the model (of the shared library on a hosted target).
        code_bytes: Of these the code.
        constant_bytes: Of these the constants.
        ram_bytes: Memory that the model needs while it runs, constants not counted where they stay in flash.
        arena_bytes: Of these the arena of activations and workspaces.
        arena_lower_bound: The most bytes of the arena that are in use at once: no plan can be smaller.
        stack_bytes: Of these the deepest stack seen.
        patches: Which layers run in patches; None where none do.
        memory: What lies where in the arena, and when; None where there is no planned one.
        notes: What a reader must know of these figures.
        place: On which machine it was timed, and how that was; None for this one.
        energy: On hardware that reports it; it is never estimated.
    """

    target: str
    source: Literal["hardware", "qemu"]
    latency: Latency | None = None
    instructions: int | None = None
    functions: dict[str, int] = Field(default={})
    layers: dict[str, int] = Field(default={})
    classes: dict[str, int] = Field(default={})
    cycle_estimate: CycleEstimate | None = None
    flash_bytes: int | None = None
    code_bytes: int | None = None
    constant_bytes: int | None = None
    ram_bytes: int | None = None
    arena_bytes: int | None = None
    arena_lower_bound: int | None = None
    stack_bytes: int | None = None
    patches: Patches | None = None
    memory: MemoryPlan | None = None
    notes: tuple[str, ...] = ()
    place: str | None = None
    energy: Energy | None = None
