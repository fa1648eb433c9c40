"""Addition of two int8 tensors, exactly as TFLite computes it.

Each operand, less its zero point and shifted left by 20, is multiplied onto twice the larger of the two scales. For the
operand of the larger scale the factor is 1/2: a shift by 19. For the other one, whose values are but 256, one multiplication
that rounds once mostly gives the same; whether it does is tried when the model is compiled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ....passes.integer.requantize import multiply
from ...kernels.layers import NotRepresentable
from ...kernels.parallel import parallel
from ...kernels.sums import Operand
from ...kernels.vectors import VECTOR, splat
from .epilogue import Epilogue
from .neon import high, low, splat_bytes, sqdmulh, sqrdmulh, srshl, ssubl

# mypy: ignore-errors

_BYTES = np.arange(-128, 128)
_WIDENING = 15
"""The greatest shift that SSHLL does while it widens halfwords."""


@dataclass(frozen=True)
class Term:
    """How an operand is brought to the common scale.

    Attributes:
        operand: The operand.
        left_shift: Of both operands, before they are multiplied.
        rounding: "double" or "single".
    """

    operand: Operand
    left_shift: int
    rounding: str

    @property
    def once(self) -> int | None:
        """A multiplier that gives every value with a single SQRDMULH, if there is one."""
        o = self.operand
        values = (_BYTES - o.zero_point) << self.left_shift
        wanted = multiply(values, o.multiplier, o.shift, self.rounding)
        guess = round(o.multiplier * 2.0**o.shift)
        for factor in (guess, guess - 1, guess + 1):
            if 0 <= factor < 1 << 31 and ((values * factor + (1 << 30)) >> 31 == wanted).all():
                return factor
        return None

    def scaled(self, halves: tirx.PrimExpr, part: int) -> tirx.PrimExpr:
        """int32x4: lanes `4 * part` to `4 * part + 3` of the operand less its zero point, int16x8, on the common scale."""
        o = self.operand
        total = self.left_shift - 1 if o.shifted else self.left_shift
        narrow = tirx.Broadcast(tirx.const(total - _WIDENING, "int16"), 8)
        words = (high if part else low)(halves << narrow, 4).astype("int32x4") << splat(_WIDENING)
        if o.shifted:
            return words
        once = self.once
        if once is not None:
            return sqrdmulh(words, splat(once))
        if not -31 <= o.shift < 0:
            raise NotRepresentable("an operand's factor")
        if self.rounding == "single":
            return srshl(sqdmulh(words, splat(o.multiplier)), splat(o.shift))
        value = sqrdmulh(words, splat(o.multiplier))
        return srshl(value + (value >> splat(31)), splat(o.shift))


def add(elements: int, first: Term, second: Term, epilogue: Epilogue) -> tirx.PrimFunc:
    """The function of (a, b, parameters, output), all flat.

    Args:
        elements: At least 16.
        first, second: The operands.
        epilogue: How the sum becomes an output; its words and its tail are the parameters.
    """
    UNROLL = 2 if elements % (2 * VECTOR) == 0 else 1
    PARAMETERS = epilogue.words + len(epilogue.tail)
    ROUNDS = -(-elements // (UNROLL * VECTOR))

    def sums(a, b, q, at):
        """Four int32x4 before the zero point of the output."""
        x, y = a.vload([at], "int8x16"), b.vload([at], "int8x16")
        values = []
        for half in (low, high):
            one = ssubl(half(x, 8), splat_bytes(first.operand.zero_point, 8))
            two = ssubl(half(y, 8), splat_bytes(second.operand.zero_point, 8))
            for part in range(2):
                factors = [tirx.Broadcast(q[i], 4) for i in range(epilogue.words)]
                values.append(epilogue.scaled(first.scaled(one, part) + second.scaled(two, part), factors))
        return values

    def start(i):
        return i * VECTOR if elements % VECTOR == 0 else T.min(i * VECTOR, elements - VECTOR)

    @T.prim_func(s_tir=True)
    def add_int8(
        a: T.Buffer((elements,), "int8"),
        b: T.Buffer((elements,), "int8"),
        q: T.Buffer((PARAMETERS,), "int32"),
        out: T.Buffer((elements,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        for i in parallel(ROUNDS):
            for j in T.unroll(UNROLL):
                out[T.ramp(start(i * UNROLL + j), 1, VECTOR)] = epilogue.bytes(
                    sums(a, b, q, start(i * UNROLL + j)), epilogue.zero(q, epilogue.words)
                )

    add_int8 = add_int8.with_attr("tvmcompress.workspaces", {"": 0})
    # The last vector reads again what may have been overwritten.
    return add_int8 if elements % VECTOR else add_int8.with_attr("tvmcompress.inplace", 0)
