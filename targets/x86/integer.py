"""Integer models on x86: which part of them runs there, and what that part takes and gives."""

from __future__ import annotations

from ...passes._tvm import tvm
from ...passes.lowering.integer_core import IntegerCore, get_io_quantization
from ..base import TensorSpec
from ..integer_io import integer_spec, is_integer


def integer_core(mod: tvm.IRModule) -> tvm.IRModule:
    """The integer program without the conversions at its ends; a float module as it is."""
    return tvm.transform.Sequential([IntegerCore()])(mod) if is_integer(mod) else mod


def io_specs(mod: tvm.IRModule) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of an integer program made by `integer_core`."""
    ends = get_io_quantization(mod)
    outputs = ends.outputs
    names = ["output"] if len(outputs) == 1 else [tensor.name for tensor in outputs]
    return tuple(integer_spec(t.name, t) for t in ends.inputs), tuple(integer_spec(n, t) for n, t in zip(names, outputs))
