"""Tensors known as integers in a lowering, and their change from one scale to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .._tvm import relax, tvm
from ..integer.ops import qrequantize
from ..integer.requantization import Requantization, ScalarRequantization
from ..integer.requantize import quantize_multiplier
from ..numbers.affine import Affine, Range, affine_of_range
from ..quantization.kinds import REARRANGING, is_float, op_name
from .constants import Constants


@dataclass(frozen=True)
class Integers:
    """A tensor known as integers.

    Attributes:
        expr: The int8 tensor in the new function.
        affine: How it is to be read.
    """

    expr: relax.Expr
    affine: Affine


@dataclass(frozen=True)
class Wanted:
    """The result that a rule must give.

    Attributes:
        affine: Scale and zero point.
        low: Lower end of a clip of the real value, the fused activation.
        high: Upper end.
        name: Name of the tensor.
    """

    affine: Affine
    low: float
    high: float
    name: str

    @property
    def limits(self) -> tuple[int, int]:
        """The clip as integers: (qmin, qmax)."""
        return self.affine.clip_limits(self.low, self.high)


class CannotLowerError(Exception):
    """A rule does not fit; the message completes the sentence 'stays in float: ...'."""


class KnownIntegers(Constants):
    """The tensors of a function that are known as integers.

    Attributes:
        rounding: "double" or "single", of requantization.
    """

    def __init__(self, mod: tvm.IRModule, rounding: str, packed: Mapping[str, tuple[np.ndarray, int]] | None = None) -> None:
        super().__init__(mod, packed)
        self.rounding = rounding
        self._tensors: dict[relax.Var, Integers] = {}

    def integers(self, expr: relax.Expr) -> Integers:
        """An operand as integers.

        Raises:
            CannotLowerError: It is not known as integers.
        """
        while isinstance(expr, relax.Var) and expr not in self._tensors and isinstance(self.values.get(expr), relax.Var):
            expr = self.values[expr]
        if isinstance(expr, relax.Var) and expr not in self._tensors:
            self._move_integers(expr)
        if not isinstance(expr, relax.Var) or expr not in self._tensors:
            raise CannotLowerError(f"its operand {getattr(expr, 'name', '')} is not quantized")
        return self._tensors[expr]

    def _move_integers(self, var: relax.Var) -> None:
        """Know a tensor as integers that is moved from one known as integers, without a quantization of its own."""
        call = self.values.get(var)
        if not isinstance(call, relax.Call) or op_name(call) not in REARRANGING or not is_float(var):
            return
        x = self.integers(call.args[0])
        moved = relax.Call(call.op, [x.expr, *list(call.args)[1:]], call.attrs, call.ty_args)
        self._tensors[var] = Integers(self.emit(moved, var.name), x.affine)

    def is_integers(self, expr: relax.Expr) -> bool:
        """Whether an operand is known as integers."""
        return isinstance(expr, relax.Var) and expr in self._tensors

    def rescaled(self, tensor: Integers, wanted: Wanted) -> relax.Expr:
        """Integers as they are wanted: the same ones, or requantized and clipped."""
        if tensor.affine == wanted.affine and wanted.limits == wanted.affine.limits:
            return tensor.expr
        requantization = self.requantization(wanted, tensor.affine.scale)
        return qrequantize(tensor.expr, input_zero_point=tensor.affine.zero_point, **requantization)

    def then_rescaled(self, expr: relax.Expr, affine: Affine, wanted: Wanted) -> relax.Expr:
        """An operator that keeps the scale of its input, and the change to the scale that is wanted, if it is another."""
        if affine == wanted.affine and wanted.limits == wanted.affine.limits:
            return expr
        return self.rescaled(Integers(self.emit(expr, f"{wanted.name}.unscaled"), affine), wanted)

    def result(self, wanted: Wanted) -> Requantization:
        """How an operator with factors of its own gives what is wanted."""
        qmin, qmax = wanted.limits
        return {
            "output_zero_point": wanted.affine.zero_point,
            "qmin": qmin,
            "qmax": qmax,
            "rounding": self.rounding,
            "out_dtype": wanted.affine.dtype,
        }

    def requantization(self, wanted: Wanted, scale: float) -> ScalarRequantization:
        """How accumulators, one step of which is worth `scale`, become what is wanted.

        Raises:
            CannotLowerError: The factor is out of range.
        """
        multiplier, shift = self.factor(scale / wanted.affine.scale)
        return {**self.result(wanted), "multiplier": multiplier, "shift": shift}

    def factor(self, factor: float) -> tuple[int, int]:
        """A requantization factor as (multiplier, shift).

        Raises:
            CannotLowerError: It is out of range.
        """
        try:
            return quantize_multiplier(factor, self.rounding)
        except ValueError as error:
            raise CannotLowerError(f"its scales do not fit: {error}") from None


def operand(lower: KnownIntegers, expr: relax.Expr, like: Affine | None = None) -> Integers:
    """An operand of an operator as integers; a constant is quantized over its own range, or to a scale given.

    Args:
        lower: The lowering.
        expr: The operand.
        like: The scale of a constant that is not quantized yet.

    Raises:
        CannotLowerError: It is neither known as integers nor a constant tensor.
    """
    if lower.is_integers(expr):
        return lower.integers(expr)
    weights = lower.constant(expr)
    if weights is not None and weights.scales.size == 1 and np.abs(weights.integers).max(initial=0) > 256:
        stored = weights.integers.astype(np.int16)
        return Integers(lower.param(weights.name, stored), Affine(float(weights.scales[0]), 0, "int16"))
    if weights is not None and weights.scales.size == 1 and np.abs(weights.integers).max(initial=0) <= 128:
        shift = int(np.clip(weights.integers.max(initial=0) - 127, 0, None))
        stored = (weights.integers - shift).astype(np.int8)
        return Integers(lower.param(weights.name, stored), Affine(float(weights.scales[0]), -shift))
    known = lower.real_constant(expr)
    if known is None or (known[0].size == 1 and like is None):
        return lower.integers(expr)
    value, name = known
    affine = like or affine_of_range(Range(float(value.min()), float(value.max())))
    return Integers(lower.param(name, affine.quantize(value)), affine)
