"""`tvmcompress evaluate`: how good a model is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common
from .common import command
from .progress import bars


@command
def evaluate(
    model: Annotated[Path, typer.Argument(help="An .onnx file, or a .tvmc file of ours.", show_default=False)],
    data: Annotated[Path, typer.Argument(help="Data: .npz, .npy, or a folder of .npy.", show_default=False)],
    against: Annotated[Path | None, typer.Option("--against", help="The original: compare outputs with this model's.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="With --against: signal-to-noise ratio of each layer.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use at most so many samples.")] = None,
    skip: Annotated[int, typer.Option("--skip", min=0, help="Leave out the first samples (those calibrated on).")] = 0,
    data_key: common.DataKeyOption = None,
    label_key: common.LabelKeyOption = None,
    layout: common.LayoutOption = None,
    scale: common.ScaleOption = None,
    mean: common.MeanOption = None,
    std: common.StdOption = None,
    shape: common.ShapeOption = None,
    batch: common.BatchOption = 1,
    json: common.JsonOption = False,
) -> None:
    """Evaluate a model on data: accuracy, agreement with the original, noise at each layer."""
    from ..data.dataset import load_data
    from ..errors import UserError
    from ..evaluation.accuracy import evaluate as run
    from ..evaluation.noise import layer_noise
    from ..report.record import model_record

    if layers and against is None:
        raise UserError("--layers needs the original to compare with; give it with --against")
    subject = common.load_model(model, shape, batch)
    reference = None if against is None else common.load_model(against, shape, batch)
    steps = common.preprocessing(scale, mean, std)
    common.check_channels(steps, subject.inputs)
    samples = load_data(data, subject.inputs, key=data_key, label_key=label_key, preprocessing=steps, layout=layout)
    if skip >= len(samples):
        raise UserError(f"--skip {skip} leaves none of the {len(samples)} samples of {data}")
    samples = samples.between(skip, None if limit is None else skip + limit)
    with bars() as bar:
        evaluation = run(subject, samples, reference=reference, on_progress=lambda done, all_: bar("evaluate", done, all_))
    noise = tuple(layer_noise(reference, subject, samples)) if layers and reference is not None else ()
    record = model_record(model.name, subject, evaluation, noise)
    if json:
        print(record.model_dump_json(indent=1))
        return
    from ..report.console import evaluation_table, noise_table

    console = common.output()
    console.print(evaluation_table(model.name, evaluation))
    if noise:
        console.print(noise_table(noise))
