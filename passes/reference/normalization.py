"""Normalizations and softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .registry import Context, Value, ints, register_reference


def _along(vector: np.ndarray, axis: int, rank: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


@register_reference("relax.nn.batch_norm")
def _batch_norm(args: Sequence[Value], context: Context) -> Value:
    x, gamma, beta, mean, var = args
    axis = int(context.attrs.axis) % x.ndim
    scale = 1 / np.sqrt(var + np.asarray(context.attrs.epsilon, x.dtype))
    if context.attrs.scale:
        scale = scale * gamma
    shift = -mean * scale
    if context.attrs.center:
        shift = shift + beta
    return x * _along(scale, axis, x.ndim) + _along(shift, axis, x.ndim), mean, var


@register_reference("relax.nn.layer_norm")
def _layer_norm(args: Sequence[Value], context: Context) -> Value:
    x, gamma, beta = args
    axes = tuple(axis % x.ndim for axis in ints(context.attrs.axes))
    mean = x.mean(axes, keepdims=True)
    var = x.var(axes, keepdims=True)
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    out = (x - mean) / np.sqrt(var + np.asarray(context.attrs.epsilon, x.dtype))
    if context.attrs.scale:
        out = out * gamma.reshape(shape)
    return out + beta.reshape(shape) if context.attrs.center else out


@register_reference("relax.nn.rms_norm")
def _rms_norm(args: Sequence[Value], context: Context) -> Value:
    x, gamma = args
    axes = tuple(axis % x.ndim for axis in ints(context.attrs.axes))
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    mean = np.square(x).mean(axes, keepdims=True)
    return x / np.sqrt(mean + np.asarray(context.attrs.epsilon, x.dtype)) * gamma.reshape(shape)


@register_reference("relax.nn.group_norm")
def _group_norm(args: Sequence[Value], context: Context) -> Value:
    x, gamma, beta = args
    attrs = context.attrs
    channel = int(attrs.channel_axis) % x.ndim
    groups = int(attrs.num_groups)
    split = (*x.shape[:channel], groups, x.shape[channel] // groups, *x.shape[channel + 1 :])
    # The normalized axes are given for the ungrouped tensor; behind the split they lie one further.
    axes = (channel + 1, *(axis % x.ndim + (axis % x.ndim > channel) for axis in ints(attrs.axes)))
    grouped = x.reshape(split)
    mean, var = grouped.mean(axes, keepdims=True), grouped.var(axes, keepdims=True)
    out = ((grouped - mean) / np.sqrt(var + np.asarray(attrs.epsilon, x.dtype))).reshape(x.shape)
    if attrs.scale:
        out = out * _along(gamma, channel, x.ndim)
    return out + _along(beta, channel, x.ndim) if attrs.center else out


@register_reference("relax.nn.instance_norm")
def _instance_norm(args: Sequence[Value], context: Context) -> Value:
    x, gamma, beta = args
    attrs = context.attrs
    axes = tuple(axis % x.ndim for axis in ints(attrs.axes))
    channel = int(attrs.channel_axis) % x.ndim
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    out = (x - mean) / np.sqrt(var + np.asarray(attrs.epsilon, x.dtype))
    if attrs.scale:
        out = out * _along(gamma, channel, x.ndim)
    return out + _along(beta, channel, x.ndim) if attrs.center else out


@register_reference("relax.nn.softmax")
def _softmax(args: Sequence[Value], context: Context) -> Value:
    x, axis = args[0], int(context.attrs.axis)
    raised = np.exp(x - x.max(axis, keepdims=True))
    return raised / raised.sum(axis, keepdims=True)


@register_reference("relax.nn.log_softmax")
def _log_softmax(args: Sequence[Value], context: Context) -> Value:
    x, axis = args[0], int(context.attrs.axis)
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
