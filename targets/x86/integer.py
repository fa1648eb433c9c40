"""Integer models on x86: which part of them runs there, and what that part takes and gives."""

from __future__ import annotations

from ...passes._tvm import tvm
from ...passes.integer.registry import is_integer_op
from ...passes.rebuild import bindings
from ..base import TensorSpec


def is_integer(mod: tvm.IRModule) -> bool:
    """Whether a model module has integer operators."""
    return any(is_integer_op(value) for _, value in bindings(mod["main"]))


def integer_core(mod: tvm.IRModule) -> tvm.IRModule:
    """The integer operators alone, without quantizing the inputs and dequantizing the outputs."""
    from ...passes.integer.core import IntegerCore, get_io_quantization

    return mod if get_io_quantization(mod) is not None else IntegerCore()(mod)


def io_specs(
    mod: tvm.IRModule, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of an integer core.

    Args:
        mod: What `integer_core` returns.
        inputs: Of the model before, for their names.
        outputs: The same.
    """
    raise NotImplementedError
