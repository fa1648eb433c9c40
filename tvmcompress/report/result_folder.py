"""What stands in the folder of a compressed model: the model in two forms, how it was made, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..compression import CompressionResult
from ..data.dataset import Dataset
from ..errors import UnsupportedOperatorError
from ..evaluation.accuracy import evaluate
from ..exporting import export_onnx
from ..measuring.record import BuildRecord
from .html import save_html
from .node_data import save_node_data
from .record import (
    Host,
    ModelRecord,
    RemarkRecord,
    Report,
    compression_records,
    layers_against,
    model_record,
    used_sensitivity,
)
from .surgery import surgery_record


def result_records(
    result: CompressionResult,
    data: Dataset | None,
    tried: Dataset | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[ModelRecord, ModelRecord]:
    """The original and the compressed model: evaluated where there is data, with the noise of layers where samples are.

    Args:
        result: How one became the other.
        data: Samples to evaluate on.
        tried: Samples for the noise of layers.
        on_progress: Told how many of how many samples are evaluated.
    """
    noise = layers_against(result.original, result.model, tried)
    if data is None:
        return model_record("original", result.original), model_record("compressed", result.model, layers=noise)
    after = evaluate(result.model, data, reference=result.original, on_progress=on_progress)
    return (
        model_record("original", result.original, after.of_reference()),
        model_record("compressed", result.model, after, noise),
    )


def result_report(
    source: str,
    result: CompressionResult,
    models: tuple[ModelRecord, ...],
    builds: Sequence[BuildRecord],
    *,
    command: str = "",
    warning: RemarkRecord | None = None,
) -> Report:
    """The report of one compressed model.

    Args:
        source: The name of the original's file.
        result: How it was made.
        models: As `result_records` has them.
        builds: Of the compressed model.
        command: That makes it again.
        warning: A remark of its own beside those of the steps.
    """
    steps, remarks = compression_records(result)
    return Report(
        source=source,
        host=Host.this(),
        models=models,
        builds=tuple(builds),
        recipe=result.recipe,
        steps=steps,
        surgery=surgery_record(result),
        precisions=result.precisions,
        remarks=remarks if warning is None else (*remarks, warning),
        gate=result.recipe.gate,
        command=command,
        sensitivity=used_sensitivity(result.recipe),
    )


def write_result(
    folder: Path, report: Report, result: CompressionResult, *, onnx: bool | None = None, html: bool = True
) -> Report:
    """Write model.tvmc, model.onnx with what viewers show of its nodes, recipe.toml, report.json and report.html.

    Args:
        folder: Holds the builds already.
        report: Of the model.
        result: How it was made.
        onnx: Whether model.onnx is written; None where it has a form in ONNX.
        html: Whether report.html is written.

    Returns:
        The report with the names of all files.

    Raises:
        UnsupportedOperatorError: `onnx` is True, and the model has an operator that ONNX lacks.
    """
    result.model.save(folder / "model.tvmc")
    if onnx is not False and _write_onnx(result, folder / "model.onnx", required=onnx is True):
        save_node_data(report.models[-1], report.builds, folder / "node_data")
    result.recipe.save(folder / "recipe.toml")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    pages = ("report.html", "report.json") if html else ("report.json",)
    report = report.model_copy(update={"files": (*files, *pages)})
    report.save(folder / "report.json")
    if html:
        save_html(report, folder / "report.html")
    return report


def _write_onnx(result: CompressionResult, path: Path, required: bool) -> bool:
    """The model as ONNX, if it can be; one with an operator that ONNX lacks is left out unless it is asked for."""
    try:
        export_onnx(result.qdq_model or result.model, path)
    except UnsupportedOperatorError:
        if required:
            raise
        return False
    return True
