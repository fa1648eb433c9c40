"""`tvmcompress evaluate`: how good a model is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common
from .options.data import PartOptions, ReadOptions
from .options.groups import with_groups
from .options.model import ModelArgument, ModelOptions
from .progress import bars


@with_groups
def evaluate(
    model: ModelArgument,
    data: Annotated[Path, typer.Argument(help="Data: .npz, .npy, or a folder of .npy.", show_default=False)],
    *,
    against: Annotated[Path | None, typer.Option("--against", help="The original: compare outputs with this model's.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="With --against: signal-to-noise ratio of each layer.")] = False,
    part: PartOptions,
    reading: ModelOptions,
    read: ReadOptions,
    json: common.JsonOption = False,
) -> None:
    """Evaluate a model on data: accuracy, agreement with the original, noise at each layer."""
    from ..errors import UserError
    from ..evaluation.accuracy import evaluate as run
    from ..evaluation.noise import layer_noise
    from ..report.record import model_record

    if layers and against is None:
        raise UserError("--layers needs the original to compare with; give it with --against")
    subject = reading.load(model)
    reference = None if against is None else reading.load(against)
    samples = part.of(read.load(data, subject.inputs))
    with bars() as bar:
        evaluation = run(subject, samples, reference=reference, on_progress=lambda done, all_: bar("evaluate", done, all_))
    noise = tuple(layer_noise(reference, subject, samples)) if layers and reference is not None else ()
    record = model_record(model.name, subject, evaluation, noise)
    if json:
        common.print_json(record)
        return
    from ..report.console import evaluation_table, noise_table

    console = common.output()
    console.print(evaluation_table(model.name, evaluation))
    if noise:
        console.print(noise_table(noise))
