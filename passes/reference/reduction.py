"""Reductions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .registry import Context, Value, ints, register_reference

_REDUCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "mean": np.mean,
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "variance": np.var,
    "std": np.std,
}


def _register(name: str, function: Callable[..., np.ndarray]) -> None:
    @register_reference(f"relax.{name}")
    def reference(args: Sequence[Value], context: Context) -> Value:
        attrs = context.attrs
        axes = tuple(ints(attrs.axis)) if attrs.axis is not None else None
        return np.asarray(function(args[0], axis=axes, keepdims=bool(attrs.keepdims)), args[0].dtype)


for _name, _function in _REDUCTIONS.items():
    _register(_name, _function)


@register_reference("relax.argmax", "relax.argmin")
def _arg(args: Sequence[Value], context: Context) -> Value:
    function = np.argmax if context.call.op.name.endswith("max") else np.argmin
    axis = int(context.attrs.axis) if context.attrs.axis is not None else None
    result = function(args[0], axis=axis, keepdims=bool(context.attrs.keepdims))
    return np.asarray(result, str(context.call.ty.dtype))
