"""Multiply-accumulate operations of the integer operators."""

from __future__ import annotations

import numpy as np

from .._tvm import relax
from ..graph.analysis import register_macs
from ..graph.module_params import static_shape
from .registry import NARROW, WIDE


@register_macs(*(kind + layer for kind in (NARROW, WIDE) for layer in ("conv2d", "dense")))
def _weighted_macs(call: relax.Call) -> int:
    weight = static_shape(call.args[1])
    return int(np.prod(static_shape(call))) * int(np.prod(weight)) // weight[0]


@register_macs(NARROW + "depthwise", WIDE + "depthwise")
def _depthwise_macs(call: relax.Call) -> int:
    _, kh, kw, _ = static_shape(call.args[1])
    return int(np.prod(static_shape(call))) * kh * kw
