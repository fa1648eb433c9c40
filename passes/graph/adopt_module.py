"""Modules from elsewhere: weights as constants, or as parameters in TVM's own convention, become named parameters with values.

Every pass here does this first, so that each can stand alone in a flow of TVM's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from .._tvm import Constant, relax, tvm
from ..errors import UserError
from .module_params import PARAMS_ATTR, attach_params, param_vars, static_shape
from .rebuild import Rebuilder, bindings, rebuild

Pass = TypeVar("Pass")
# What the arguments behind the first of an operator are called.
_ROLES = {
    "relax.nn.batch_norm": ("gamma", "beta", "mean", "var"),
    "relax.nn.layer_norm": ("gamma", "beta"),
    "relax.nn.group_norm": ("gamma", "beta"),
    "relax.nn.instance_norm": ("gamma", "beta"),
}


def model_pass(name: str) -> Callable[[type], Any]:
    """A class with a method `transform_module` as a module pass that takes modules from elsewhere.

    Args:
        name: Of the pass.
    """

    def decorate(cls: Any) -> Any:
        transform = cls.transform_module

        def transform_module(self: Any, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
            return transform(self, with_named_params(mod), ctx)

        transform_module.__doc__ = transform.__doc__
        cls.transform_module = transform_module
        return tvm.transform.module_pass(opt_level=0, name=name)(cls)

    return decorate


def with_named_params(mod: tvm.IRModule, params: Mapping[str, Any] | Sequence[Any] | None = None) -> tvm.IRModule:
    """A module whose weights are parameters of `main` behind its inputs, with their values attached.

    Args:
        mod: A module with one straight-line function `main`. Its weights are parameters whose values are attached or stand
            in the function's attribute `params` (as TVM's importers leave them), parameters whose values are given, or
            constants, which become parameters.
        params: The values, by name, or in the order of the parameters behind the inputs (as `detach_params` of TVM gives
            them). Parameters that are named and stand among the inputs become parameters behind them.

    Raises:
        UserError: `main` is missing or not straight-line, a shape is open, or parameters have no values.
    """
    if params is None and mod.attrs is not None and PARAMS_ATTR in mod.attrs:
        return mod
    if "main" not in [var.name_hint for var in mod.functions]:
        raise UserError("the module has no function 'main'; rename the one that shall be compressed")
    main = mod["main"]
    if not isinstance(main, relax.Function):
        raise UserError("the module's 'main' is no Relax function; give the module before it is lowered")
    values = _values(main, params)
    main = _inputs_first(main, set(values))
    mod = tvm.IRModule({var: func for var, func in mod.functions.items() if var.name_hint != "main"}, attrs=mod.attrs)
    mod["main"] = main
    mod = relax.transform.ConvertToDataflow(1)(relax.transform.Normalize()(mod))
    _check(mod["main"], values)
    return _positive_indices(_lifted(attach_params(mod, values)))


def _values(main: relax.Function, params: Mapping[str, Any] | Sequence[Any] | None) -> dict[str, np.ndarray]:
    """The values that are given, by name."""
    behind = [var.name for var in param_vars(main)]
    stored = main.attrs["params"] if main.attrs is not None and "params" in main.attrs else ()
    given = stored if params is None else params
    if isinstance(given, Mapping) and set(given) == {"main"}:
        given = given["main"]
    if not isinstance(given, Mapping):
        if len(given) not in (0, len(behind)):
            raise UserError(f"main has {len(behind)} parameters behind its inputs, and {len(given)} values are given")
        given = dict(zip(behind, given))
    unknown = [name for name in given if name not in [var.name for var in main.params]]
    if unknown:
        raise UserError(f"main has no parameter '{unknown[0]}'")
    missing = [name for name in behind if name not in given]
    if missing:
        raise UserError(
            f"main takes {len(behind)} weights as parameters (the first is '{missing[0]}') without values; give them: "
            "attach_params(mod, {name: array}), or params= of Model.from_module"
        )
    return {name: value.numpy() if hasattr(value, "numpy") else np.asarray(value) for name, value in given.items()}


def _inputs_first(main: relax.Function, weights: set[str]) -> relax.Function:
    """The function with its weights behind its inputs, and the number of inputs as an attribute."""
    inputs = [var for var in main.params if var.name not in weights]
    order = [*inputs, *(var for var in main.params if var.name in weights)]
    attrs = {key: value for key, value in (main.attrs or {}).items() if key not in ("params", "num_input")}
    attrs |= {"num_input": len(inputs), "global_symbol": "main"}
    return relax.Function(order, main.body, main.ret_ty, main.is_pure, tvm.ir.make_node("ir.DictAttrs", **attrs))


def _check(main: relax.Function, values: Mapping[str, np.ndarray]) -> None:
    """Say in one sentence what a function lacks.

    Raises:
        UserError: It lacks something.
    """
    try:
        for var, _ in bindings(main):
            if isinstance(var.ty, relax.TensorType):
                static_shape(var)
        for var in main.params:
            static_shape(var)
    except ValueError as error:
        raise UserError(f"the module cannot be compressed: {error}") from None


def _lifted(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with its constant weights as named parameters; single numbers and indices stay constants."""
    if not any(isinstance(arg, Constant) for _, value in bindings(mod["main"]) for arg in getattr(value, "args", ())):
        return mod
    build = Rebuilder(mod)
    taken = {var.name for var in mod["main"].params}
    known: dict[Constant, relax.Expr] = {}

    def lift(expr: relax.Expr, name: str) -> relax.Expr:
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([lift(field, name) for field in expr.fields])
        if not isinstance(expr, Constant):
            return build.get(expr)
        value = expr.value.numpy()
        stored = value.dtype.kind == "f" or name.endswith("dequantize.weight")
        if not stored or value.size < 2:
            return expr
        if expr not in known:
            known[expr] = build.param(_unique(name, taken), value)
        return known[expr]

    for var, value in bindings(build.source):
        if isinstance(value, relax.Call) and not isinstance(value.op, relax.ExternFunc):
            op = str(getattr(value.op, "name", "call"))
            short, roles = op.rpartition(".")[2], _ROLES.get(op, ("weight",))
            args = []
            for index, arg in enumerate(value.args):
                place = index - 1 if short != "dequantize" else index
                role = roles[place] if 0 <= place < len(roles) else "constant"
                args.append(lift(arg, f"{short}.{role}"))
            value = relax.Call(value.op, args, value.attrs, value.ty_args)
            build.values[var] = build.emit(value, var.name)
        else:
            build.values[var] = build.emit(build.get(value), var.name)
    return build.finish()


def _positive_indices(mod: tvm.IRModule) -> tvm.IRModule:
    """Constant indices that count from the end, from the start: where TVM gathers without a check it reads out of bounds."""

    def rewrite(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if not (isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.take"):
            return None
        indices = build.param_value(value.args[1])
        if indices is None or (indices >= 0).all():
            return None
        shape = static_shape(value.args[0])
        size = int(np.prod(shape)) if value.attrs.axis is None else shape[int(value.attrs.axis)]
        if (indices < -size).any():
            raise UserError(f"'{var.name}' of main reads position {int(indices.min())} of an axis of {size}")
        counted = np.where(indices < 0, indices + size, indices).astype(indices.dtype)
        return relax.Call(value.op, [build.get(value.args[0]), relax.const(counted)], value.attrs, value.ty_args)

    return rebuild(mod, rewrite)


def _unique(name: str, taken: set[str]) -> str:
    """A name with a number, "conv2d1.weight", where it is taken."""
    op, _, role = name.rpartition(".")
    unique, count = name, 1
    while unique in taken:
        unique, count = f"{op}{count}.{role}", count + 1
    taken.add(unique)
    return unique
