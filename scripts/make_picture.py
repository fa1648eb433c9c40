"""Draw docs/pictures/real_models.svg from the table of benchmarks/real_models.md.

Usage: python scripts/make_picture.py        (needs matplotlib: the extra `report`)
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "benchmarks" / "real_models.md"
PICTURE = ROOT / "docs" / "pictures" / "real_models.svg"
COLOURS = {
    "original": "#b0b7bf",
    "int8": "#7aa6d8",
    "pruned to 70 % MACs, int8": "#2f6db5",
    "pruned to 50 % MACs, int8": "#163d6b",
}
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6}


@dataclass(frozen=True)
class Point:
    """One version of a model: executed instructions on a Cortex-M4, None where it does not fit, and its accuracy."""

    model: str
    version: str
    accuracy: str
    instructions: float | None


def points(text: str) -> list[Point]:
    """What the table says."""
    found: list[Point] = []
    model = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 9 or cells[1] not in COLOURS:
            continue
        model = cells[0] or model
        number = re.fullmatch(r"([\d.]+) ?([kM]?)", cells[6])
        found.append(Point(model, cells[1], cells[2], float(number[1]) * _UNITS[number[2]] if number else None))
    return found


def draw(found: list[Point], picture: Path) -> None:
    """Instructions as dots on a logarithmic axis, with the accuracy beside each."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("matplotlib is needed to draw: pip install 'tvmcompress[report]'")
    matplotlib.use("svg")
    # Text stays text, and the same table gives the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tvmcompress", "font.family": "sans-serif"})
    from matplotlib import pyplot as plt

    models = list(dict.fromkeys(point.model for point in found))
    figure, axes = plt.subplots(figsize=(8.4, 5.2))
    for point in found:
        place = models.index(point.model) * 5 + list(COLOURS).index(point.version)
        accuracy = "" if point.accuracy == "0" else point.accuracy
        if point.instructions is None:
            said = f"does not fit the board, {accuracy}".rstrip(", ")
            axes.text(1.1e5, place, said, va="center", fontsize=8, color="#777777")
            continue
        axes.plot(point.instructions, place, "o", color=COLOURS[point.version], markersize=8)
        said = f"{point.instructions / 1e6:.3g} M, {accuracy}".rstrip(", ")
        axes.text(point.instructions * 1.12, place, said, va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(1e5, 2.5e8)
    axes.set_yticks([index * 5 + 1.5 for index in range(len(models))], [model.replace(", ", "\n", 1) for model in models])
    axes.invert_yaxis()
    axes.set_xlabel("executed instructions an inference, Cortex-M4 (logarithmic); beside it the accuracy")
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    axes.legend(handles, COLOURS, loc=(0.7, 0.4), fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, facecolor="white", metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Draw the picture."""
    draw(points(TABLE.read_text()), PICTURE)


if __name__ == "__main__":
    main()
