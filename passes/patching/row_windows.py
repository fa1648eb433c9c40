"""Which rows of its operands a row of an integer operator's result is computed from, and the operator on some rows only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._tvm import relax, tvm
from ..graph.module_params import static_shape
from ..integer.registry import PREFIX

_CONVOLUTIONS = {f"{PREFIX}qconv2d", f"{PREFIX}qdepthwise"}
_POOLS = {f"{PREFIX}qavgpool", f"{PREFIX}qmaxpool"}
_POINTWISE = {f"{PREFIX}{name}" for name in ("qadd", "qsub", "qmul", "qrequantize", "qlut")}

Rows = tuple[int, int]
"""The first row, and the one behind the last."""


@dataclass(frozen=True)
class RowWindow:
    """How the rows of a result depend on those of the operands.

    Attributes:
        extent: Rows from the first to the last that one row is computed from, dilation counted.
        stride: Rows between the windows of two neighbouring rows.
        before: Rows of padding above the operand.
        height: Rows of the operand.
        operands: Positions of the arguments that have these rows.
    """

    extent: int
    stride: int
    before: int
    height: int
    operands: tuple[int, ...] = (0,)

    def reach(self, rows: Rows) -> Rows:
        """The rows of the operand from which `rows` of the result are computed, those in the padding counted."""
        start = rows[0] * self.stride - self.before
        return start, (rows[1] - 1) * self.stride - self.before + self.extent

    def needs(self, rows: Rows) -> Rows:
        """The rows of the operand that there are among `reach`."""
        start, stop = self.reach(rows)
        return max(0, start), min(self.height, stop)

    def padding(self, rows: Rows) -> Rows:
        """The rows of padding above and below `needs`."""
        (start, stop), (first, behind) = self.reach(rows), self.needs(rows)
        return first - start, stop - behind


def row_window(call: relax.Expr) -> RowWindow | None:
    """The window of an operator on NHWC images of batch 1; None where rows do not depend on rows in this way."""
    name = getattr(getattr(call, "op", None), "name", "")
    if name not in _CONVOLUTIONS | _POOLS | _POINTWISE:
        return None
    shape = static_shape(call.args[0])
    if len(shape) != 4 or shape[0] != 1:
        return None
    attrs, height = call.attrs, shape[1]
    if name in _CONVOLUTIONS:
        kernel = static_shape(call.args[1])[1]
        extent = (kernel - 1) * int(attrs.dilation[0]) + 1
        return RowWindow(extent, int(attrs.strides[0]), int(attrs.padding[0]), height)
    if name in _POOLS:
        return RowWindow(int(attrs.pool_size[0]), int(attrs.strides[0]), int(attrs.padding[0]), height)
    if name == f"{PREFIX}qlut":
        return RowWindow(1, 1, 0, height)
    # The operands of a sum must all have the rows of the result; what is broadcast along them has none.
    out = static_shape(call)
    operands = tuple(at for at, arg in enumerate(call.args) if _has_rows(static_shape(arg), out))
    broadcast = [at for at, arg in enumerate(call.args) if at not in operands and _spans_rows(static_shape(arg))]
    if broadcast or 0 not in operands:
        return None
    return RowWindow(1, 1, 0, height, operands)


def on_rows(call: relax.Call, args: Sequence[relax.Expr], padding: Rows) -> relax.Call:
    """The call on some rows.

    Args:
        call: With a `row_window`.
        args: Its arguments, the operands cut to the rows that are needed.
        padding: Rows of padding above and below them.
    """
    if getattr(call.op, "name", "") not in _CONVOLUTIONS | _POOLS:
        return relax.Call(call.op, list(args), call.attrs)
    attrs: dict[str, Any] = {str(key): value for key, value in call.attrs.items()}
    _, left, _, right = (int(pad) for pad in call.attrs.padding)
    attrs["padding"] = [padding[0], left, padding[1], right]
    return relax.Call(call.op, list(args), tvm.ir.make_node("ir.DictAttrs", **attrs))


def _has_rows(shape: Sequence[int], out: Sequence[int]) -> bool:
    return len(shape) == 4 and tuple(shape[:2]) == tuple(out[:2])


def _spans_rows(shape: Sequence[int]) -> bool:
    return len(shape) > 2 and shape[-3] != 1
