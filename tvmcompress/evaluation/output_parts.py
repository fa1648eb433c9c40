"""The noise that quantization puts on each part of an output, which the noise of the whole hides.

Parts are what was joined, or else the slices along an axis: a head that is transposed or gives boxes and scores by channel
mixes quantities without any concatenation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.dataset import Dataset
from ..model import Model
from ..passes import Remark
from ..passes._tvm import tvm
from ..passes.graph.interpreter import Interpreter
from ..passes.graph.module_params import static_shape
from ..passes.graph.view import GraphView
from ..passes.quantization.kinds import is_float
from ..passes.quantization.output_joins import module_outputs, output_parts
from .noise import decibel

POOR_PARTS = "output parts"
"""What remarks on poor parts of outputs are called by."""

_POOR_SNR = 15.0
_SAMPLES = 32
_BATCH = 8
_NAMED = 5
_ADVICE = "try another precision for it and what computes it (--quantize int16x8)"
_DISTRIBUTIONS = ("relax.nn.softmax", "relax.nn.log_softmax")


class _Sums:
    """Signal and noise of the parts of one output.

    Args:
        count: How many parts there are.
        labels: Which of them each element is of, broadcastable to the output.
    """

    def __init__(self, count: int, labels: np.ndarray) -> None:
        self.count, self.labels = count, labels
        self.signal, self.noise = np.zeros(count), np.zeros(count)

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        """Add a batch."""
        exact = expected.astype(np.float64)
        which = np.broadcast_to(self.labels, exact.shape).ravel()
        self.signal += np.bincount(which, np.square(exact).ravel(), self.count)
        self.noise += np.bincount(which, np.square(found.astype(np.float64) - exact).ravel(), self.count)

    def poor(self) -> list[tuple[float, int]]:
        """Ratio and number of each part below the limit, the worst first; what is zero on all samples has no ratio."""
        ratios = ((decibel(self.signal[part], self.noise[part]), part) for part in np.flatnonzero(self.signal > 0))
        return sorted((ratio, int(part)) for ratio, part in ratios if ratio < _POOR_SNR)


def poor_output_parts(reference: Model, model: Model, data: Dataset) -> list[Remark]:
    """A remark for each joined part of an output whose signal-to-noise ratio is below 15 dB, and for each output with
    slices along an axis, the batch's excepted, that are.

    Args:
        reference: The float model that was quantized.
        model: It with integers.
        data: Samples, of which 32 are used at most.
    """
    joined = {
        position: (names, _Sums(len(names), labels)) for position, (names, labels) in output_parts(reference.module).items()
    }
    slices = _slices(reference.module)
    first, second = Interpreter(reference.module), Interpreter(model.module)
    for batch in data.first(_SAMPLES).batches(_BATCH):
        for position, (expected, found) in enumerate(zip(first(batch), second(batch))):
            for sums in [*([joined[position][1]] if position in joined else []), *slices[position].values()]:
                sums.add(expected, found)
    remarks = []
    for position, name in enumerate(reference.outputs):
        names, whole = joined.get(position, ([], None))
        parts = whole.poor() if whole is not None else []
        for ratio, part in sorted(parts, key=lambda found: found[1]):
            what = f"the part that is {names[part]} has a signal-to-noise ratio of {ratio:.1f} dB only"
            remarks.append(Remark(POOR_PARTS, name, f"{what}; {_ADVICE}"))
        poor = {axis: worst for axis, sums in slices[position].items() if (worst := sums.poor())}
        if poor and not parts:
            axis = min(poor, key=lambda axis: poor[axis][0])
            remarks.append(Remark(POOR_PARTS, name, _sentence(axis, slices[position][axis].count, poor[axis])))
    return remarks


def _sentence(axis: int, count: int, poor: Sequence[tuple[float, int]]) -> str:
    listed = ", ".join(str(part) for _, part in poor[:_NAMED]) + (", ..." if len(poor) > _NAMED else "")
    what = f"{len(poor)} of {count} slices along axis {axis} ({listed}) have a signal-to-noise ratio below {_POOR_SNR:.0f} dB"
    return f"{what}, the worst {poor[0][0]:.1f} dB; {_ADVICE}"


def _slices(mod: tvm.IRModule) -> list[dict[int, _Sums]]:
    """Sums for the slices along the axes of each output, by axis.

    Left out are the batch's, and an axis over which a softmax makes a distribution: most of it may be next to nothing.
    """
    graph = GraphView(mod)
    found = []
    for output in module_outputs(graph):
        call, shape = graph.call(output), static_shape(output)
        over = int(call.attrs.axis) % len(shape) if call is not None and call.op.name in _DISTRIBUTIONS else 0
        axes = [axis for axis in range(1, len(shape)) if shape[axis] > 1 and axis != over] if is_float(output) else []
        found.append({axis: _Sums(shape[axis], _labels(shape, axis)) for axis in axes})
    return found


def _labels(shape: tuple[int, ...], axis: int) -> np.ndarray:
    return np.arange(shape[axis]).reshape([-1 if place == axis else 1 for place in range(len(shape))])
