"""Integer models on x86: which part of them runs there, and what that part takes and gives."""

from __future__ import annotations

from ...passes._tvm import tvm
from ...passes.graph.rebuild import bindings
from ...passes.integer.registry import is_integer_op
from ...passes.lowering.integer_core import IntegerCore, TensorQuantization, get_io_quantization
from ..base import TensorSpec


def is_integer(mod: tvm.IRModule) -> bool:
    """Whether a model module has integer operators."""
    return any(is_integer_op(value) for _, value in bindings(mod["main"]))


def integer_core(mod: tvm.IRModule) -> tvm.IRModule:
    """The integer program without the conversions at its ends; a float module as it is."""
    return tvm.transform.Sequential([IntegerCore()])(mod) if is_integer(mod) else mod


def io_specs(mod: tvm.IRModule) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of an integer program made by `integer_core`."""
    ends = get_io_quantization(mod)
    outputs = ends.outputs
    names = ["output"] if len(outputs) == 1 else [tensor.name for tensor in outputs]
    return tuple(_spec(t.name, t) for t in ends.inputs), tuple(_spec(n, t) for n, t in zip(names, outputs))


def _spec(name: str, tensor: TensorQuantization) -> TensorSpec:
    if tensor.dtype == "float32":
        layout = "NCHW" if len(tensor.shape) == 4 else None
        return TensorSpec(name=name, shape=tensor.shape, dtype=tensor.dtype, layout=layout)
    return TensorSpec(
        name=name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        layout=tensor.layout or None,
        scale=tensor.scale,
        zero_point=tensor.zero_point,
    )
