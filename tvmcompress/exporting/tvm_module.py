"""A build for Cortex-A as a shared library for TVM's runtime, as RPC servers and programs around that runtime load it."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ..errors import UserError
from ..files.whole_file import whole_file
from ..measuring.built import find_build
from ..targets import load_artifact
from ..targets.arm.artifact import CortexAArtifact
from ..targets.arm.remote import write_module
from ..targets.base import Artifact


def export_tvm_module(built: Artifact | str | PathLike[str], path: str | PathLike[str], *, target: str | None = None) -> Path:
    """Write a model built for a Cortex-A as a shared library that `tvm.runtime.load_module` loads on the board.

    Its function `main` takes the model's inputs and then its outputs, all of them tensors in the processor's memory, and fills
    the outputs; where it was built for several threads, `threads` takes how many share an inference.

    Args:
        built: The build, or the folder of it, or the folder that `compress` wrote.
        path: The shared library.
        target: Which build of the folder, where it holds several.

    Returns:
        The shared library.

    Raises:
        UserError: There is no such build, it is for another family of targets, files of it are missing, or the library cannot
            be written.
        ToolError: The compiler refused.
    """
    artifact = built if isinstance(built, Artifact) else load_artifact(find_build(Path(built), target))
    if not isinstance(artifact, CortexAArtifact):
        raise UserError(
            f"{artifact.path} is built for {artifact.target.name}; shared libraries for TVM's runtime are made of builds for "
            "Cortex-A"
        )
    with whole_file(path) as partial:
        write_module(artifact, partial)
    return Path(path)
