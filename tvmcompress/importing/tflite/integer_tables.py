"""Quantized functions of one value as tables, computed as TFLite's interpreter computes them when it prepares a model.

In 8 bits a table has an entry for every integer and is exact; in 16 bits TFLite itself interpolates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erfc

from ...passes._tvm import relax
from ...passes.integer import ops
from ...passes.integer.fixed_point import divide_by_power_of_two, high_product
from ...passes.integer.requantize import multiply, quantize_multiplier
from .file import TfliteOperator, TfliteTensor
from .importer import Converter, Importer, integer
from .integer_elementwise import bent, float_ratio

Function = Callable[[np.ndarray], np.ndarray]
_INTEGERS = np.arange(-128, 128)
_GELU_FACTOR = np.float32(0.7978845608028654)


def single(function: Function) -> Function:
    """A function in float32, computed in double precision and rounded: within the last bit of any float32 library."""

    def rounded(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return function(x.astype(np.float64)).astype(np.float32)

    return rounded


def _logistic(x: np.ndarray) -> np.ndarray:
    one = np.float32(1)
    return one / (one + single(np.exp)(-x))


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, single(np.expm1)(x), x)


def _gelu(x: np.ndarray) -> np.ndarray:
    half = np.float32(0.5)
    return half * x * single(erfc)(x * np.float32(-np.sqrt(0.5)))


def _approximate_gelu(x: np.ndarray) -> np.ndarray:
    half, one, cubic = np.float32(0.5), np.float32(1), np.float32(0.044715)
    return half * x * (one + single(np.tanh)(_GELU_FACTOR * (x + cubic * x * x * x)))


def _logarithm(out: TfliteTensor) -> Function:
    lowest = np.float32(out.limits[0] - out.zero_point) * np.float32(out.scale)
    return lambda x: np.where(x <= 0, lowest, single(np.log)(np.where(x <= 0, 1, x)))


def _reciprocal_root(out: TfliteTensor) -> Function:
    highest = np.float32(32767) * np.float32(out.scale)
    return lambda x: np.where(x <= 0, highest, np.float32(1) / np.sqrt(np.where(x <= 0, np.float32(1), x)))


def _by_table(
    function: Callable[[TfliteOperator], Function],
) -> Converter:
    def convert(importer: Importer, operator: TfliteOperator) -> relax.Expr | list[relax.Expr]:
        x, out = operator.operand(0), operator.output
        # In 16 bits TFLite has arithmetic of its own for these two, which is nearer to float than to a coarse table.
        own = x.dtype == "int16" and operator.kind in ("LOGISTIC", "TANH")
        if own or (x.dtype, out.dtype) not in (("int8", "int8"), ("int16", "int16")):
            return importer.in_float(operator)
        make = table if x.dtype == "int8" else interpolated
        return _looked_up(importer, operator, make(function(operator), x, out))

    return convert


def _looked_up(importer: Importer, operator: TfliteOperator, entries: np.ndarray) -> relax.Expr:
    return ops.qlut(importer.value(operator.operand(0)), importer.param(f"{operator.output.name}.table", entries))


def _half_away(x: np.ndarray) -> np.ndarray:
    whole = np.trunc(x)
    with np.errstate(invalid="ignore"):
        return whole + np.where(np.abs(x - whole) >= 0.5, np.sign(x), np.float32(0))


def table(function: Function, x: TfliteTensor, out: TfliteTensor) -> np.ndarray:
    """A function of an int8 (`LUTPopulate`): int8 (256,)."""
    real = np.float32(x.scale) * (_INTEGERS - x.zero_point).astype(np.float32)
    scaled = function(real).astype(np.float32) * (np.float32(1) / np.float32(out.scale))
    return _saturated(_half_away(scaled).astype(np.float64) + out.zero_point)


def interpolated(function: Function, x: TfliteTensor, out: TfliteTensor) -> np.ndarray:
    """A function of an int16, to be interpolated (`LUTPopulate`): int16 (513,)."""
    unit, steps, two = np.float32(x.scale), np.float32(512), np.float32(2)
    low, high = (unit * np.float32(bound - x.zero_point) for bound in (-32768, 32767))
    bounds = [np.float32(out.scale) * np.float32(bound - out.zero_point) for bound in (-32768, 32767)]
    step = np.float32((high - low) / steps)
    inverse = np.float32(np.float32(65536) / (bounds[1] - bounds[0]))
    places = low + np.arange(512, dtype=np.float32) * step
    following = low + np.arange(1, 513, dtype=np.float32) * step
    value, middle, after = (function(p).astype(np.float32) for p in (places, places + step / two, following))
    sample = _half_away(value * inverse)
    error = _half_away((after * inverse + sample) / two) - _half_away(middle * inverse)
    last = _half_away(function(np.array([high], np.float32)).astype(np.float32) * inverse)
    entries = np.concatenate([sample - _half_away(error / two), last])
    return np.clip(entries, -32768, 32767).astype(np.int16)


def _saturated(x: np.ndarray) -> np.ndarray:
    return np.clip(np.nan_to_num(x, nan=-128.0), -128, 127).astype(np.int8)


for _kind, _function in {
    "LOGISTIC": _logistic,
    "TANH": single(np.tanh),
    "ELU": _elu,
    "EXP": single(np.exp),
}.items():
    integer(_kind)(_by_table(lambda operator, found=_function: found))  # type: ignore[misc]
integer("LOG")(_by_table(lambda operator: _logarithm(operator.output)))
integer("GELU")(_by_table(lambda operator: _approximate_gelu if operator.option("Approximate", False) else _gelu))


def _exact(
    function: Callable[[TfliteOperator], np.ndarray], slope: Callable[[TfliteOperator], float] | None = None
) -> Converter:
    """An operator of int8 whose table is computed in integers.

    Args:
        function: Gives its 256 results, not yet saturated.
        slope: Of its negative side, where the operator is a rectifier that has one: in 16 bits it then needs no table.
    """

    def convert(importer: Importer, operator: TfliteOperator) -> relax.Expr | list[relax.Expr]:
        x, out = operator.operand(0), operator.output
        if (x.dtype, out.dtype) == ("int16", "int16") and slope is not None:
            return bent(importer, operator, slope(operator))
        if (x.dtype, out.dtype) != ("int8", "int8"):
            return importer.in_float(operator)
        return _looked_up(importer, operator, _saturated(function(operator).astype(np.float64)))

    return convert


def _steps(operator: TfliteOperator) -> np.ndarray:
    return _INTEGERS - operator.operand(0).zero_point


def _leaky_relu(operator: TfliteOperator) -> np.ndarray:
    x, out, steps = operator.operand(0), operator.output, _steps(operator)
    slope = float_ratio(x.scale, operator.option("Alpha", 0.0), out.scale)
    above = multiply(steps, *quantize_multiplier(float_ratio(x.scale, out.scale)), "double")
    below = multiply(steps, *quantize_multiplier(abs(slope)), "double")
    return np.where(steps >= 0, above, below if slope >= 0 else -below) + out.zero_point


def _absolute(operator: TfliteOperator) -> np.ndarray:
    x, out, value = operator.operand(0), operator.output, np.abs(_steps(operator))
    if x.scale != out.scale:
        value = multiply(value, *quantize_multiplier(float_ratio(x.scale, out.scale)), "double")
    return value + out.zero_point


integer("LEAKY_RELU")(_exact(_leaky_relu, lambda operator: float(operator.option("Alpha", 0.0))))
integer("ABS")(_exact(_absolute, lambda operator: -1.0))


@integer("SQRT")
@_exact
def _root(operator: TfliteOperator) -> np.ndarray:
    x, out = operator.operand(0), operator.output
    real = np.float32(x.scale) * np.maximum(_steps(operator), 0).astype(np.float32)
    return np.trunc(np.sqrt(real) / np.float32(out.scale)) + out.zero_point


@integer("HARD_SWISH")
@_exact
def _hard_swish(operator: TfliteOperator) -> np.ndarray:
    """TFLite's arithmetic in 16 bits (`HardSwish` of its reference kernels)."""
    x, out = operator.operand(0), operator.output
    fine = np.float32(1 / 128) * np.float32(x.scale)
    output, output_shift = _in_16_bits(float(fine / np.float32(out.scale)))
    relu, relu_shift = _in_16_bits(float(fine / np.float32(3 / 32768)))
    value = _steps(operator) << 7
    on_output = _high_16(value, output)
    gate = np.clip(value << (relu_shift - 1), -32768, 32767) if relu_shift > 0 else value
    gate = _high_16(gate, relu)
    if relu_shift > 0:
        gate = np.clip(gate << 1, -32768, 32767)
    elif relu_shift < 0:
        gate = divide_by_power_of_two(gate, -relu_shift)
    gate = (gate + (1 << 15)) >> 1
    product = np.trunc(gate * on_output / 32768).astype(np.int64)
    return divide_by_power_of_two(product, max(-output_shift, 0)) + out.zero_point


