"""What pictures have in common."""

from __future__ import annotations

from typing import Any

from ..errors import MissingToolError


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
