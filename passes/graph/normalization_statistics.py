"""What batch normalization knew about the results of a layer, kept when it is folded away.

The result of a normalization has the mean beta and the standard deviation |gamma| in every channel, over the data that the
network was trained on. Data-free repairs (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", 2019) live on that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .._tvm import tvm

STATISTICS_ATTR = "tvmcompress.normalizations"


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and standard deviation of a tensor by channel.

    Attributes:
        mean: float64 (C,).
        deviation: float64 (C,), not negative.
    """

    mean: np.ndarray
    deviation: np.ndarray


def record_statistics(mod: tvm.IRModule, found: Mapping[str, Moments]) -> tvm.IRModule:
    """Return `mod` with the statistics of more layers' results (behind the bias), by the names of the layers' weights."""
    known = {**get_statistics(mod), **found}
    if not known:
        return mod
    plain = {name: [m.mean.tolist(), m.deviation.tolist()] for name, m in known.items()}
    return mod.with_attr(STATISTICS_ATTR, json.dumps(plain))


def get_statistics(mod: tvm.IRModule) -> dict[str, Moments]:
    """The statistics recorded in a module, by the names of weights."""
    if mod.attrs is None or STATISTICS_ATTR not in mod.attrs:
        return {}
    plain = json.loads(str(mod.attrs[STATISTICS_ATTR]))
    return {name: Moments(np.array(mean), np.array(deviation)) for name, (mean, deviation) in plain.items()}
