"""Counting: layers, multiply-accumulate operations, parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .._tvm import relax, tvm
from ..plugins.registry import Registry
from .module_params import get_params, param_vars, static_shape
from .rebuild import bindings


@dataclass(frozen=True)
class LayerInfo:
    """One operator call.

    Attributes:
        name: The variable that holds its result.
        op: The operator, without the prefix "relax.".
        input_shapes: Shapes of the tensor arguments that are no parameters.
        output_shape: Shape of the result.
        dtype: Dtype of the result.
        macs: Multiply-accumulate operations (0 for operators that have none).
        params: Elements of the parameters it reads.
        param_bytes: Their bytes.
    """

    name: str
    op: str
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    dtype: str
    macs: int
    params: int
    param_bytes: int


def layers(mod: tvm.IRModule) -> list[LayerInfo]:
    """Every operator call of `main` in order. A parameter that several calls read counts for the first."""
    main = mod["main"]
    params = set(param_vars(main))
    seen: set[relax.Var] = set()
    found = []
    for var, value in bindings(main):
        if not isinstance(value, relax.Call):
            continue
        variables = relax.analysis.free_vars(value)
        own = [v for v in variables if v in params and v not in seen]
        seen.update(own)
        shapes = tuple(static_shape(v) for v in variables if v not in params and isinstance(v.ty, relax.TensorType))
        tensor = isinstance(var.ty, relax.TensorType)
        found.append(
            LayerInfo(
                name=var.name,
                op=_op_name(value).removeprefix("relax."),
                input_shapes=shapes,
                output_shape=static_shape(var) if tensor else (),
                dtype=str(var.ty.dtype) if tensor else "tuple",
                macs=call_macs(value),
                params=sum(int(np.prod(static_shape(v))) for v in own),
                param_bytes=sum(_nbytes(v) for v in own),
            )
        )
    return found


def _op_name(call: relax.Call) -> str:
    # Printing an operator takes long; only what has no name is printed.
    return str(call.op.name if hasattr(call.op, "name") else call.op)


def count_macs(mod: tvm.IRModule) -> int:
    """Multiply-accumulate operations of one inference: convolutions and matrix products."""
    return sum(call_macs(value) for _, value in bindings(mod["main"]) if isinstance(value, relax.Call))


def count_params(mod: tvm.IRModule) -> int:
    """Elements of all parameters; where several lie in a byte, each counts."""
    return sum(param_sizes(mod).values())


def param_sizes(mod: tvm.IRModule) -> dict[str, int]:
    """Elements of every parameter by name; where several lie in a byte, each counts."""
    sizes = {name: value.size for name, value in get_params(mod).items()}
    for _, value in bindings(mod["main"]):
        unpacks = getattr(getattr(value, "op", None), "name", "").removeprefix("tvmcompress.")
        if unpacks in ("unpack_int4", "unpack_2of4") and isinstance(value.args[0], relax.Var):
            sizes[value.args[0].name] = int(np.prod(static_shape(value)))
            if unpacks == "unpack_2of4" and isinstance(value.args[1], relax.Var):
                # Where the weights stand, not weights.
                sizes[value.args[1].name] = 0
    return sizes


def param_bytes(mod: tvm.IRModule) -> int:
    """Bytes of all parameters."""
    return sum(value.nbytes for value in get_params(mod).values())


_MACS: Registry[Callable[[relax.Call], int]] = Registry("count of operations")
register_macs = _MACS.register


def call_macs(call: relax.Call) -> int:
    """Multiply-accumulate operations of one call."""
    counter = _MACS.get(getattr(call.op, "name", ""))
    return counter(call) if counter is not None else 0


def _nbytes(var: relax.Var) -> int:
    return int(np.prod(static_shape(var))) * np.dtype(str(var.ty.dtype)).itemsize


@register_macs("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
def _conv_macs(call: relax.Call) -> int:
    weight = static_shape(call.args[1])
    out_channels = weight[str(call.attrs.kernel_layout).index("O")]
    return int(np.prod(static_shape(call))) * int(np.prod(weight)) // out_channels


@register_macs("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose")
def _conv_transpose_macs(call: relax.Call) -> int:
    # Every input element meets each weight of its channel once.
    weight = static_shape(call.args[1])
    in_channels = weight[str(call.attrs.kernel_layout).index("I")]
    return int(np.prod(static_shape(call.args[0]))) * int(np.prod(weight)) // in_channels


@register_macs("relax.matmul")
def _matmul_macs(call: relax.Call) -> int:
    return int(np.prod(static_shape(call))) * static_shape(call.args[0])[-1]
