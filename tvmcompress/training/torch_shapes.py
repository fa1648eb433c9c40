"""Operators that move, select, reduce and resize values, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..passes.reference.registry import ints
from ..passes.reference.resize import source_rows
from .backend import Tensor, load_torch
from .operators import Call, Value, along, operator

torch = load_torch()
functional = torch.nn.functional


@operator("relax.reshape", "relax.flatten")
def _reshape(args: Sequence[Value], call: Call) -> Value:
    return args[0].reshape(call.out_shape(args[0]))


@operator("relax.broadcast_to")
def _broadcast_to(args: Sequence[Value], call: Call) -> Value:
    return args[0].broadcast_to(call.out_shape(args[0]))


@operator("relax.permute_dims")
def _permute_dims(args: Sequence[Value], call: Call) -> Value:
    axes = call.attrs.axes
    return args[0].permute(list(range(args[0].ndim))[::-1] if axes is None else ints(axes))


@operator("relax.concat")
def _concat(args: Sequence[Value], call: Call) -> Value:
    if call.attrs.axis is None:
        return torch.cat([tensor.reshape(-1) for tensor in args[0]])
    return torch.cat(list(args[0]), int(call.attrs.axis))


@operator("relax.stack")
def _stack(args: Sequence[Value], call: Call) -> Value:
    return torch.stack(list(args[0]), int(call.attrs.axis or 0))


@operator("relax.split")
def _split(args: Sequence[Value], call: Call) -> Value:
    where, axis = call.attrs.indices_or_sections, int(call.attrs.axis)
    size = args[0].shape[axis]
    if hasattr(where, "__len__"):
        return tuple(torch.tensor_split(args[0], ints(where), axis))
    return tuple(torch.split(args[0], -(-size // int(where)), axis))


@operator("relax.strided_slice")
def _strided_slice(args: Sequence[Value], call: Call) -> Value:
    x, axes, begin, end = args[:4]
    strides = args[4] if len(args) > 4 and args[4] is not None else [1] * len(axes)
    for axis, low, high, step in zip(ints(axes), ints(begin), ints(end), ints(strides)):
        size = x.shape[axis]
        # A bound of -(size + 1) or below is the usual way to say "down to and with the first element".
        picked = range(size)[slice(low, None if step < 0 and high < -size else high, step)]
        if step > 0:
            x = x.narrow(axis, picked.start if picked else 0, len(range(picked.start, picked.stop)))
            x = x[(slice(None),) * (axis % x.ndim) + (slice(None, None, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(picked), dtype=torch.int64))
    return x


@operator("relax.take")
def _take(args: Sequence[Value], call: Call) -> Value:
    x, indices = args[0], torch.as_tensor(args[1], dtype=torch.int64)
    x, axis = (x.reshape(-1), 0) if call.attrs.axis is None else (x, int(call.attrs.axis) % x.ndim)
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    return x.index_select(axis, indices.reshape(-1)).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@operator("relax.squeeze")
def _squeeze(args: Sequence[Value], call: Call) -> Value:
    if call.attrs.axis is None:
        return args[0].reshape(call.out_shape(args[0]))
    return args[0].squeeze(tuple(ints(call.attrs.axis)))


@operator("relax.expand_dims")
def _expand_dims(args: Sequence[Value], call: Call) -> Value:
    x, axes = args[0], ints(call.attrs.axis)
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("relax.flip")
def _flip(args: Sequence[Value], call: Call) -> Value:
    return args[0].flip(int(call.attrs.axis))


@operator("relax.tile")
def _tile(args: Sequence[Value], call: Call) -> Value:
    return torch.tile(args[0], ints(call.attrs.repeats))


@operator("relax.repeat")
def _repeat(args: Sequence[Value], call: Call) -> Value:
    axis = call.attrs.axis
    return torch.repeat_interleave(args[0], int(call.attrs.repeats), None if axis is None else int(axis))


@operator("relax.nn.pad")
def _pad(args: Sequence[Value], call: Call) -> Value:
    width = ints(call.attrs.pad_width)
    pairs, mode = list(zip(width[::2], width[1::2])), str(call.attrs.pad_mode)
    if mode == "constant":
        flat = [side for pair in reversed(pairs) for side in pair]
        return functional.pad(args[0], flat, value=float(call.attrs.pad_value))
    x = args[0]
    modes = {"replicate": "edge", "circular": "wrap"}
    for axis, pair in enumerate(pairs):
        if any(pair):
            # Where each element comes from is what padding the positions says.
            rows = np.pad(np.arange(x.shape[axis]), pair, mode=modes.get(mode, mode))  # type: ignore[call-overload]
            x = x.index_select(axis, torch.from_numpy(rows))
    return x


@operator("relax.zeros_like")
def _zeros_like(args: Sequence[Value], call: Call) -> Value:
    return torch.zeros_like(args[0])


@operator("relax.ones_like")
def _ones_like(args: Sequence[Value], call: Call) -> Value:
    return torch.ones_like(args[0])


@operator("relax.image.resize2d")
def _resize2d(args: Sequence[Value], call: Call) -> Value:
    x, attrs = args[0], call.attrs
    layout, method, mode = str(attrs.layout), str(attrs.method), str(attrs.coordinate_transformation_mode)
    if method not in ("nearest_neighbor", "linear"):
        raise call.unsupported(f"by method {method!r}")
    for name, size_out in zip("HW", args[1]):
        axis = layout.index(name)
        size_in = x.shape[axis]
        try:
            low, share = source_rows(size_in, int(size_out), method, mode, str(attrs.rounding_method))
        except NotImplementedError as error:
            raise call.unsupported(f"with coordinates {mode!r}") from error
        first = x.index_select(axis, torch.from_numpy(low))
        if share is None:
            x = first
            continue
        second = x.index_select(axis, torch.from_numpy(np.minimum(low + 1, size_in - 1)))
        weight = along(torch.from_numpy(share).to(x.dtype), axis, x.ndim)
        x = first * (1 - weight) + second * weight
    return x


_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "max": torch.amax,
    "min": torch.amin,
    "variance": lambda x, axes, keepdim: torch.var(x, axes, correction=0, keepdim=keepdim),
    "std": lambda x, axes, keepdim: torch.std(x, axes, correction=0, keepdim=keepdim),
}


def _register_reduction(name: str, function: Callable[..., Any]) -> None:
    @operator(f"relax.{name}")
    def run(args: Sequence[Value], call: Call) -> Value:
        axes = tuple(range(args[0].ndim)) if call.attrs.axis is None else tuple(ints(call.attrs.axis))
        return function(args[0], axes, keepdim=bool(call.attrs.keepdims))


for _name, _reduction in _REDUCTIONS.items():
    _register_reduction(_name, _reduction)


@operator("relax.prod")
def _prod(args: Sequence[Value], call: Call) -> Value:
    x = args[0]
    axes = range(x.ndim) if call.attrs.axis is None else [axis % x.ndim for axis in ints(call.attrs.axis)]
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keepdim=bool(call.attrs.keepdims))
    return x


@operator("relax.argmax", "relax.argmin")
def _arg(args: Sequence[Value], call: Call) -> Value:
    function = torch.argmax if call.call.op.name.endswith("max") else torch.argmin
    axis = None if call.attrs.axis is None else int(call.attrs.axis)
    return function(args[0], axis, keepdim=bool(call.attrs.keepdims)).to(getattr(torch, call.dtype))
