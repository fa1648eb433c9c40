"""Multiply-accumulate operations of the integer operators."""

from __future__ import annotations

import numpy as np

from .._tvm import relax
from ..analysis import register_macs
from ..module_params import static_shape
from .registry import PREFIX


@register_macs(PREFIX + "qconv2d", PREFIX + "qdense")
def _weighted_macs(call: relax.Call) -> int:
    weight = static_shape(call.args[1])
    return int(np.prod(static_shape(call))) * int(np.prod(weight)) // weight[0]


@register_macs(PREFIX + "qdepthwise")
def _depthwise_macs(call: relax.Call) -> int:
    _, kh, kw, _ = static_shape(call.args[1])
    return int(np.prod(static_shape(call))) * kh * kw
