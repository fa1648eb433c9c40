"""How our integer operators are made known to TVM, in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._tvm import register_legalize, relax, tvm
from ..graph.module_params import static_shape
from ..plugins.registry import Registry

PREFIX = "tvmcompress."
NARROW, WIDE = PREFIX + "q", PREFIX + "w"
InferType = Callable[[relax.Call], relax.TensorType]
# Builds the output tensor of the operator's definition from the call and its argument tensors.
Define = Callable[..., Any]
DEFINITIONS: Registry[Define] = Registry("integer operator")
"""The definitions by full name."""


def register_operator(name: str, arguments: int, doc: str, infer: InferType, define: Define) -> tvm.ir.Op:
    """Register a pure operator whose definition is a tensor expression.

    Args:
        name: Without the prefix `tvmcompress.`.
        arguments: Number of arguments.
        doc: One line.
        infer: The type of the result from the call; raises ValueError when the arguments do not fit.
        define: Called with the call and one tensor per argument (a list of tensors for a tuple); returns the result's
            tensor.
    """
    full = PREFIX + name
    DEFINITIONS[full] = define
    tvm.ir._ffi_api.RegisterOp(full, doc)
    op = tvm.ir.Op.get(full)
    op.set_num_inputs(arguments)
    tvm.ir.register_op_attr(full, "FInferType", lambda call, builder: infer(call))
    tvm.ir.register_op_attr(full, "FPurity", True)

    @register_legalize(full)
    def _legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        def definition(*tensors: Any) -> Any:
            return define(call, *tensors)

        definition.__name__ = name
        args = [list(arg.fields) if isinstance(arg, relax.Tuple) else arg for arg in call.args]
        return builder.call_te(definition, *args, primfunc_name_hint=name)

    return op


def register_typed(name: str, arguments: int, doc: str, infer: InferType, define: Define) -> None:
    """Register an operator twice: `q<name>` on int8, for which targets have kernels, and `w<name>`, the same definition
    with operands and a result of int8 or int16.
    """
    register_operator(f"q{name}", arguments, doc, infer, define)
    register_operator(f"w{name}", arguments, f"{doc}; int8 or int16", infer, define)


def typed_call(name: str, args: list[relax.Expr], out_dtype: str, **attrs: Any) -> relax.Call:
    """A call of `q<name>` if all is int8, and of `w<name>`, if there is one, otherwise, or if attributes choose an accumulator.

    Raises:
        ValueError: The result is to be int16, and the operator is registered for int8 alone.
    """
    operands = [part for arg in args for part in (arg.fields if isinstance(arg, relax.Tuple) else [arg])]
    dtypes = {out_dtype, *(str(getattr(operand.ty, "dtype", "")) for operand in operands)}
    is_typed = WIDE + name in DEFINITIONS
    if out_dtype != "int8" and not is_typed:
        raise ValueError(f"q{name}: the result must be int8, not {out_dtype}")
    if not is_typed or ("int16" not in dtypes and "accumulator" not in attrs):
        return make_call(tvm.ir.Op.get(NARROW + name), args, **attrs)
    return make_call(tvm.ir.Op.get(WIDE + name), args, out_dtype=out_dtype, **attrs)


def activation_dtypes(call: relax.Call) -> tuple[str, ...]:
    """The dtypes that the operands of a call may have."""
    return ("int8", "int16") if call.op.name.startswith(WIDE) else ("int8",)


def result_dtype(attrs: Any) -> str:
    """The dtype of a result, from the attributes of its call."""
    return str(getattr(attrs, "out_dtype", "int8"))


def definition_of(name: str) -> Define:
    """The definition of one of our operators, by its full name."""
    return DEFINITIONS[name]


def make_call(op: tvm.ir.Op, args: list[relax.Expr], **attrs: Any) -> relax.Call:
    """A call with attributes: numbers, strings and lists of integers."""
    plain = {key: _plain(value) for key, value in attrs.items()}
    return relax.Call(op, args, tvm.ir.make_node("ir.DictAttrs", **plain))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple, np.ndarray)):
        return [int(entry) for entry in value]
    return value if isinstance(value, (str, bool)) else int(value)


def is_integer_op(expr: relax.Expr, name: str | None = None) -> bool:
    """Whether an expression is a call of one of our operators (of the operator `name`, without prefix, if given)."""
    if not isinstance(expr, relax.Call):
        return False
    full = getattr(expr.op, "name", "")
    return full == PREFIX + name if name is not None else full.startswith(PREFIX)


def tensor_type(shape: tuple[int, ...] | list[int], dtype: str) -> relax.TensorType:
    """A tensor type of static shape."""
    return relax.TensorType([int(dim) for dim in shape], dtype)


def dtype_of(expr: relax.Expr) -> str:
    """The dtype of a tensor expression, by name."""
    return str(expr.ty.dtype)


def check_tensor(op: str, role: str, expr: relax.Expr, dtypes: tuple[str, ...], shape: tuple[int | None, ...]) -> None:
    """Check an argument's dtype and shape; None in `shape` allows any size.

    Raises:
        ValueError: It does not fit.
    """
    found = static_shape(expr)
    if dtype_of(expr) not in dtypes:
        raise ValueError(f"{op}: {role} must be {' or '.join(dtypes)}, got {dtype_of(expr)}")
    if len(found) != len(shape) or any(want is not None and want != have for want, have in zip(shape, found)):
        raise ValueError(f"{op}: {role} must have shape {shape}, got {found}")
