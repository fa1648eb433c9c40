"""What pictures have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import MissingToolError
from ..files.whole_file import whole_file


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of a size in inches, and its axes.

    Raises:
        MissingToolError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingToolError("plots need matplotlib; install it with pip install 'tvmcompress[report]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def label(name: str) -> str:
    """A name of the model as text in a figure, where what stands between dollars would be a formula."""
    return name.replace("$", r"\$")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        UserError: The file cannot be written.
    """
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=130, format="png")
