"""Normalizations and softmax in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from ..passes.reference.registry import ints
from .backend import Tensor, load_torch
from .operators import Call, Value, along, operator

torch = load_torch()


def _normalized(x: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    variance, mean = torch.var_mean(x, tuple(axes), correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + epsilon)


def _scaled(x: Tensor, gamma: Tensor, beta: Tensor, call: Call) -> Tensor:
    """With the factor and the offset, in shapes that broadcast, as far as the call has them."""
    x = x * gamma if call.attrs.scale else x
    return x + beta if call.attrs.center else x


def _kept(x: Tensor, axes: Sequence[int]) -> list[int]:
    """The shape in which what belongs to these axes broadcasts."""
    return [size if axis in axes else 1 for axis, size in enumerate(x.shape)]


def _axes(x: Tensor, call: Call) -> list[int]:
    return [axis % x.ndim for axis in ints(call.attrs.axes)]


@operator("relax.nn.batch_norm")
def _batch_norm(args: Sequence[Value], call: Call) -> Value:
    """With the statistics given, as in inference."""
    x, gamma, beta, mean, variance = args
    axis = int(call.attrs.axis) % x.ndim
    gamma, beta, shift, spread = (along(vector, axis, x.ndim) for vector in (gamma, beta, mean, variance))
    out = (x - shift) / torch.sqrt(spread + float(call.attrs.epsilon))
    return _scaled(out, gamma, beta, call), mean, variance


@operator("relax.nn.layer_norm")
def _layer_norm(args: Sequence[Value], call: Call) -> Value:
    x, gamma, beta = args
    axes = _axes(x, call)
    out, shape = _normalized(x, axes, float(call.attrs.epsilon)), _kept(x, axes)
    return _scaled(out, gamma.reshape(shape), beta.reshape(shape), call)


@operator("relax.nn.rms_norm")
def _rms_norm(args: Sequence[Value], call: Call) -> Value:
    x, gamma = args
    axes = _axes(x, call)
    mean = torch.square(x).mean(tuple(axes), keepdim=True)
    return x * torch.rsqrt(mean + float(call.attrs.epsilon)) * gamma.reshape(_kept(x, axes))


@operator("relax.nn.group_norm")
def _group_norm(args: Sequence[Value], call: Call) -> Value:
    x, gamma, beta = args
    channel, groups = int(call.attrs.channel_axis) % x.ndim, int(call.attrs.num_groups)
    grouped = x.reshape(*x.shape[:channel], groups, x.shape[channel] // groups, *x.shape[channel + 1 :])
    # The normalized axes are given for the ungrouped tensor; behind the split they lie one further.
    axes = (channel + 1, *(axis + (axis > channel) for axis in _axes(x, call)))
    out = _normalized(grouped, axes, float(call.attrs.epsilon)).reshape(x.shape)
    return _scaled(out, along(gamma, channel, x.ndim), along(beta, channel, x.ndim), call)


@operator("relax.nn.instance_norm")
def _instance_norm(args: Sequence[Value], call: Call) -> Value:
    x, gamma, beta = args
    channel = int(call.attrs.channel_axis) % x.ndim
    out = _normalized(x, _axes(x, call), float(call.attrs.epsilon))
    return _scaled(out, along(gamma, channel, x.ndim), along(beta, channel, x.ndim), call)


@operator("relax.nn.softmax")
def _softmax(args: Sequence[Value], call: Call) -> Value:
    return torch.softmax(args[0], int(call.attrs.axis))


@operator("relax.nn.log_softmax")
def _log_softmax(args: Sequence[Value], call: Call) -> Value:
    return torch.log_softmax(args[0], int(call.attrs.axis))
