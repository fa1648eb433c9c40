"""Element-wise operators: one operand, several that broadcast, and changes of type."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .axes import Axes, Value, from_pairs, tensors
from .registry import Flow, NotCovered, constant_value, rule

# Operators with f(0) = 0: what is zero stays zero.
_KEEPS_ZERO = """
abs asin asinh atan atanh ceil erf floor negative nn.gelu nn.gelu_tanh nn.leakyrelu nn.relu nn.relu6 nn.selu nn.silu round
sign sin sinh sqrt square tan tanh trunc astype hint_on_device to_vdevice wrap_param
"""
_LOSES_ZERO = """
acos acosh bitwise_not cos cosh exp isfinite isinf isnan log logical_not nn.softplus rsqrt sigmoid
"""

# f(a, b) for operators whose result at zero tells whether zeros stay zeros.
_SAME = """
add subtract maximum minimum power equal not_equal greater greater_equal less less_equal logical_or logical_xor
"""
_BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    **{name: getattr(np, name) for name in _SAME.split()},
    "log_add_exp": np.logaddexp,
    "atan2": np.arctan2,
    "bitwise_or": np.add,
    "bitwise_xor": np.add,
}
_PRODUCTS = ("multiply", "logical_and", "bitwise_and", "left_shift", "right_shift")
_QUOTIENTS = ("divide", "floor_divide", "mod", "floor_mod")

ZeroRule = Callable[[list["np.ndarray | None"]], np.ndarray]


def join(flow: Flow, operands: Sequence[Axes], zero_rule: ZeroRule) -> Axes:
    """Broadcast operands against each other, tying positions that meet.

    `zero_rule` is given, for one axis, the zero flags of each operand, None where the operand is broadcast along the
    axis, and returns those of the result.
    """
    pairs = []
    rank = max(len(operand) for operand in operands)
    for axis in range(-rank, 0):
        present = [operand if -axis <= len(operand) else None for operand in operands]
        size = max(len(operand.ids[axis]) for operand in present if operand is not None)
        ids: np.ndarray | None = None
        flags: list[np.ndarray | None] = []
        for operand in present:
            if operand is None or len(operand.ids[axis]) != size:
                flags.append(None)
                continue
            flags.append(operand.zero[axis])
            if ids is None:
                ids = operand.ids[axis]
            else:
                flow.tie(ids, operand.ids[axis])
        assert ids is not None
        zero = zero_rule(flags) if size > 1 else np.zeros(1, bool)
        pairs.append((ids, zero))
    return from_pairs(pairs)


def all_zero(flags: list[np.ndarray | None]) -> np.ndarray:
    """Zero where every operand is: a broadcast operand is not."""
    known = [flag for flag in flags if flag is not None]
    return np.logical_and.reduce(known) & np.full(len(known[0]), len(known) == len(flags))


def any_zero(flags: list[np.ndarray | None]) -> np.ndarray:
    """Zero where one operand is."""
    return np.logical_or.reduce([flag for flag in flags if flag is not None])


def first_zero(flags: list[np.ndarray | None]) -> np.ndarray:
    """Zero where the first operand is."""
    if flags[0] is not None:
        return flags[0]
    return np.zeros(max(len(flag) for flag in flags if flag is not None), bool)


@rule(*(f"relax.{name}" for name in _KEEPS_ZERO.split()))
def _keeps_zero(flow: Flow) -> Axes:
    return flow.operand(0)


@rule(*(f"relax.{name}" for name in _LOSES_ZERO.split()))
def _loses_zero(flow: Flow) -> Axes:
    return flow.operand(0).without_zero()


@rule("relax.clip")
def _clip(flow: Flow) -> Axes:
    low, high = flow.constant(1), flow.constant(2)
    data = flow.operand(0)
    return data if low is not None and high is not None and low <= 0 <= high else data.without_zero()


@rule("relax.nn.dropout")
def _dropout(flow: Flow) -> Value:
    data = flow.operand(0)
    return [data, data.without_zero()]


@rule(*(f"relax.{name}" for name in _BINARY))
def _binary(flow: Flow) -> Axes:
    function = _BINARY[flow.call.op.name.removeprefix("relax.")]
    operands = [flow.operand(0), flow.operand(1)]
    for index in (0, 1):
        value = flow.constant(index)
        if value is None:
            continue
        # Zero stays zero against this constant, whichever of its elements it meets.
        pair = (value, np.zeros_like(value)) if index == 0 else (np.zeros_like(value), value)
        with np.errstate(all="ignore"):
            keeps = bool((np.asarray(function(*pair)) == 0).all())
        if keeps:
            return join(flow, [operands[1 - index], operands[index]], first_zero)
    with np.errstate(all="ignore"):
        keeps = bool(function(np.zeros(1), np.zeros(1))[0] == 0)
    joined = join(flow, operands, all_zero)
    return joined if keeps else joined.without_zero()


@rule(*(f"relax.{name}" for name in _PRODUCTS))
def _product(flow: Flow) -> Axes:
    rule_of_zero = first_zero if "shift" in flow.call.op.name else any_zero
    return join(flow, [flow.operand(0), flow.operand(1)], rule_of_zero)


@rule(*(f"relax.{name}" for name in _QUOTIENTS))
def _quotient(flow: Flow) -> Axes:
    data, divisor = flow.operand(0), flow.operand(1)
    for ids, zero in divisor.pairs():
        flow.freeze(ids[zero], f"{flow.name} divides by it, and it would be zero")
    return join(flow, [data, divisor], first_zero)


@rule("relax.ewise_fma")
def _multiply_add(flow: Flow) -> Axes:
    product = join(flow, [flow.operand(0), flow.operand(1)], any_zero)
    return join(flow, [product, flow.operand(2)], all_zero)


@rule("relax.where")
def _where(flow: Flow) -> Axes:
    def both_branches(flags: list[np.ndarray | None]) -> np.ndarray:
        _, left, right = flags
        if left is None or right is None:
            return np.zeros(max(len(flag) for flag in flags if flag is not None), bool)
        return left & right

    return join(flow, [flow.operand(0), flow.operand(1), flow.operand(2)], both_branches)


@rule("relax.nn.prelu")
def _prelu(flow: Flow) -> Axes:
    data, slope = flow.operand(0), flow.operand(1)
    axis = int(flow.attrs.axis) % len(data)
    if slope.shape == (len(data.ids[axis]),):
        flow.tie(data.ids[axis], slope.ids[0])
    elif slope.shape != (1,):
        raise NotCovered(f"the slope of {flow.name} has an unusual shape")
    return data


@rule("relax.quantize", "relax.dequantize")
def _quantization(flow: Flow) -> Axes:
    data = flow.operand(0)
    axis = int(flow.attrs.axis) % len(data)
    for operand in (flow.operand(1), flow.operand(2)):
        if len(operand) == 1 and operand.shape[0] == len(data.ids[axis]):
            flow.tie(data.ids[axis], operand.ids[0])
    zero_point = constant_value(flow.call.args[2])
    return data if zero_point is not None and not zero_point.any() else data.without_zero()


@rule("relax.zeros_like")
def _zeros_like(flow: Flow) -> Axes:
    data = flow.operand(0)
    return from_pairs([(ids, np.ones(len(ids), bool)) for ids in data.ids])


@rule("relax.ones_like", "relax.full_like")
def _full_like(flow: Flow) -> Axes:
    return flow.operand(0).without_zero()


@rule("relax.zeros", "relax.ones", "relax.full", "relax.arange", "relax.eye", "relax.tril", "relax.triu")
def _fixed(flow: Flow) -> Axes:
    for value in flow.operands:
        for axes in tensors(value):
            for ids in axes.ids:
                flow.freeze(ids, f"{flow.name} depends on the position")
    return flow.fixed_like(flow.out_shape)
