"""The steps by name."""

from __future__ import annotations

from typing import Any

from ..passes.plugins.registry import Registry
from .base import Step

STEPS: Registry[type[Step[Any]]] = Registry(
    "step",
    "tvmcompress.steps",
    of=Step,
    lazy={
        "prune": "tvmcompress.steps.prune:Prune",
        "prune_iteratively": "tvmcompress.steps.iterative:PruneIteratively",
        "sparsify": "tvmcompress.steps.sparsify:SparsifyWeights",
        "finetune": "tvmcompress.steps.finetune:Finetune",
        "pass": "tvmcompress.steps.apply_pass:ApplyPass",
        "repair": "tvmcompress.steps.repair:Repair",
        "calibrate": "tvmcompress.steps.calibrate:Calibrate",
        "choose_precisions": "tvmcompress.search.choose_precisions:ChoosePrecisions",
        "quantize": "tvmcompress.steps.quantize:QuantizeModel",
        "dequantize": "tvmcompress.steps.dequantize:BackToFloat",
        "qat": "tvmcompress.steps.qat:TrainQuantized",
    },
)
"""What the list `[[steps]]` of a recipe may name."""
