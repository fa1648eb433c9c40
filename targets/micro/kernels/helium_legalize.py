"""Replacing integer operators by kernels for cores with Helium."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ....passes._tvm import Constant, relax, tvm
from ....passes.graph.module_params import static_shape
from ....passes.integer.registry import PREFIX
from ....passes.plugins.registry import Registry
from ...kernels.layers import NotRepresentable, constant_values, convolution_sizes, folded_bias
from ...kernels.sums import Operand
from ...kernels.taps import group_taps
from ...kernels.use_kernels import NO_STRENGTH_REDUCTION, Kernel, Maker, use_kernels
from . import helium_add, helium_conv, helium_depthwise, helium_pool
from .helium_conv_shape import HeliumConvolution, HeliumPlan
from .helium_epilogue import HeliumEpilogue
from .helium_plans import MOST_TAPS, plan_convolution, plan_depthwise

_NO_LOW_OVERHEAD_LOOPS = "-disable-arm-loloops:bool=true"
"""Their counter is one of the eight registers that VMLADAVA can add to."""

_REACH = 7
"""Vectors of four channels that loads reach from one pointer; beyond, strength reduction would keep many pointers."""

KERNELS: Registry[Maker] = Registry("Helium kernel", prefix=PREFIX)
"""What makes the kernel of each operator."""


@tvm.transform.module_pass(opt_level=0, name="UseHeliumKernels")
class UseHeliumKernels:
    """Use the kernels for cores with Helium where they apply; parameters must be bound.

    Args:
        spare: Whether kernels may take workspace for speed alone.
    """

    def __init__(self, spare: bool = True) -> None:
        self.spare = spare

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        return use_kernels(mod, KERNELS, self.spare)


def _epilogue(call: relax.Call) -> HeliumEpilogue:
    return HeliumEpilogue.of(call.attrs)


def _check_sums(flat: np.ndarray, folded: np.ndarray) -> None:
    """Sums of (O, K) weights must stay within 32 bits for every input."""
    if (np.abs(folded.astype(np.int64)) + 128 * np.abs(flat.astype(np.int64)).sum(1)).max(initial=0) >= 1 << 31:
        raise NotRepresentable("a sum that leaves 32 bits")


@KERNELS.register("qconv2d")
def _convolution(call: relax.Call, spare: int, addition: relax.Call | None = None) -> Kernel | None:
    attrs = call.attrs
    constants = constant_values(call)
    if constants is None or int(attrs.groups) != 1 or [int(d) for d in attrs.dilation] != [1, 1]:
        return None
    weight, bias, multiplier, shift = constants
    conv = HeliumConvolution(**convolution_sizes(call), epilogue=_epilogue(call))
    flat = weight.reshape(conv.out_channels, -1)
    folded = folded_bias(call, flat, bias)
    _check_sums(flat, folded)
    padded = any(int(p) for p in attrs.padding)
    if conv.kernel == (conv.height, conv.width) and not padded and addition is None:
        return _fully_connected(call, flat, folded, multiplier, shift)
    plan = plan_convolution(conv)
    made = _sum(addition) if addition is not None else None
    kernel = helium_conv.HeliumKernel(conv, plan, made[0] if made is not None else None)
    packed = kernel.constants(weight, folded, multiplier, shift)
    if made is not None:
        return Kernel("conv2d_add", kernel.function(), [packed, made[1]], _options(plan))
    return Kernel("conv2d", kernel.function(), [packed], _options(plan), repeat=True)


def _options(plan: HeliumPlan) -> str:
    """The LLVM options of a convolution."""
    long = plan.runs * plan.unroll > _REACH
    return f"{_NO_LOW_OVERHEAD_LOOPS} {NO_STRENGTH_REDUCTION}" if long else _NO_LOW_OVERHEAD_LOOPS


@KERNELS.register("qdense")
def _dense(call: relax.Call) -> Kernel | None:
    constants = constant_values(call)
    if constants is None or int(np.prod(static_shape(call.args[0])[:-1])) != 1:
        return None
    weight, bias, multiplier, shift = constants
    folded = folded_bias(call, weight, bias)
    _check_sums(weight, folded)
    return _fully_connected(call, weight, folded, multiplier, shift)


def _fully_connected(
    call: relax.Call, weight: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> Kernel:
    """A layer of (O, K) weights as the convolution of one pixel."""
    outputs, inputs = weight.shape
    conv = HeliumConvolution(
        height=1,
        width=1,
        channels=inputs,
        out_height=1,
        out_width=1,
        out_channels=outputs,
        kernel=(1, 1),
        strides=(1, 1),
        top=0,
        left=0,
        input_zero_point=int(call.attrs.input_zero_point),
        epilogue=_epilogue(call),
    )
    plan = plan_convolution(conv)
    one_scale = bool((multiplier == multiplier[0]).all() and (shift == shift[0]).all())
    kernel = helium_conv.HeliumKernel(conv, replace(plan, one_scale=one_scale))
    packed = kernel.constants(weight.reshape(outputs, 1, 1, inputs), bias, multiplier, shift)
    return Kernel("dense", kernel.function(), [packed], _options(plan), repeat=True)


@KERNELS.register("qdepthwise")
def _depthwise(call: relax.Call) -> Kernel | None:
    attrs = call.attrs
    constants = constant_values(call)
    if constants is None or [int(d) for d in attrs.dilation] != [1, 1]:
        return None
    weight, bias, multiplier, shift = constants
    _, height, width, channels = static_shape(call.args[0])
    _, out_height, out_width, outputs = static_shape(call)
    if outputs != channels:
        return None
    taps = weight.reshape(-1, channels)
    folded = folded_bias(call, taps.T, bias)
    _check_sums(taps.T, folded)
    layer = helium_depthwise.HeliumDepthwise(
        height=height,
        width=width,
        channels=channels,
        out_height=out_height,
        out_width=out_width,
        kernel=weight.shape[1:3],
        strides=tuple(int(s) for s in attrs.strides),  # type: ignore[arg-type]
        top=int(attrs.padding[0]),
        left=int(attrs.padding[1]),
        input_zero_point=int(attrs.input_zero_point),
        epilogue=_epilogue(call),
        groups=group_taps(taps),
        rows=1,
    )
    if not layer.fits or layer.taps > MOST_TAPS:
        return None
    layer = replace(layer, rows=plan_depthwise(layer))
    packed = helium_depthwise.pack_constants(layer, taps, folded, multiplier, shift)
    return Kernel("depthwise", helium_depthwise.depthwise(layer), [packed], options="", repeat=True)


def _sum(call: relax.Call) -> tuple[helium_add.HeliumSum, np.ndarray] | None:
    """The sum that a `qadd` computes, and its constants."""
    attrs = call.attrs
    shapes = [static_shape(arg) for arg in call.args]
    if shapes[0] != shapes[1] or any(isinstance(arg, Constant) for arg in call.args) or shapes[0][-1] % 4:
        return None
    first, second = (
        Operand(int(attrs[f"input{i}_zero_point"]), int(attrs[f"input{i}_multiplier"]), int(attrs[f"input{i}_shift"]))
        for i in (1, 2)
    )
    total = helium_add.HeliumSum(first, second, int(attrs.left_shift), _epilogue(call))
    return total, total.constants(int(attrs.output_multiplier), int(attrs.output_shift))


@KERNELS.register("qadd")
def _add(call: relax.Call) -> Kernel | None:
    made = _sum(call)
    if made is None:
        return None
    total, constants = made
    return Kernel("add", helium_add.add(int(np.prod(static_shape(call))), total), [constants], options="")


@KERNELS.register("qavgpool")
def _average(call: relax.Call) -> Kernel | None:
    attrs = call.attrs
    _, height, width, channels = static_shape(call.args[0])
    whole = [int(p) for p in attrs.pool_size] == [height, width] and not any(int(p) for p in attrs.padding)
    if not whole or channels < helium_pool.LANES or not 2 <= height * width <= helium_pool.MOST_PIXELS:
        return None
    func = helium_pool.global_average(height * width, channels, int(attrs.qmin), int(attrs.qmax))
    return Kernel("average", func, [], options="")
