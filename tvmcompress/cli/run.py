"""`tvmcompress run`: what was built, on samples, where it was built for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common
from .common import command
from .progress import bars

if TYPE_CHECKING:
    from ..targets.base import Artifact

_DEFAULT_FOLDER = Path("out")


@command
def run(
    folder: Annotated[Path, typer.Argument(help="What compress or build wrote.")] = _DEFAULT_FOLDER,
    data: Annotated[
        Path | None, typer.Argument(help="Data: .npz, .npy, or a folder of .npy; random by default.", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Which build of the folder, where it holds several.")
    ] = None,
    emulator: Annotated[bool, typer.Option("--emulator", help="Insist on the emulator.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Run at most so many samples.")] = None,
    skip: Annotated[int, typer.Option("--skip", min=0, help="Leave out the first samples.")] = 0,
    layers: Annotated[bool, typer.Option("--layers", help="Executed instructions by layer and by function.")] = False,
    save: Annotated[Path | None, typer.Option("-o", "--output", help="Write the outputs to this .npz file.")] = None,
    data_key: common.DataKeyOption = None,
    label_key: common.LabelKeyOption = None,
    layout: common.LayoutOption = None,
    scale: common.ScaleOption = None,
    mean: common.MeanOption = None,
    std: common.StdOption = None,
    json: common.JsonOption = False,
) -> None:
    """Run a built model on samples: on this machine, under an emulator, or on a board at a serial port."""
    from ..built import find_build, model_beside
    from ..data import load_data
    from ..errors import UserError
    from ..running import input_specs, run_built, save_outputs
    from ..targets.artifact_folder import load_artifact

    build = find_build(folder, target)
    artifact = load_artifact(build)
    _check(artifact, emulator, layers)
    samples = None
    if data is not None:
        specs = input_specs(artifact, model_beside(build))
        steps = common.preprocessing(scale, mean, std)
        common.check_channels(steps, specs)
        samples = load_data(data, specs, key=data_key, label_key=label_key, preprocessing=steps, layout=layout)
        if skip >= len(samples):
            raise UserError(f"--skip {skip} leaves none of the {len(samples)} samples of {data}")
        samples = samples.between(skip, None if limit is None else skip + limit)
    elif limit is not None or skip:
        raise UserError("--limit and --skip choose among samples; give data")
    with bars() as bar:
        record, outputs = run_built(artifact, samples, on_progress=bar)
    if save is not None:
        save_outputs(artifact, outputs, save)
    if json:
        print(record.model_dump_json(indent=1))
        return
    from ..report.running import instructions_tables, run_summary

    console = common.output()
    console.print(run_summary(record))
    if layers:
        console.print()
        console.print(instructions_tables(record.measurement))


def _check(artifact: Artifact, emulator: bool, layers: bool) -> None:
    """Refuse options that do not go together, or that this target has no use for."""
    from ..errors import UserError

    name, emulated = artifact.target.name, artifact.target.source == "qemu"
    if emulator and not emulated:
        raise UserError(f"{name} runs on this machine without an emulator; leave --emulator out")
    if layers and not emulated:
        raise UserError(f"--layers counts instructions under an emulator; {name} is timed as a whole")
