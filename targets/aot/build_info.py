"""What is written beside a built library, so that it can be run and measured by another process."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from ...passes.errors import UserError
from ..artifact_folder import read_artifact, write_artifact
from ..base import TargetDescription, TensorSpec
from ..measurement import MemoryPlan, Patches
from ..record import Record

PREFIX = "^[a-z_][a-z0-9_]*$"
"""What may start the names of symbols and files."""


class BuildInfo(Record):
    """A built library.

    Attributes:
        prefix: Starts every symbol.
        inputs, outputs: What it takes and gives.
        program: The executable for the emulator, relative to the folder.
        threads: The most threads that may share an inference.
        code_bytes, constant_bytes: In flash.
        arena_bytes: In RAM.
        arena_lower_bound: The most bytes alive at once: no arena can be smaller.
        layers: For each function of the library the layers of the model that it computes.
        identity: Checksum of the library's files, by which a board tells what it runs.
        patches: What is computed patch by patch; None where nothing is.
        workspaces: For each function the bytes of its workspaces, which lie in the arena while it runs.
        memory: What lies where in the arena, and when; None of what was built before this was kept.
    """

    prefix: str = Field(pattern=PREFIX)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    program: str
    threads: int = 1
    code_bytes: int
    constant_bytes: int
    arena_bytes: int
    arena_lower_bound: int
    layers: dict[str, tuple[str, ...]] = Field(default={})
    identity: str = ""
    workspaces: dict[str, int] = Field(default={})
    patches: Patches | None = None
    memory: MemoryPlan | None = None

    def write(self, folder: Path, target: TargetDescription) -> None:
        """Write to `folder`."""
        details = self.model_dump(exclude={"inputs", "outputs"})
        write_artifact(folder, target, self.inputs, self.outputs, library=details)

    @staticmethod
    def read(folder: Path) -> BuildInfo:
        """Read from `folder`.

        Raises:
            UserError: There is none, or it is damaged.
        """
        content = read_artifact(folder)
        try:
            return BuildInfo(inputs=content["inputs"], outputs=content["outputs"], **content["library"])
        except (KeyError, TypeError, ValidationError) as error:
            raise UserError(f"{folder} holds no library for a microcontroller or a board; build one into it") from error
