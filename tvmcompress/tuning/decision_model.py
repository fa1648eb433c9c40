"""A cost model of named decisions: XGBoost over what was measured, of all layers of a run and of the logs before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..targets.kernels.decisions import Decisions

_LEAST = 12
"""Measurements before which scores would be noise."""


class DecisionModel:
    """Predicts the cost of decisions relative to the default's.

    What a layer is (its shape) and what is decided are features, so that layers learn from each other.

    Args:
        seed: Of the trees.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._rows: list[dict[str, float]] = []
        self._targets: list[float] = []
        self._fresh = False
        self._names: dict[str, int] = {}
        self._booster: Any = None

    def add(self, shape: Mapping[str, Any], decisions: Decisions, ratio: float) -> None:
        """Learn that `decisions` cost `ratio` times what the default costs."""
        row = _features(shape, decisions)
        for name in row:
            self._names.setdefault(name, len(self._names))
        self._rows.append(row)
        self._targets.append(math.log(ratio))
        self._fresh = True

    def predict(self, shape: Mapping[str, Any], points: Sequence[Decisions]) -> np.ndarray | None:
        """Costs relative to the default's, (points,); None while too little is known."""
        if len(self._rows) < _LEAST:
            return None
        import xgboost

        if self._fresh:
            matrix = xgboost.DMatrix(self._matrix(self._rows), np.array(self._targets))
            # One thread: more of them wait for each other longer than they work on so little data.
            options = {"max_depth": 6, "eta": 0.2, "seed": self._seed, "nthread": 1, "verbosity": 0}
            self._booster = xgboost.train(options, matrix, num_boost_round=60)
            self._fresh = False
        rows = self._matrix([_features(shape, point) for point in points])
        return np.exp(np.asarray(self._booster.predict(xgboost.DMatrix(rows, nthread=1))))

    def _matrix(self, rows: Sequence[Mapping[str, float]]) -> np.ndarray:
        matrix = np.full((len(rows), len(self._names)), np.nan, np.float32)
        for index, row in enumerate(rows):
            for name, value in row.items():
                if name in self._names:
                    matrix[index, self._names[name]] = value
        return matrix


def _features(shape: Mapping[str, Any], decisions: Decisions) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind, values in (("shape", shape), ("decision", decisions)):
        for name, value in values.items():
            if isinstance(value, str):
                found[f"{kind}.{name}={value}"] = 1.0
            elif isinstance(value, (list, tuple)):
                found.update({f"{kind}.{name}.{index}": float(part) for index, part in enumerate(value) if index < 4})
            else:
                found[f"{kind}.{name}"] = float(value)
    return found
