"""What tensors are like without data: moments carried from recorded normalizations through the graph.

A normalized result is taken for normal; what a ReLU or a clip makes of it has moments in closed form (Nagel et al., 2019,
appendix C). Summands are taken for independent.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from .._tvm import relax, tvm
from ..graph.module_params import static_shape
from ..graph.normalization_statistics import Moments, get_statistics
from ..graph.view import GraphView

_LAYERS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.matmul")
_MEANS = ("relax.mean", "relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d")


def clipped(moments: Moments, low: float, high: float) -> Moments:
    """The moments of a normal variable clipped to [low, high]; the ends may be infinite."""
    mean, deviation = moments.mean, np.maximum(moments.deviation, 1e-12)
    a, b = (low - mean) / deviation, (high - mean) / deviation
    density_a, density_b = (np.exp(-0.5 * np.square(end)) / np.sqrt(2 * np.pi) for end in (a, b))
    below, above = ndtr(a), ndtr(-b)
    inside = np.maximum(1.0 - below - above, 0.0)
    first = mean * inside + deviation * (density_a - density_b)
    second = (np.square(mean) + np.square(deviation)) * inside
    second += deviation * (2 * mean * (density_a - density_b) + deviation * (_product(a, density_a) - _product(b, density_b)))
    for end, share in ((low, below), (high, above)):
        if np.isfinite(end):
            first += end * share
            second += end * end * share
    return Moments(first, np.sqrt(np.maximum(second - np.square(first), 0.0)))


def _product(end: np.ndarray, density: np.ndarray) -> np.ndarray:
    """end * density, which vanishes at infinity."""
    return np.where(np.isfinite(end), np.where(np.isfinite(end), end, 0.0) * density, 0.0)


def expected_values(mod: tvm.IRModule) -> dict[str, Moments]:
    """The moments by channel of the tensors where they can be told, by name.

    Args:
        mod: A float module in canonical form, parameters attached, with recorded statistics.
    """
    graph, statistics = GraphView(mod), get_statistics(mod)
    known: dict[relax.Var, Moments] = {}
    for var, value in graph.values.items():
        if isinstance(value, relax.Call):
            found = _moments(value, graph, statistics, known)
            if found is not None:
                known[var] = found
    return {var.name: moments for var, moments in known.items()}


def _moments(
    call: relax.Call, graph: GraphView, statistics: dict[str, Moments], known: dict[relax.Var, Moments]
) -> Moments | None:
    name = call.op.name
    if name == "relax.add":
        return _sum(call, graph, statistics, known)
    moments = known.get(call.args[0]) if call.args and isinstance(call.args[0], relax.Var) else None
    if moments is None:
        return None
    if name == "relax.nn.relu":
        return clipped(moments, 0.0, np.inf)
    if name == "relax.nn.relu6":
        return clipped(moments, 0.0, 6.0)
    if name == "relax.clip":
        return clipped(moments, float(call.args[1].value), float(call.args[2].value))
    if name in _MEANS and _keeps_channels(call):
        return moments
    if name in ("relax.reshape", "relax.flatten", "relax.squeeze"):
        return _flattened(moments, static_shape(call.args[0]), static_shape(call))
    return None


def _sum(call: relax.Call, graph: GraphView, statistics: dict[str, Moments], known: dict[relax.Var, Moments]) -> Moments | None:
    first, second = call.args
    layer = graph.call(first)
    if layer is not None and layer.op.name in _LAYERS and second in graph.params:
        weight = layer.args[1]
        found = statistics.get(weight.name) if isinstance(weight, relax.Var) else None
        return found if found is not None and found.mean.size == graph.params[second].size else None
    if first in known and second in known and static_shape(first) == static_shape(second):
        a, b = known[first], known[second]
        return Moments(a.mean + b.mean, np.hypot(a.deviation, b.deviation))
    return None


def _keeps_channels(call: relax.Call) -> bool:
    """Whether a mean is over space only."""
    if call.op.name != "relax.mean":
        return str(call.attrs.layout) == "NCHW"
    rank = len(static_shape(call.args[0]))
    axes = sorted(int(axis) % rank for axis in call.attrs.axis or ())
    return axes == list(range(2, rank))


def _flattened(moments: Moments, old: tuple[int, ...], new: tuple[int, ...]) -> Moments | None:
    """The moments behind a reshape from (N, C, ...) to (N, C * ...)."""
    if len(new) != 2 or len(old) < 2 or old[0] != new[0] or old[1] != moments.mean.size:
        return None
    repeats = new[1] // old[1]
    return Moments(np.repeat(moments.mean, repeats), np.repeat(moments.deviation, repeats))
