"""Networks pruned and repaired by solving alone, from which the benchmarks of training start."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from trained import Trained

from tvmcompress import Model
from tvmcompress.passes import PruneToBudget, Reconstruct

CRITERION_SAMPLES = 200


@dataclass(frozen=True)
class Start:
    """Where training starts.

    Attributes:
        model: Pruned and repaired.
        seconds: Of CPU, for choosing what leaves and for the repair.
    """

    model: Model
    seconds: float


def start(
    trained: Trained, fraction: float, importance: str = "repaired", blocks: bool = True, kept: Path | None = None
) -> Start:
    """A model pruned to a fraction of its multiply-accumulates and repaired, from its unlabelled samples.

    Args:
        trained: The model; the criterion sees the first 200 of its calibration samples, the repair all.
        fraction: Of the multiply-accumulates.
        importance: The criterion.
        blocks: Whether the layers of a block are solved for together.
        kept: A folder in which what takes minutes is kept: what is there is not made again.
    """
    name = f"{trained.name}-{fraction}-{importance}-{'blocks' if blocks else 'layers'}-{len(trained.calibration)}"
    place, told = (None, None) if kept is None else (kept / f"{name}.tvmc", kept / f"{name}.json")
    if place is not None and told is not None and place.exists():
        return Start(Model.load(place), json.loads(told.read_text())["seconds"])
    begun = time.process_time()
    removal = PruneToBudget(macs=fraction, importance=importance, samples=[trained.calibration[:CRITERION_SAMPLES]])
    repair = Reconstruct(trained.model.module, [trained.calibration], blocks=blocks)
    model = trained.model.apply(removal).apply(repair)
    seconds = time.process_time() - begun
    if place is not None and told is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        told.write_text(json.dumps({"seconds": seconds, "accuracy": trained.accuracy(model)}) + "\n")
        model.save(place)
    return Start(model, seconds)
