"""A build for Cortex-A on a board: a shared library for TVM's runtime, which the board's RPC server loads."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...passes.errors import UserError
from ..artifact_folder import whole
from ..base import TensorSpec
from ..emulators.tools import run
from ..remote.artifact import Loaded, RemoteProgram
from ..remote.board import Board
from ..remote.facts import Facts, ffi_includes
from .artifact import CortexAArtifact
from .cores import platform_of
from .features import lacking_for
from .project import write_module_source


class CortexAProgram(RemoteProgram):
    """A built library.

    Args:
        built: The build.

    Raises:
        UserError: A file of the build is missing or changed.
        ToolError: The compiler refused.
    """

    def __init__(self, built: CortexAArtifact) -> None:
        self.built: CortexAArtifact = built
        self.threads = built.info.threads
        self._folder = tempfile.TemporaryDirectory(prefix="tvmcompress-module-")
        self.library = Path(self._folder.name) / f"{built.info.prefix}.so"
        write_module(built, self.library)

    def lacking(self, facts: Facts, architecture: str) -> list[str]:
        """Instructions that the code may use and the board lacks."""
        return lacking_for(self.built.target.tvm, facts, architecture)

    def load(self, board: Board, threads: int) -> Loaded:
        """Send the library."""
        if threads > self.threads:
            raise UserError(f"{self.built.path} was built for up to {self.threads} threads; {threads} were asked for")
        module = board.load(self.library)
        if self.threads > 1:
            module["threads"](threads)
        return _LoadedModule(board, module, self.built.outputs)

    def figures(self) -> dict[str, Any]:
        """What the build knows."""
        info = self.built.info
        return {
            "flash_bytes": info.code_bytes + info.constant_bytes,
            "code_bytes": info.code_bytes,
            "constant_bytes": info.constant_bytes,
            "ram_bytes": info.arena_bytes,
            "arena_bytes": info.arena_bytes,
            "arena_lower_bound": info.arena_lower_bound,
            "patches": info.patches,
        }


class _LoadedModule(Loaded):
    def __init__(self, board: Board, module: Any, outputs: Sequence[TensorSpec]) -> None:
        self._board, self._module, self._outputs = board, module, outputs

    def infer(self, sample: Sequence[np.ndarray]) -> list[np.ndarray]:
        inputs, outputs = self._tensors(sample)
        self._module["main"](*inputs, *outputs)
        return [output.numpy() for output in outputs]

    def seconds(self, sample: Sequence[np.ndarray], runs: int) -> list[float]:
        inputs, outputs = self._tensors(sample)
        evaluate = self._module.time_evaluator("main", self._board.device, number=1, repeat=runs)
        return [float(value) for value in evaluate(*inputs, *outputs).results]

    def _tensors(self, sample: Sequence[np.ndarray]) -> tuple[list[Any], list[Any]]:
        outputs = [np.zeros(spec.shape, spec.dtype) for spec in self._outputs]
        return [self._board.tensor(value) for value in sample], [self._board.tensor(value) for value in outputs]


def write_module(built: CortexAArtifact, library: Path) -> None:
    """Compile a build's library once more, as a shared one with a function `main` for TVM's runtime.

    Args:
        built: The build.
        library: Where to write.
    """
    name, folder = built.info.prefix, built.path
    parts = sorted(path.name for path in folder.glob(f"{name}*") if path.suffix in (".c", ".S", ".o"))
    headers = [str(folder), *ffi_includes()]
    command: list[str | Path] = [
        f"{platform_of(built.target).prefix}gcc",
        "-std=gnu11",
        "-O3",
        "-shared",
        "-fPIC",
        "-pthread",
        *built.target.compiler_flags,
    ]
    command += [part for header in headers for part in ("-I", header)]
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / f"{name}_module.c"
        write_module_source(source, name, built.info.threads)
        command += [source, *(whole(folder, part) for part in parts), "-lm", "-Wl,-Bsymbolic,--gc-sections", "-o", library]
        run(command, what="linking the library for the board", timeout=300)
