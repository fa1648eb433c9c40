"""The shapes of layers, and how their accumulators become outputs, from their operators."""

from __future__ import annotations

from ....passes._tvm import Constant, relax
from ....passes.integer.registry import is_integer_op
from ...kernels.layers import convolution_sizes
from .epilogue import Epilogue
from .panel import Convolution


def convolution_shape(call: relax.Call) -> Convolution:
    """The shape of a `qconv2d` without groups."""
    return Convolution(**convolution_sizes(call), epilogue=epilogue_of(call))


def constant_shifts(call: relax.Call) -> list[int]:
    """The exponents of a layer's factors; none where they are computed."""
    return call.args[4].value.numpy().tolist() if isinstance(call.args[4], Constant) else []


def epilogue_of(call: relax.Call) -> Epilogue:
    """How the accumulators of an operator become outputs."""
    shifts = [int(call.attrs["output_shift"])] if is_integer_op(call, "qadd") else constant_shifts(call)
    shared = all(shift == -1 for shift in shifts)
    return Epilogue.of(call.attrs, shared)
