"""Whether a float model is compiled for calibration, or run in NumPy.

NumPy needs no compiler and wins with small networks and few samples; where operations times samples are many, code compiled for
this machine wins, though compiling takes seconds. Both times are estimated, from what they are on an x86 server core.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from ..passes._tvm import tvm
from ..passes.graph.analysis import count_macs, layers
from ..passes.quantization.calibrate import MakeStatistics, Statistics
from ..targets import get_target
from ..targets.x86.statistics import TensorStatistics

_PER_MAC = 25e-12
_PER_ELEMENT = 10e-9
"""Seconds of one thread that NumPy takes for a multiply-accumulate operation, and to count an element of a tensor."""
_PER_LAYER = 0.15
_COMPILED = 0.4
"""Seconds that one thread takes to compile a convolution or matrix product, and the share of NumPy's time that running it
then takes."""


def compiled_statistics(mod: tvm.IRModule, tensors: Collection[str], samples: int) -> MakeStatistics | None:
    """What compiles a model for calibration; None where NumPy is done sooner, or this machine cannot.

    Args:
        mod: The float model.
        tensors: Those that are looked at.
        samples: How many will be run.
    """
    counted = layers(mod)
    elements = sum(math.prod(layer.output_shape) for layer in counted if layer.name in tensors)
    compiling = _PER_LAYER * sum(layer.macs > 0 for layer in counted)
    in_numpy = samples * (_PER_MAC * count_macs(mod) + _PER_ELEMENT * elements)
    if compiling + _COMPILED * in_numpy >= in_numpy or get_target("x86").missing_tools():
        return None
    return _compile


def _compile(mod: tvm.IRModule, tensors: Mapping[str, bool]) -> Statistics | None:
    try:
        return TensorStatistics(mod, tensors)
    except (RuntimeError, ValueError):
        # The errors of TVM and of builds: not every operator that NumPy can do has code for this machine.
        return None

