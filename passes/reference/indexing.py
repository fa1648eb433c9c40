"""Operators that look up, write and sort by index."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .registry import Context, Value, register_reference

_WRITES: dict[str, Callable[..., None]] = {
    "add": np.add.at,
    "mul": np.multiply.at,
    "min": np.minimum.at,
    "max": np.maximum.at,
}


@register_reference("relax.gather_elements")
def _gather_elements(args: Sequence[Value], context: Context) -> Value:
    axis = int(context.attrs.axis)
    places = list(np.indices(args[1].shape, sparse=True))
    places[axis] = args[1]
    return args[0][tuple(places)]


@register_reference("relax.gather_nd")
def _gather_nd(args: Sequence[Value], context: Context) -> Value:
    x, indices = args
    batch = int(context.attrs.batch_dims)
    places = list(np.indices(indices.shape[:-1], sparse=True))[:batch]
    return x[(*places, *np.moveaxis(indices, -1, 0))]


def _write(x: np.ndarray, places: tuple[np.ndarray, ...], updates: np.ndarray, how: str) -> np.ndarray:
    result = np.array(x)
    if how == "update":
        result[places] = updates
    else:
        _WRITES[how](result, places, updates)
    return result


@register_reference("relax.scatter_elements")
def _scatter_elements(args: Sequence[Value], context: Context) -> Value:
    x, indices, updates = args
    places = list(np.indices(indices.shape, sparse=True))
    places[int(context.attrs.axis)] = indices
    return _write(x, tuple(places), updates, str(context.attrs.reduction))


@register_reference("relax.scatter_nd")
def _scatter_nd(args: Sequence[Value], context: Context) -> Value:
    x, indices, updates = args
    return _write(x, tuple(np.moveaxis(indices, -1, 0)), updates, str(context.attrs.reduction))


@register_reference("relax.topk")
def _top(args: Sequence[Value], context: Context) -> Value:
    attrs, x = context.attrs, args[0]
    axis = int(attrs.axis)
    # Of equal values the first comes first.
    order = np.argsort(-x if attrs.largest and x.dtype.kind == "f" else x, axis, kind="stable")
    if attrs.largest and x.dtype.kind != "f":
        backward = np.argsort(np.flip(x, axis), axis, kind="stable")
        order = x.shape[axis] - 1 - np.flip(backward, axis)
    picks = order.take(range(int(attrs.k)), axis)
    values, places = np.take_along_axis(x, picks, axis), picks.astype(str(attrs.dtype))
    return {"both": (values, places), "values": values, "indices": places}[str(attrs.ret_type)]
