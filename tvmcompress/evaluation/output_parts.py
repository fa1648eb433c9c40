"""The noise that quantization puts on each part of an output that joins several, which the noise of the whole hides."""

from __future__ import annotations

import numpy as np

from ..data.dataset import Dataset
from ..model import Model
from ..passes import Remark
from ..passes.graph.interpreter import Interpreter
from ..passes.quantization.output_joins import output_parts
from .noise import decibel

POOR_PARTS = "output parts"
"""What remarks on poor parts of outputs are called by."""

_POOR_SNR = 15.0
_SAMPLES = 32
_BATCH = 8


def poor_output_parts(reference: Model, model: Model, data: Dataset) -> list[Remark]:
    """A remark for each part of a joined output whose signal-to-noise ratio is below 15 dB.

    Args:
        reference: The float model that was quantized.
        model: It with integers.
        data: Samples, of which 32 are used at most.
    """
    joined = output_parts(reference.module)
    if not joined:
        return []
    first, second = Interpreter(reference.module), Interpreter(model.module)
    sums = {position: np.zeros((2, len(names))) for position, (names, _) in joined.items()}
    for batch in data.first(_SAMPLES).batches(_BATCH):
        expected, found = first(batch), second(batch)
        for position, (names, labels) in joined.items():
            error = found[position].astype(np.float64) - expected[position]
            which = np.broadcast_to(labels, (error.size // labels.size, *labels.shape)).ravel()
            for row, values in zip(sums[position], (expected[position].astype(np.float64), error)):
                row += np.bincount(which, np.square(values).ravel(), len(names))
    remarks = []
    for position, (names, labels) in joined.items():
        for part in np.unique(labels):
            signal, noise = sums[position][:, part]
            ratio = decibel(signal, noise)
            # What is zero on all samples has no ratio.
            if signal > 0 and ratio < _POOR_SNR:
                what = f"the part that is {names[part]} has a signal-to-noise ratio of {ratio:.1f} dB only"
                advice = "try another precision for it and what computes it (--quantize int16x8)"
                remarks.append(Remark(POOR_PARTS, reference.outputs[position], f"{what}; {advice}"))
    return remarks
