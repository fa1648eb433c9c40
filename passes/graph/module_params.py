"""Parameter values that ride along with a module.

`main` takes its inputs first, then one variable per weight; the function attribute `num_input` says how many inputs
there are. The values of the weights are a module attribute, a map from parameter name to tensor, so that a pass is what
every TVM pass is: a function from module to module, usable in any `tvm.transform.Sequential`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .._tvm import relax, tvm

PARAMS_ATTR = "tvmcompress.params"


def attach_params(mod: tvm.IRModule, params: Mapping[str, np.ndarray]) -> tvm.IRModule:
    """Return `mod` with `params` as its parameter values.

    Every parameter of `main` behind the inputs must have a value of its own shape and dtype.

    Raises:
        ValueError: A value is missing, or its shape or dtype is not the parameter's.
    """
    for var in param_vars(mod["main"]):
        if var.name not in params:
            raise ValueError(f"parameter {var.name} of main has no value")
        value = params[var.name]
        if static_shape(var) != value.shape or str(var.ty.dtype) != value.dtype.name:
            raise ValueError(
                f"parameter {var.name} is {static_shape(var)} {var.ty.dtype}, its value {value.shape} {value.dtype}"
            )
    # tvm.runtime.tensor wants C order; np.ascontiguousarray would turn a 0-d array into a 1-d one.
    tensors = {name: tvm.runtime.tensor(np.asarray(value, order="C")) for name, value in params.items()}
    return mod.with_attr(PARAMS_ATTR, tensors)


def get_params(mod: tvm.IRModule) -> dict[str, np.ndarray]:
    """The parameter values attached to `mod`, by name, in the order of `main`'s parameters.

    Raises:
        ValueError: No values are attached.
    """
    if mod.attrs is None or PARAMS_ATTR not in mod.attrs:
        raise ValueError("the module carries no parameter values; attach them with tvmcompress.passes.attach_params")
    values = mod.attrs[PARAMS_ATTR]
    return {var.name: values[var.name].numpy() for var in param_vars(mod["main"])}


def detach_params(mod: tvm.IRModule) -> tuple[tvm.IRModule, dict[str, np.ndarray]]:
    """Split a module into itself without values and the values by name."""
    params = get_params(mod)
    return mod.without_attr(PARAMS_ATTR), params


def input_vars(func: relax.Function) -> list[relax.Var]:
    """The inputs of `main`: its first `num_input` parameters."""
    return list(func.params)[: num_inputs(func)]


def param_vars(func: relax.Function) -> list[relax.Var]:
    """The weights of `main`: the parameters behind its inputs."""
    return list(func.params)[num_inputs(func) :]


def num_inputs(func: relax.Function) -> int:
    """How many leading parameters of `func` are inputs; all of them where the attribute `num_input` is missing."""
    if func.attrs is not None and "num_input" in func.attrs:
        return int(func.attrs["num_input"])
    return len(func.params)


def static_shape(expr: relax.Expr) -> tuple[int, ...]:
    """The shape of a tensor expression as integers.

    Raises:
        ValueError: The expression is no tensor of known shape.
    """
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        raise ValueError(f"{expr} is not a tensor of known shape")
    try:
        return tuple(int(dim) for dim in ty.shape)
    except TypeError:
        raise ValueError(f"{expr} has a dimension that is not a constant: {ty.shape}") from None
