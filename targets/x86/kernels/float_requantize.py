"""Requantization by products in float32, with operands from `exact_factors`.

A register of sums takes four to seven instructions: an addition, a conversion, one or two fused products, a conversion back,
an addition where not all of the zero point is in the first, and two for the sign where it counts.
"""

# TVMScript's annotations are calls, which are no types to mypy.
# mypy: disable-error-code="valid-type"

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from ....passes._tvm import te, tirx
from .exact_factors import FLOAT, FLOAT_SIGNED
from .intrinsics import HIGH_ANNOTATION, HIGH_LANES

NEAREST = {
    (form, terms, factors, lanes): f"x86.{name}.{terms}.{factors}.{lanes}"
    for form, name in ((FLOAT, "nearest"), (FLOAT_SIGNED, "nearest_signed"))
    for terms in ((1, 2) if form == FLOAT else (2,))
    for factors in (1, 2)
    for lanes in HIGH_LANES
}
"""int32[n] = nearest(fma(float(int32[n] + int32[n]), float32[n], float32[n])) + int32[n], by form, how many numbers are added,
factors and lanes."""

_SIGN = -(1 << 31)


def float_requantized(acc: Any, added: Any, factor: Any, offset: Any, attrs: Any) -> Any:
    """The int8 results of sums whose last axis is of whole registers.

    Args:
        acc: int32, without bias.
        added: Of `FloatOperands`, like the next two.
        factor: As there.
        offset: As there.
        attrs: With `wide`, the form, and the limits.
    """
    form = int(attrs.wide)
    _, terms, lanes = (int(dim) for dim in added.shape)
    factors = int(factor.shape[1])

    def nearest(*i: Any) -> Any:
        block, lane = i[-1] // lanes, i[-1] % lanes
        numbers = [added[block, part, lane] for part in range(terms)]
        return _nearest(acc(*i), numbers, [factor[block, part, lane] for part in range(factors)], offset[i[-1]], form)

    high = te.compute(acc.shape, nearest, name="high", attrs={HIGH_ANNOTATION: NEAREST[form, terms, factors, lanes]})
    least, most = (tirx.const(int(limit), "int32") for limit in (attrs.qmin, attrs.qmax))

    def element(*i: Any) -> Any:
        return tirx.max(tirx.min(high(*i), most), least).astype("int8")

    return te.compute(acc.shape, element, name="requantized")


def _nearest(acc: Any, added: Sequence[Any], factors: Sequence[Any], offset: Any, form: int) -> Any:
    """Of one sum: what an intrinsic takes the place of."""
    value = (acc + added[0]).astype("float32")
    if form == FLOAT_SIGNED:
        sign = tirx.bitwise_and(tirx.reinterpret("int32", value), tirx.const(_SIGN, "int32"))
        offset = tirx.reinterpret("float32", tirx.bitwise_or(tirx.reinterpret("int32", offset), sign))
    for factor in reversed(factors):
        offset = tirx.call_llvm_pure_intrin("float32", "llvm.fma", value, factor, offset)
    result = tirx.nearbyint(offset).astype("int32")
    return result + added[1] if len(added) > 1 else result


_CONVERSION = {8: "llvm.x86.avx.cvt.ps2dq.256", 16: "llvm.x86.avx512.mask.cvtps2dq.512"}
"""LLVM's name of the conversion to the nearest integers, by lanes."""
_AS_SET = 4
"""The rounding of the operating environment: to nearest, ties to even."""


def _register(form: int, terms: int, factors: int, lanes: int) -> None:
    vector, floats = f"int32x{lanes}", f"float32x{lanes}"

    def with_sign(offset: Any, value: Any) -> Any:
        if form == FLOAT:
            return offset
        sign = tirx.bitwise_and(tirx.reinterpret(vector, value), tirx.Broadcast(tirx.const(_SIGN, "int32"), lanes))
        return tirx.reinterpret(floats, tirx.bitwise_or(tirx.reinterpret(vector, offset), sign))

    def converted(acc: Any, added: Any, factor: Any, offset: Any) -> Any:
        value = (acc + added.vload([0, 0], vector)).astype(floats)
        total = with_sign(offset, value)
        for part in reversed(range(factors)):
            total = tirx.call_llvm_pure_intrin(floats, "llvm.fma", value, factor.vload([part, 0], floats), total)
        more = [tirx.Broadcast(tirx.const(0, "int32"), lanes), tirx.const(-1, "int16"), tirx.const(_AS_SET, "int32")]
        result = tirx.call_llvm_pure_intrin(vector, _CONVERSION[lanes], total, *(more if lanes == 16 else ()))
        return result + added.vload([1, 0], vector) if terms > 1 else result

    def one(acc: Any, added: Any, factor: Any, lane: Any, offset: Any) -> Any:
        numbers = [added[part, lane] for part in range(terms)]
        return _nearest(acc, numbers, [factor[part, lane] for part in range(factors)], offset, form)

    @T.prim_func(s_tir=True)
    def definition(
        A: T.Buffer((lanes,), "int32", offset_factor=1),
        B: T.Buffer((terms, lanes), "int32", offset_factor=1),
        F: T.Buffer((factors, lanes), "float32", offset_factor=1),
        P: T.Buffer((lanes,), "float32", offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(A[0:lanes], B[0:terms, 0:lanes], F[0:factors, 0:lanes], P[0:lanes])
            T.writes(C[0:lanes])
            for i in T.serial(0, lanes):
                with T.sblock("high"):
                    vi = T.axis.spatial(lanes, i)
                    C[vi] = one(A[vi], B, F, vi, P[vi])

    @T.prim_func(s_tir=True)
    def instructions(
        A: T.Buffer((lanes,), "int32", offset_factor=1),
        B: T.Buffer((terms, lanes), "int32", offset_factor=1),
        F: T.Buffer((factors, lanes), "float32", offset_factor=1),
        P: T.Buffer((lanes,), "float32", offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(A[0:lanes], B[0:terms, 0:lanes], F[0:factors, 0:lanes], P[0:lanes])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = converted(A.vload([0], vector), B, F, P.vload([0], floats))

    TensorIntrin.register(NEAREST[form, terms, factors, lanes], definition, instructions)


# In a thread of its own for the reason that `intrinsics` gives.
with ThreadPoolExecutor(1) as _executor:
    list(_executor.map(lambda key: _register(*key), NEAREST))
