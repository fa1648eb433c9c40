"""What one of two processes does that search together."""

from __future__ import annotations

from pathlib import Path

import tvmcompress
from tvmcompress import load_data
from tvmcompress.exploration.attempt import Attempts, Samples
from tvmcompress.exploration.explore import explore
from tvmcompress.exploration.goal import Goal
from tvmcompress.exploration.record import SearchPoint
from tvmcompress.exploration.space import Point

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def search(folder: Path, storage: str) -> None:
    """Try three points, and print their numbers."""
    folder.mkdir()
    model = tvmcompress.load(EXAMPLES / "digits.onnx")
    data = load_data(EXAMPLES / "digits_test.npz", model.inputs, limit=40)

    own: list[int] = []

    def tried(self: Attempts, number: int, point: Point) -> SearchPoint:
        own.append(number)
        words, recipe, build = point.words(), point.recipe, point.build
        return SearchPoint(
            number=number, words=words, recipe=recipe, build=build, stage="measured", lost=0.0, cost=number + 1.0
        )

    Attempts.try_point = tried  # type: ignore[method-assign]
    explore(Attempts(model, Samples(data, None, data), Goal("cortex-m4"), folder), trials=3, storage=storage)
    print(*own)
