"""Importing TFLite: float files as Relax operators, quantized ones as our integer operators, bit for bit.

Every number that TFLite's interpreter derives when it prepares a quantized model (multipliers, shifts, tables, clips of
activations, padding) is derived here in the same way and in the same precision, so that the imported model gives the bytes
of LiteRT's reference kernels.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import MissingToolError, UserError
from ...model import Model
from ...passes.errors import UserError as PassError
from . import (
    float_elementwise,  # noqa: F401  (they register converters)
    float_layers,  # noqa: F401  (they register converters)
    integer_elementwise,  # noqa: F401  (they register converters)
    integer_layers,  # noqa: F401  (they register converters)
    integer_reductions,  # noqa: F401  (they register converters)
    integer_tables,  # noqa: F401  (they register converters)
    moves,  # noqa: F401  (they register converters)
)
from .file import TfliteFile
from .importer import DenseRounding, Importer

__all__ = ["DenseRounding", "load_tflite"]


def load_tflite(path: Path, *, dense_rounding: DenseRounding = "single") -> Model:
    """Import a TFLite file: float, or quantized with int8 or int16 activations.

    Args:
        path: The file.
        dense_rounding: How fully connected layers of int8 round: once, as the reference kernel of LiteRT 2 ("single"), or
            twice, as they round convolutions in TFLite up to 2.14, TFLite Micro and CMSIS-NN ("double").

    Returns:
        The model, its inputs and outputs as in the file, images NHWC. A float one has its weights as parameters under the
        file's names. A quantized one is in integer operators; its scales and zero points are recorded with it.

    Raises:
        UserError: The file cannot be read, is no TFLite file, or has several subgraphs or open shapes.
        UnsupportedOperatorError: An operator cannot be imported; the message names it.
        MissingToolError: The package `tflite`, which describes the file format, is not installed.
    """
    if dense_rounding not in ("single", "double"):
        raise UserError(f"dense_rounding is single or double, not '{dense_rounding}'")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if data[4:8] != b"TFL3":
        raise UserError(f"{path} is not a TFLite file; convert the model again")
    try:
        return Importer(TfliteFile(data, path.name), dense_rounding).run()
    except (UserError, MissingToolError, PassError):
        raise
    except Exception as error:  # the format has no checks of its own: damage shows as any error
        raise UserError(f"{path} is not a whole TFLite file ({type(error).__name__}: {error}); convert it again") from error