def _in_16_bits(factor: float) -> tuple[int, int]:
    multiplier, shift = quantize_multiplier(factor)
    return min((multiplier + (1 << 15)) >> 16, 32767), shift


def _high_16(a: np.ndarray, b: int) -> np.ndarray:
    """The upper half of the doubled product of two int16, rounded half away from zero."""
    product = a * b
    return np.trunc((product + np.where(product >= 0, 1 << 14, 1 - (1 << 14))) / 32768).astype(np.int64)


def _rsqrt_table(operator: TfliteOperator) -> np.ndarray:
    x, out, steps = operator.operand(0), operator.output, _steps(operator)
    scale = 1.0 / float(np.sqrt(np.float32(x.scale)) * np.float32(out.scale))
    multiplier, shift = quantize_multiplier(scale)
    bits = 20
    results = np.full(256, 127 - out.zero_point, np.int64)
    for place in np.flatnonzero(steps > 0):
        root, right = _inverse_root(int(steps[place]))
        data = multiply(np.array(1), root, bits - right, "double")
        results[place] = multiply(data, multiplier, shift - bits, "double")
    return results + out.zero_point


def _inverse_root(value: int) -> tuple[int, int]:
    """1 / sqrt(value) as root * 2**(-31 - right) (`GetInvSqrtQuantizedMultiplierExp`), for values below 2**29."""
    if value <= 1:
        return 2**31 - 1, 0
    pairs = (31 - value.bit_length()) // 2 - 1
    right, number = 11 - pairs, np.array(value << (2 * pairs), np.int64)
    whole = number >> 1
    half = divide_by_power_of_two(whole, 1)
    x = np.array(1 << 28, np.int64)
    for _ in range(5):
        # Three integer bits each; products have six and nine.
        cube = high_product(high_product(x, x), x) << 6
        x = (high_product(np.array((1 << 28) + (1 << 27)), x) - high_product(half, cube)) << 3
    root = int(high_product(x, 1518500250))
    return (root << -right, 0) if right < 0 else (root, right)


@integer("RSQRT")
def _rsqrt(importer: Importer, operator: TfliteOperator) -> relax.Expr | list[relax.Expr] | None:
    if operator.operand(0).dtype == "int16":
        return _by_table(lambda found: _reciprocal_root(found.output))(importer, operator)
    return _exact(_rsqrt_table)(importer, operator)
