"""Which tensors a module has in another scale than the model it came from, channel by channel, so that both can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .._tvm import tvm

SCALES_ATTR = "tvmcompress.channel_scales"


@dataclass(frozen=True, eq=False)
class ChannelScale:
    """How a tensor's channels were divided.

    Attributes:
        factors: float64 (C,): what each was divided by.
        axis: The axis of the channels in a channels-first module: 1, or -1 for the last.
    """

    factors: np.ndarray
    axis: int

    def undone(self, value: np.ndarray) -> np.ndarray:
        """A value of the tensor in the scale that it had; channels first."""
        axis = self.axis % value.ndim
        if value.shape[axis] != self.factors.size:
            return value
        return value * self.factors.astype(value.dtype).reshape([-1 if a == axis else 1 for a in range(value.ndim)])


def record_channel_scales(mod: tvm.IRModule, found: Mapping[str, ChannelScale]) -> tvm.IRModule:
    """Return `mod` with further scales of tensors, by name; those known are multiplied."""
    known = get_channel_scales(mod)
    for name, scale in found.items():
        before = known.get(name)
        known[name] = scale if before is None else ChannelScale(before.factors * scale.factors, scale.axis)
    if not known:
        return mod
    plain = {name: [scale.axis, scale.factors.tolist()] for name, scale in known.items()}
    return mod.with_attr(SCALES_ATTR, json.dumps(plain))


def get_channel_scales(mod: tvm.IRModule) -> dict[str, ChannelScale]:
    """The scales recorded in a module, by the names of tensors."""
    if mod.attrs is None or SCALES_ATTR not in mod.attrs:
        return {}
    plain = json.loads(str(mod.attrs[SCALES_ATTR]))
    return {name: ChannelScale(np.array(factors), axis) for name, (axis, factors) in plain.items()}
