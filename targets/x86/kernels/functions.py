"""Exponentials and their kin as float32 expressions of additions and products, so that they run in vectors.

LLVM would call the C library for every element. Each is within a few units in the last place of the function's largest
value near by: their tests compare them with double precision over their whole range, infinities and NaN included.

- exp(x) = 2**n * exp(r), n the integer next to x / ln(2), ln(2) in two parts (Cody and Waite, 1980), exp(r) by its series.
- erf(x) = x * P(x**2) / Q(x**2), both of degree 5, fitted by weighted least squares to x in [0, 3.95], relative error 2.1e-8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ....passes._tvm import relax, te, tirx
from ....passes.graph.module_params import static_shape
from ...legalize import Legalization

Function = Callable[[Any], Any]

_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440054690583e-4
_LEAST, _MOST = -87.33654, 88.72283
"""Below, the exponential is no normal number; above, it is no finite one."""
_ERF_END = 3.95
_ERF_P = (
    *(1.1283791437476918, 0.19155982067915348, 0.052876404953074475),
    *(0.003808485619564752, 0.0002846806873545596, 2.0256486589701986e-06),
)
_ERF_Q = (1.0, 0.5030981466045443, 0.11456328270949581, 0.015055752447345838, 0.0011707774663301958, 3.782874104391486e-05)


def exponential(x: Any) -> Any:
    """exp(x); 0 where that is below 1.2e-38."""

    def of(value: Any) -> Any:
        bounded = tirx.max(tirx.min(value, _float(_MOST)), _float(_LEAST))
        scaled = bounded * _float(1 / math.log(2.0)) + _float(0.5)
        return _let(tirx.floor(scaled), lambda n: _scaled(bounded - n * _float(_LN2_HIGH) - n * _float(_LN2_LOW), n))

    def ends(value: Any) -> Any:
        low = tirx.Select(value < _float(_LEAST), _float(0.0), of(value))
        high = tirx.Select(value > _float(_MOST), _float(math.inf), low)
        return tirx.Select(tirx.isnan(value), value, high)

    return _let(x, ends)


def error_function(x: Any) -> Any:
    """erf(x)."""

    def quotient(value: Any) -> Any:
        return _let(value * value, lambda t: value * _polynomial(t, _ERF_P) / _polynomial(t, _ERF_Q))

    def bounded(value: Any) -> Any:
        near = _let(tirx.max(tirx.min(value, _float(_ERF_END)), _float(-_ERF_END)), quotient)
        inside = tirx.max(tirx.min(near, _float(1.0)), _float(-1.0))
        return tirx.Select(tirx.isnan(value), value, inside)

    return _let(x, bounded)


def logistic(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return _float(1.0) / (_float(1.0) + exponential(_float(0.0) - x))


def hyperbolic_tangent(x: Any) -> Any:
    """tanh(x): by exponentials, near 0 by its series."""

    def of(value: Any) -> Any:
        far = _float(1.0) - _float(2.0) / (exponential(value * _float(2.0)) + _float(1.0))
        near = _let(value * value, lambda t: value * _polynomial(t, (1, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925)))
        return tirx.Select(tirx.abs(value) < _float(0.35), near, far)

    return _let(x, of)


def gelu(x: Any) -> Any:
    """x * (1 + erf(x / sqrt(2))) / 2."""
    return _let(x, lambda value: _float(0.5) * value * (_float(1.0) + error_function(value * _float(math.sqrt(0.5)))))


def gelu_tanh(x: Any) -> Any:
    """x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2."""

    def of(value: Any) -> Any:
        inner = value * (_float(1.0) + _float(0.044715) * value * value) * _float(math.sqrt(2 / math.pi))
        return _float(0.5) * value * (_float(1.0) + hyperbolic_tangent(inner))

    return _let(x, of)


def silu(x: Any) -> Any:
    """x / (1 + exp(-x))."""
    return _let(x, lambda value: value * logistic(value))


def _scaled(r: Any, n: Any) -> Any:
    series = _let(r, lambda value: _polynomial(value, [1 / math.factorial(k) for k in range(8)]))
    # In two steps: 2**128 is no float32, and its product with a number below 1 is one.
    half = tirx.floor(n * _float(0.5)).astype("int32")
    rest = n.astype("int32") - half
    return series * _power_of_two(half) * _power_of_two(rest)


def _power_of_two(n: Any) -> Any:
    return tirx.reinterpret("float32", tirx.shift_left(n + tirx.const(127, "int32"), tirx.const(23, "int32")))


def _polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    total = _float(coefficients[-1])
    for value in coefficients[-2::-1]:
        total = total * x + _float(value)
    return total


def _float(value: float) -> Any:
    return tirx.const(value, "float32")


def _let(value: Any, body: Function) -> Any:
    """`body` of a value that is computed once, however often the expression names it."""
    var = tirx.Var("value", "float32")
    return tirx.Let(var, value, body(var))


def _elementwise(function: Function) -> Legalization:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        if str(call.ty.dtype) != "float32":
            return call.op.get_attr("FLegalize")(builder, call)

        def define(x: Any) -> Any:
            return te.compute(static_shape(call), lambda *i: function(x(*i)), name=function.__name__)

        return builder.call_te(define, call.args[0], primfunc_name_hint=call.op.name.rpartition(".")[2])

    return legalize


FUNCTIONS: dict[str, Legalization] = {
    "relax.exp": _elementwise(exponential),
    "relax.erf": _elementwise(error_function),
    "relax.sigmoid": _elementwise(logistic),
    "relax.tanh": _elementwise(hyperbolic_tangent),
    "relax.nn.gelu": _elementwise(gelu),
    "relax.nn.gelu_tanh": _elementwise(gelu_tanh),
    "relax.nn.silu": _elementwise(silu),
}
"""For `relax.transform.LegalizeOps`."""
