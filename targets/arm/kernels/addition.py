"""Addition of two int8 tensors, exactly as TFLite computes it.

Each operand, less its zero point and shifted left by 20, is multiplied onto twice the larger of the two scales. For the
operand of the larger scale the factor is 1/2: a shift by 19. For the other one, whose values are but 256, one multiplication
that rounds once mostly gives the same; whether it does is tried when the model is compiled. Zero points and factors are
parameters: additions of equal sizes share their code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ....passes.integer.requantize import multiply
from ...kernels.layers import NotRepresentable
from ...kernels.parallel import parallel
from ...kernels.sums import Operand
from ...kernels.vectors import VECTOR, splat, vector_start
from .epilogue import Epilogue
from .neon import high, low, sqdmulh, sqrdmulh, srshl, ssubl

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

    @cached_property
    def scaling(self) -> Scaling:
        """How vectors are scaled.

        Raises:
            NotRepresentable: The vector arithmetic cannot express it.
        """
        o = self.operand
        if o.shifted:
            return Scaling("shift", self.left_shift - 1, (o.zero_point,))
        once = self.once
        if once is not None:
            return Scaling("once", self.left_shift, (o.zero_point, once))
        if not -31 <= o.shift < 0:
            raise NotRepresentable("an operand's factor")
        return Scaling(self.rounding, self.left_shift, (o.zero_point, o.multiplier, o.shift))


@dataclass(frozen=True)
class Scaling:
    """An operand's way to the common scale: what code for it depends on, and its parameters.

    Attributes:
        kind: "shift" of what is shifted alone, "once" of what is multiplied once, or how its products are rounded.
        left_shift: Before anything else.
        words: The zero point, the factor, the shift to the right, as far as there are such.
    """

    kind: str
    left_shift: int
    words: tuple[int, ...]

    def scaled(self, halves: tirx.PrimExpr, part: int, words_of: tirx.Buffer, at: int) -> tirx.PrimExpr:
        """int32x4: lanes `4 * part` to `4 * part + 3` of an operand less its zero point, int16x8, on the common scale.

        Args:
            words_of: The parameters, each in four lanes; those of this start at `at`.
        """
        narrow = tirx.Broadcast(tirx.const(self.left_shift - _WIDENING, "int16"), 8)
        words = (high if part else low)(halves << narrow, 4).astype("int32x4") << splat(_WIDENING)
        if self.kind == "shift":
            return words
        factor = words_of[at + 1]
        if self.kind == "once":
            return sqrdmulh(words, factor)
        shift = words_of[at + 2]
        if self.kind == "single":
            return srshl(sqdmulh(words, factor), shift)
        value = sqrdmulh(words, factor)
        return srshl(value + (value >> splat(31)), shift)


def add(elements: int, first: Scaling, second: Scaling, epilogue: Epilogue) -> tirx.PrimFunc:
    """The function of (a, b, parameters, output), all flat.

    Args:
        elements: At least 16.
        first, second: How the operands are scaled.
        epilogue: How the sum becomes an output. The parameters are its words and its tail, and then those of the operands.
    """
    UNROLL = 2 if elements % (2 * VECTOR) == 0 else 1
    # Of an output whose zero point is known there is none, and what is read instead does not matter.
    TAIL = 0 if epilogue.lifted else epilogue.words
    FIRST = epilogue.words + len(epilogue.tail)
    SECOND = FIRST + len(first.words)
    PARAMETERS = SECOND + len(second.words)
    ROUNDS = -(-elements // (UNROLL * VECTOR))

    def sums(a, b, words, zeros, at):
        """Four int32x4 before the zero point of the output."""
        x, y = a.vload([at], "int8x16"), b.vload([at], "int8x16")
        values = []
        for half in (low, high):
            one, two = ssubl(half(x, 8), zeros[0]), ssubl(half(y, 8), zeros[1])
            for part in range(2):
                factors = [words[i] for i in range(epilogue.words)]
                total = first.scaled(one, part, words, FIRST) + second.scaled(two, part, words, SECOND)
                values.append(epilogue.scaled(total, factors))
        return values

    @T.prim_func(s_tir=True)
    def add_int8(
        a: T.Buffer((elements,), "int8"),
        b: T.Buffer((elements,), "int8"),
        q: T.Buffer((PARAMETERS,), "int32"),
        out: T.Buffer((elements,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        # In registers: what is written might be what is read otherwise.
        words = T.alloc_buffer((PARAMETERS,), "int32x4", scope="local")
        zeros = T.alloc_buffer((2,), "int8x8", scope="local")
        zero = T.alloc_buffer((1,), "int16x8", scope="local")
        for i in T.unroll(PARAMETERS):
            words[i] = T.broadcast(q[i], 4)
        zeros[0] = T.broadcast(q[FIRST].astype("int8"), 8)
        zeros[1] = T.broadcast(q[SECOND].astype("int8"), 8)
        zero[0] = T.broadcast(q[TAIL].astype("int16"), 8)
        for i in parallel(ROUNDS):
            for j in T.unroll(UNROLL):
                out[T.ramp(vector_start(i * UNROLL + j, elements), 1, VECTOR)] = epilogue.bytes(
                    sums(a, b, words, zeros, vector_start(i * UNROLL + j, elements)), None if epilogue.lifted else zero[0]
                )

    add_int8 = add_int8.with_attr("tvmcompress.workspaces", {"": 0})
    # The last vector reads again what may have been overwritten.
    return add_int8 if elements % VECTOR else add_int8.with_attr("tvmcompress.inplace", 0)
