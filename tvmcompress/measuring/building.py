"""Building a model for a target."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..importing import load
from ..model import Model
from ..passes import LowerQDQ
from ..passes.lowering.lower_qdq import needs_lowering
from ..targets.base import Artifact
from ..targets.registry import get_target
from ..targets.remote.artifact import RemoteArtifact
from ..targets.remote.boards import Boards


class CompilerError(UserError):
    """A model that TVM cannot compile; what TVM said is the cause."""

    exit_code = 1


def build(model: Model | str | PathLike[str], target: str, output: str | PathLike[str], **options: Any) -> Artifact:
    """Compile a model for a target.

    Args:
        model: A model, float or quantized, or the path of one; one in QDQ form is lowered to integer operators.
        target: Name of a target (`tvmcompress targets` lists them), or the path of a description.
        output: The folder for what is built; made if it is missing.
        options: The target's.

    Returns:
        What was built: it can be run and measured.

    Raises:
        UserError: There is no such target, the model cannot be built for it, or the folder cannot be written.
        CompilerError: TVM gave up.
        MissingToolError: A tool is missing; the sentence says which package brings it.
    """
    subject = model if isinstance(model, Model) else load(model)
    chosen = get_target(target)
    chosen.require_tools()
    place = Path(output)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{place} cannot be written: {error.strerror or error}") from error
    try:
        return chosen.build(executable(subject).module, place, **options)
    except (UserError, OSError):
        raise
    except Exception as error:
        sentence = f"the model cannot be compiled for {target}; this is a bug: please report it with the model"
        raise CompilerError(sentence) from error


def build_for_boards(
    model: Model | str | PathLike[str], target: str, output: str | PathLike[str], boards: Boards, **options: Any
) -> RemoteArtifact:
    """Compile a model for a target whose boards a TVM RPC server serves; what the description leaves open is read from one.

    Args:
        model, target, output, options: As of `build`.
        boards: Where it will run.

    Returns:
        What was built: it runs on the boards.

    Raises:
        UserError: As of `build`; and no tracker, no such board, or the family has nothing for boards.
    """
    chosen = get_target(target)
    found = boards.do(chosen.remote_options, f"asking a board for {target}")
    build(model, target, output, **{**found, **options})
    return RemoteArtifact(chosen.remote_program(Path(output)), boards)


def executable(model: Model) -> Model:
    """A model as targets build it: one in QDQ form becomes an integer one."""
    if needs_lowering(model.module):
        return model.apply(LowerQDQ(), note="integer operators, double rounding")
    return model
