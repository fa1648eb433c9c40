"""`tvmcompress sensitivity`: which layers bear pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common
from .common import command
from .progress import bars

_DEFAULT_OUTPUT = Path("sensitivity")


@command
def sensitivity(
    model: Annotated[Path, typer.Argument(help="An .onnx file, or a .tvmc file of ours.", show_default=False)],
    data: Annotated[Path, typer.Argument(help="Samples: .npz, .npy, or a folder of .npy.", show_default=False)],
    save: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for sensitivity.json and sensitivity.png; an analysis there goes on.")
    ] = _DEFAULT_OUTPUT,
    ratios: Annotated[
        str, typer.Option("--ratios", help="Fractions of each group's channels to remove, with commas.")
    ] = "0.1,0.3,0.5,0.7,0.9",
    importance: Annotated[str | None, typer.Option("--importance", help="What channels are ranked by.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Use at most so many samples.")] = 200,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw the curves (needs matplotlib).")] = True,
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
    """Prune each group of channels alone, and see what it costs: accuracy with labels, else the output's noise.

    `compress --sensitivity FOLDER/sensitivity.json --target-macs 0.5` then spreads the removal by what was measured.
    """
    from ..data import load_data
    from ..errors import UserError
    from ..sensitivity import measure_sensitivity

    try:
        shares = [float(part) for part in ratios.split(",")]
    except ValueError:
        raise UserError(f"--ratios {ratios} is not a list of fractions with commas, such as 0.25,0.5") from None
    subject = common.load_model(model, shape, batch)
    steps = common.preprocessing(scale, mean, std)
    common.check_channels(steps, subject.inputs)
    samples = load_data(data, subject.inputs, key=data_key, label_key=label_key, preprocessing=steps, layout=layout)
    try:
        save.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the output folder {save} cannot be written ({error.strerror}); give another one with -o") from error
    if plot:
        common.need_matplotlib()
    with bars() as bar:
        found = measure_sensitivity(
            subject,
            samples.first(limit),
            importance=importance,
            ratios=shares,
            save=save / "sensitivity.json",
            on_progress=lambda done, total, group: bar("groups and ratios", done, total),
        )
    from ..report.sensitivity import plot_sensitivity, sensitivity_table

    if plot:
        plot_sensitivity(found, save / "sensitivity.png")
    if json:
        print(found.model_dump_json(indent=1))
        return
    console = common.output()
    console.print(sensitivity_table(found))
    if found.accuracy is not None:
        console.print(f"Unpruned: {found.accuracy:.1%}.", highlight=False)
    console.print(f"Written to {save}: sensitivity.json{', sensitivity.png' if plot else ''}.", highlight=False)
