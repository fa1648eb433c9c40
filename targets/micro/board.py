"""A firmware library on a real board: the same runs and measurements as under the emulator, in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...passes.errors import UserError
from ..aot.build_info import BuildInfo
from ..aot.samples import pack_inputs, unpack_outputs
from ..base import Artifact, TensorSpec
from ..inputs import check_inputs, random_inputs
from ..measurement import Latency, Measurement
from .serial import CHUNK, MOST_RUNS, PROTOCOL, SerialLink

_COUNTER = 1 << 32


class BoardArtifact(Artifact):
    """A built library that runs on the board at the other end of a serial line.

    Args:
        built: The build that was flashed.
        link: The line.
        timeout: Seconds that one inference may take.

    Attributes:
        clock_hz: Of the board's cycle counter.

    Raises:
        UserError: Nothing answers, or another model runs on the board.
    """

    def __init__(self, built: Artifact, link: SerialLink, timeout: float = 60) -> None:
        self.target = built.target.model_copy(update={"source": "hardware"})
        self.path, self.inputs, self.outputs = built.path, built.inputs, built.outputs
        self.info = BuildInfo.read(built.path)
        self._link, self._timeout = link, timeout
        words = link.ask("INFO")
        if words[:1] != [str(PROTOCOL)] or len(words) < 4:
            raise UserError(f"the board at {link.name} speaks another version of the protocol; flash the program of this build")
        name, identity, clock = words[1:4]
        if not self.info.identity or (name, identity) != (self.info.prefix, self.info.identity):
            raise UserError(
                f"the board at {link.name} runs another model ({name} {identity}) than {built.path} holds "
                f"({self.info.prefix} {self.info.identity or 'of an older version'}); flash the program 'serial' of that folder"
            )
        self.clock_hz = int(clock)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run on samples, one after the other; see `Artifact.run`."""
        samples = check_inputs(self.inputs, inputs)
        packed = pack_inputs(self.inputs, inputs)[4:]
        size = len(packed) // samples
        results = b"".join(self._infer(packed[at : at + size]) for at in range(0, len(packed), size))
        return unpack_outputs(self.outputs, results, samples)[0]

    def measure(self, inputs: Sequence[np.ndarray] | None = None, *, runs: int = MOST_RUNS, **options: Any) -> Measurement:
        """Time inferences by the board's cycle counter.

        Args:
            inputs: The first sample is used; a random one when none are given. The model may overwrite it, so that further
                inferences start from what the one before has left.
            runs: How many inferences to time.
            options: None.

        Raises:
            UserError: An unknown option, inputs that do not fit, or a board that counts no cycles or fails.
        """
        if options:
            raise UserError(f"a board measures without option '{next(iter(options))}'")
        if runs < 1:
            raise UserError(f"runs must be at least 1, not {runs}")
        given = random_inputs(self.inputs) if inputs is None else inputs
        check_inputs(self.inputs, given)
        self.run([value[: spec.shape[0]] for spec, value in zip(self.inputs, given)])
        cycles = self._cycles()
        while len(cycles) < runs:
            count = min(MOST_RUNS, runs - len(cycles))
            # The first inference has told how long one takes, so that a board that hangs is not waited for.
            expected = 2 + 2 * cycles[0] / self.clock_hz if self.clock_hz else self._timeout
            self._link.ask(f"RUN {count}", min(self._timeout, expected) * count)
            cycles += self._cycles()
        if not any(cycles) or not self.clock_hz:
            raise UserError(
                f"the board at {self._link.name} counts no cycles, or does not say at what clock; "
                "define serial_cycles and serial_clock_hz for it"
            )
        times = 1e3 * np.array(cycles) / self.clock_hz
        median, p10, p90 = (float(np.percentile(times, share)) for share in (50, 10, 90))
        stack = int(self._link.ask("STACK")[0]) or None
        return Measurement(
            target=self.target.name,
            source="hardware",
            latency=Latency(median_ms=median, p10_ms=p10, p90_ms=p90, runs=len(cycles)),
            flash_bytes=self.info.code_bytes + self.info.constant_bytes,
            code_bytes=self.info.code_bytes,
            constant_bytes=self.info.constant_bytes,
            ram_bytes=self.info.arena_bytes + (stack or 0),
            arena_bytes=self.info.arena_bytes,
            arena_lower_bound=self.info.arena_lower_bound,
            patches=self.info.patches,
            stack_bytes=stack,
            notes=(
                f"{round(float(np.median(cycles))):,} cycles by the board's counter, at the {self.clock_hz / 1e6:g} MHz that "
                f"it reports; the counter of 32 bits cannot tell longer than {_COUNTER / self.clock_hz:.0f} s",
            ),
        )

    def _infer(self, sample: bytes) -> bytes:
        for index, (spec, start) in enumerate(_places(self.inputs)):
            for offset in range(0, spec.nbytes, CHUNK):
                piece = sample[start + offset : start + min(offset + CHUNK, spec.nbytes)]
                self._link.ask(f"IN {index} {offset} {piece.hex().upper()}")
        self._link.ask("RUN 1", self._timeout)
        made = []
        for index, spec in enumerate(self.outputs):
            for offset in range(0, spec.nbytes, CHUNK):
                count = min(CHUNK, spec.nbytes - offset)
                piece = bytes.fromhex("".join(self._link.ask(f"OUT {index} {offset} {count}")))
                if len(piece) != count:
                    raise UserError(f"the board at {self._link.name} gave {len(piece)} bytes of an output instead of {count}")
                made.append(piece)
        return b"".join(made)

    def _cycles(self) -> list[int]:
        return [int(word) for word in self._link.ask("CYCLES")]


def _places(specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, int]]:
    """Each tensor, and where it starts among all of them."""
    starts = np.cumsum([0, *(spec.nbytes for spec in specs)]).tolist()
    return list(zip(specs, starts))
