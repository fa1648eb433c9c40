"""MetaSchedule's cost model, trained only when somebody asks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm.s_tir import meta_schedule as ms


class CostModel:
    """XGBoost on MetaSchedule's features of a schedule, over all tasks of a run.

    Training waits until scores are asked for: short runs never do, and loading XGBoost takes seconds.

    Args:
        seed: Of the trees.
        warm_up: Measurements before which scores would be noise.
    """

    def __init__(self, seed: int, warm_up: int = 8) -> None:
        # One thread: more of them wait for each other longer than they work on so little data.
        config = ms.cost_model.xgb_model.XGBConfig(seed=43 + seed, nthread=1)
        self._model = ms.cost_model.XGBModel(config=config, num_warmup_samples=warm_up)
        self._waiting: list[tuple[ms.TuneContext, Sequence[ms.MeasureCandidate], Sequence[ms.runner.RunnerResult]]] = []

    def add(
        self,
        context: ms.TuneContext,
        candidates: Sequence[ms.MeasureCandidate],
        results: Sequence[ms.runner.RunnerResult],
    ) -> None:
        """Remember measurements to learn from."""
        self._waiting.append((context, candidates, results))

    def predict(self, context: ms.TuneContext, candidates: Sequence[ms.MeasureCandidate]) -> np.ndarray:
        """Scores of candidates, higher for faster ones."""
        waiting: list[tuple[Any, Any, Any]] = []
        waiting, self._waiting = self._waiting, waiting
        for known, measured, results in waiting:
            self._model.update(known, list(measured), list(results))
        return np.asarray(self._model.predict(context, list(candidates)))
