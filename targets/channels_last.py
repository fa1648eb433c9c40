"""NHWC activations and HWIO weights for float convolutions, as the schedules of x86 and of ahead-of-time builds want them."""

from __future__ import annotations

from ..passes._tvm import relax, tvm
from ..passes.graph.decode_weights import is_stored_weight
from ..passes.graph.rebuild import Rebuilder, rebuild
from ..passes.layout.convert_layout import convert_layout
from ..passes.layout.rules import with_attrs

_KEPT = ("nn.conv1d", "nn.conv3d", "nn.conv1d_transpose", "nn.conv2d_transpose")
"""TVM defines these for channels-first alone."""


def channels_last(mod: tvm.IRModule) -> tvm.IRModule:
    """Convert convolutions of images, and what stands between them, to NHWC activations and HWIO weights."""
    return rebuild(convert_layout(mod, _KEPT), _input_channels_inside)


def _input_channels_inside(rebuilder: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """OHWI weights as HWIO; those stored in float16 as they are stored."""
    if not isinstance(value, relax.Call) or value.op != _CONV2D or str(value.attrs.kernel_layout) != "OHWI":
        return None
    source = rebuilder.source_value(value.args[1])
    stored = value.args[1] if source is None else source.args[0] if is_stored_weight(source) else None
    weight = None if stored is None else rebuilder.param_value(stored)
    if weight is None:
        return None
    name = rebuilder.param_name(stored) or f"{var.name}.weight"
    moved: relax.Expr = rebuilder.param(f"{name}.hwio", weight.transpose(1, 2, 3, 0).copy())
    if source is not None:
        moved = relax.op.astype(moved, "float32")
    return with_attrs(value, [rebuilder.get(value.args[0]), moved], kernel_layout="HWIO")


_CONV2D = tvm.ir.Op.get("relax.nn.conv2d")
