"""Operators that move values without changing them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from .registry import Context, Value, ints, register_reference


@register_reference("relax.reshape", "relax.flatten")
def _reshape(args: Sequence[Value], context: Context) -> Value:
    return args[0].reshape(context.out_shape(args[0]))


@register_reference("relax.broadcast_to")
def _broadcast_to(args: Sequence[Value], context: Context) -> Value:
    return np.broadcast_to(args[0], context.out_shape(args[0]))


@register_reference("relax.permute_dims")
def _permute_dims(args: Sequence[Value], context: Context) -> Value:
    return args[0].transpose(ints(context.attrs.axes) if context.attrs.axes is not None else None)


@register_reference("relax.concat")
def _concat(args: Sequence[Value], context: Context) -> Value:
    axis = int(context.attrs.axis) if context.attrs.axis is not None else None
    return np.concatenate(args[0], axis)


@register_reference("relax.stack")
def _stack(args: Sequence[Value], context: Context) -> Value:
    return np.stack(args[0], int(context.attrs.axis))


@register_reference("relax.split")
def _split(args: Sequence[Value], context: Context) -> Value:
    where = context.attrs.indices_or_sections
    axis = int(context.attrs.axis)
    if not hasattr(where, "__len__"):
        size = -(-args[0].shape[axis] // int(where))
        return tuple(np.split(args[0], range(size, args[0].shape[axis], size), axis))
    return tuple(np.split(args[0], ints(where), axis))


@register_reference("relax.strided_slice")
def _strided_slice(args: Sequence[Value], context: Context) -> Value:
    x, axes, begin, end = args[:4]
    strides = args[4] if len(args) > 4 and args[4] is not None else [1] * len(axes)
    picks = [slice(None)] * x.ndim
    for axis, low, high, step in zip(ints(axes), ints(begin), ints(end), ints(strides)):
        size = x.shape[axis]
        # A bound of -(size + 1) or below is the usual way to say "down to and with the first element".
        picks[axis] = slice(low, None if step < 0 and high < -size else high, step)
    return x[tuple(picks)]


@register_reference("relax.take")
def _take(args: Sequence[Value], context: Context) -> Value:
    axis = int(context.attrs.axis) if context.attrs.axis is not None else None
    indices = np.asarray(args[1])
    size = args[0].shape[axis] if axis is not None else args[0].size
    if indices.size and (indices.min() < -size or indices.max() >= size):
        worst = int(indices.max()) if indices.max() >= size else int(indices.min())
        raise UserError(f"entry {worst} of a table of {size} entries is looked up; the ids in the data do not fit the model")
    return args[0].take(np.where(indices < 0, indices + size, indices), axis)


@register_reference("relax.squeeze")
def _squeeze(args: Sequence[Value], context: Context) -> Value:
    if context.attrs.axis is None:
        return args[0].reshape(context.out_shape(args[0]))
    return args[0].squeeze(tuple(ints(context.attrs.axis)))


@register_reference("relax.expand_dims")
def _expand_dims(args: Sequence[Value], context: Context) -> Value:
    return np.expand_dims(args[0], tuple(ints(context.attrs.axis)))


@register_reference("relax.flip")
def _flip(args: Sequence[Value], context: Context) -> Value:
    return np.flip(args[0], int(context.attrs.axis))


@register_reference("relax.tile")
def _tile(args: Sequence[Value], context: Context) -> Value:
    return np.tile(args[0], ints(context.attrs.repeats))


@register_reference("relax.repeat")
def _repeat(args: Sequence[Value], context: Context) -> Value:
    axis = int(context.attrs.axis) if context.attrs.axis is not None else None
    return np.repeat(args[0], int(context.attrs.repeats), axis)


@register_reference("relax.nn.pad")
def _pad(args: Sequence[Value], context: Context) -> Value:
    width = ints(context.attrs.pad_width)
    pairs = list(zip(width[::2], width[1::2]))
    mode = str(context.attrs.pad_mode)
    if mode == "constant":
        return np.pad(args[0], pairs, constant_values=float(context.attrs.pad_value))
    return np.pad(args[0], pairs, mode={"replicate": "edge", "circular": "wrap"}.get(mode, mode))  # type: ignore[call-overload]


@register_reference("relax.zeros_like")
def _zeros_like(args: Sequence[Value], context: Context) -> Value:
    return np.zeros_like(args[0])


@register_reference("relax.ones_like")
def _ones_like(args: Sequence[Value], context: Context) -> Value:
    return np.ones_like(args[0])
