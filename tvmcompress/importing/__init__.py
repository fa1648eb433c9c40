"""Front ends: from a model file to a `Model` in canonical form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

from ..errors import UserError
from ..model import Model
from .onnx import from_onnx, load_onnx
from .torch_export import ExportedProgram, from_exported, is_exported_program, load_pt2

__all__ = ["from_onnx", "load", "load_onnx"]


def load(
    path: str | PathLike[str] | ExportedProgram,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int = 1,
    dense_rounding: Literal["single", "double"] | None = None,
) -> Model:
    """Load a model by the kind of its file: ONNX (.onnx), TFLite (.tflite), torch.export (.pt2) or our own (.tvmc).

    Args:
        path: The file, or an `ExportedProgram` of torch.export; those need the extra `train`.
        shapes: Input shapes by input name, for inputs whose shape the file leaves open.
        batch: The size of a leading dimension that the file leaves open.
        dense_rounding: Of a quantized TFLite file: whether fully connected layers round once ("single", the default), as
            LiteRT's reference kernel, or twice ("double"), as TFLite up to 2.14, TFLite Micro and CMSIS-NN.

    Returns:
        The model in canonical form, batch normalization folded.

    Raises:
        UserError: The file is missing, unreadable, of unknown kind, or uses what cannot be imported; or an option says
            nothing about its kind.
    """
    if not isinstance(path, (str, PathLike)):
        if is_exported_program(path):
            return from_exported(path)
        raise UserError(f"a model is a path or an ExportedProgram of torch.export, not {type(path).__name__}")
    place = Path(path)
    if not place.exists():
        raise UserError(f"{place} does not exist; give the path of an .onnx, .tflite, .pt2 or .tvmc file")
    if dense_rounding is not None and place.suffix != ".tflite":
        raise UserError(f"{place} is no TFLite file, of which alone the rounding of fully connected layers is chosen")
    if place.suffix == ".onnx":
        return load_onnx(place, shapes=shapes, batch=batch)
    if place.suffix == ".tflite":
        from .tflite import load_tflite

        return load_tflite(place, dense_rounding=dense_rounding or "single")
    if place.suffix == ".pt2":
        return load_pt2(place)
    if place.suffix == Model.SUFFIX:
        return Model.load(place)
    raise UserError(f"{place} is of unknown kind '{place.suffix}'; give an .onnx, .tflite, .pt2 or {Model.SUFFIX} file")
