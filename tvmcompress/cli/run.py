"""`tvmcompress run`: what was built, on samples, where it was built for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common
from .options.data import PartOptions, ReadOptions
from .options.groups import with_groups
from .options.rpc import RpcOptions
from .options.targets import WhichBuildOption
from .progress import bars

if TYPE_CHECKING:
    from ..targets.base import Artifact

_DEFAULT_FOLDER = Path("out")


@with_groups
def run(
    folder: Annotated[Path, typer.Argument(help="What compress or build wrote.")] = _DEFAULT_FOLDER,
    data: Annotated[
        Path | None, typer.Argument(help="Data: .npz, .npy, or a folder of .npy; random by default.", show_default=False)
    ] = None,
    *,
    target: WhichBuildOption = None,
    emulator: Annotated[bool, typer.Option("--emulator", help="Insist on the emulator.")] = False,
    port: Annotated[
        str | None, typer.Option("--port", help="Run on the board at this serial port (/dev/ttyACM0), and time it there.")
    ] = None,
    baud: Annotated[int | None, typer.Option("--baud", min=1, help="Bits a second of the port (115200 by default).")] = None,
    where: RpcOptions,
    part: PartOptions,
    integers: Annotated[
        bool, typer.Option("--integers", help="The data are the integers that the firmware takes, its axes in its order.")
    ] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Executed instructions by layer and by function.")] = False,
    save: Annotated[Path | None, typer.Option("-o", "--output", help="Write the outputs to this .npz file.")] = None,
    read: ReadOptions,
    json: common.JsonOption = False,
) -> None:
    """Run a built model on samples: on this machine, under an emulator, or on a board: at a serial port, or over RPC."""
    from ..errors import UserError
    from ..measuring.built import find_build, model_beside
    from ..measuring.running import input_specs, integer_specs, run_built, save_outputs
    from ..targets.artifact_folder import load_artifact

    build = find_build(folder, target)
    artifact = _on_boards(build, where) or load_artifact(build)
    _check(artifact, emulator, port, baud, layers, where.rpc)
    samples = None
    if data is not None:
        specs = integer_specs(artifact) if integers else input_specs(artifact, model_beside(build))
        samples = part.of(read.load(data, specs))
    elif integers:
        raise UserError("--integers says how data is read; give data")
    elif part.given:
        raise UserError("--limit and --skip choose among samples; give data")
    with _where(artifact, port, baud) as runner, bars() as bar:
        record, outputs = run_built(runner, samples, on_progress=bar)
    if save is not None:
        save_outputs(artifact, outputs, save)
    if json:
        common.print_json(record)
        return
    from ..report.running import instructions_tables, run_summary

    console = common.output()
    console.print(run_summary(record))
    if layers:
        console.print()
        console.print(instructions_tables(record.measurement))


def _on_boards(build: Path, where: RpcOptions) -> Artifact | None:
    """The build as it runs on boards of a tracker, where that is asked for."""
    from ..targets.artifact_folder import read_artifact
    from ..targets.registry import target_of
    from ..targets.remote.artifact import RemoteArtifact

    target = target_of(read_artifact(build)["target"])
    pool = where.pool([target.description.name])
    return None if pool is None else RemoteArtifact(target.remote_program(build), pool.of(target.description))


@contextmanager
def _where(artifact: Artifact, port: str | None, baud: int | None) -> Iterator[Artifact]:
    """The build as it runs here, or on the board at a port, which is closed at the end."""
    if port is None:
        yield artifact
        return
    from ..targets.micro.board import BoardArtifact
    from ..targets.micro.serial import BAUD, SerialLink, open_port

    with open_port(port, baud or BAUD) as opened:
        yield BoardArtifact(artifact, SerialLink(opened, port))


def _check(artifact: Artifact, emulator: bool, port: str | None, baud: int | None, layers: bool, rpc: str | None) -> None:
    """Refuse options that do not go together, or that this target has no use for."""
    from ..errors import UserError

    name, emulated = artifact.target.name, artifact.target.source == "qemu"
    if rpc is not None and (emulator or layers or port is not None):
        other = "--port" if port is not None else "--emulator" if emulator else "--layers"
        raise UserError(f"--rpc runs on a board of a tracker; leave out {other}")
    if emulator and not emulated:
        raise UserError(f"{name} runs on this machine without an emulator; leave --emulator out")
    if baud is not None and port is None:
        raise UserError("--baud is the speed of a serial port; name it with --port")
    if port is not None and artifact.target.family != "cortex-m":
        raise UserError(f"--port runs on a microcontroller's board; {name} is none")
    if port is not None and (emulator or layers):
        other = "--emulator" if emulator else "--layers, which counts instructions under an emulator"
        raise UserError(f"--port runs on a board; leave out {other}")
    if layers and not emulated:
        raise UserError(f"--layers counts instructions under an emulator; {name} is timed as a whole")
