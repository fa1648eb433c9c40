"""Replacing integer operators by kernels for cores with Helium."""

from __future__ import annotations

import numpy as np

from ....passes._tvm import Constant, relax, tvm
from ....passes.integer.registry import PREFIX
from ....passes.module_params import static_shape
from . import helium_add, helium_conv
from .elementwise import Operand
from .epilogue import NotRepresentable
from .helium_epilogue import HeliumEpilogue
from .helium_plans import plan_convolution
from .legalize import Kernel, Makers, constant_values, folded_bias, use_kernels

_NO_LOW_OVERHEAD_LOOPS = "-disable-arm-loloops:bool=true"
"""Their counter is one of the eight registers that VMLADAVA can add to."""


@tvm.transform.module_pass(opt_level=0, name="UseHeliumKernels")
class UseHeliumKernels:
    """Use the kernels for cores with Helium where they apply; parameters must be bound."""

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        return use_kernels(mod, _MAKERS)


def _epilogue(call: relax.Call) -> HeliumEpilogue:
    attrs = call.attrs
    return HeliumEpilogue(str(attrs.rounding), int(attrs.output_zero_point), int(attrs.qmin), int(attrs.qmax))


def _check_sums(flat: np.ndarray, folded: np.ndarray) -> None:
    """Sums of (O, K) weights must stay within 32 bits for every input."""
    if (np.abs(folded.astype(np.int64)) + 128 * np.abs(flat.astype(np.int64)).sum(1)).max(initial=0) >= 1 << 31:
        raise NotRepresentable("a sum that leaves 32 bits")


def _convolution(call: relax.Call, addition: relax.Call | None = None) -> Kernel | None:
    attrs = call.attrs
    constants = constant_values(call)
    if constants is None or int(attrs.groups) != 1 or [int(d) for d in attrs.dilation] != [1, 1]:
        return None
    weight, bias, multiplier, shift = constants
    outputs, kh, kw, channels = weight.shape
    _, height, width, _ = static_shape(call.args[0])
    _, out_height, out_width, _ = static_shape(call)
    top, left = (int(p) for p in list(attrs.padding)[:2])
    flat = weight.reshape(outputs, -1)
    folded = folded_bias(call, flat, bias)
    _check_sums(flat, folded)
    conv = helium_conv.HeliumConvolution(
        height=height,
        width=width,
        channels=channels,
        out_height=out_height,
        out_width=out_width,
        out_channels=outputs,
        kernel=(kh, kw),
        strides=tuple(int(s) for s in attrs.strides),  # type: ignore[arg-type]
        top=top,
        left=left,
        input_zero_point=int(attrs.input_zero_point),
        epilogue=_epilogue(call),
    )
    plan = plan_convolution(conv)
    if plan is None:
        return None
    made = _sum(addition) if addition is not None else None
    kernel = helium_conv.HeliumKernel(conv, plan, made[0] if made is not None else None)
    constants = [kernel.weights(weight), kernel.parameters(folded, multiplier, shift)]
    if made is not None:
        return Kernel("conv2d_add", kernel.function(), [*constants, made[1]], _NO_LOW_OVERHEAD_LOOPS)
    return Kernel("conv2d", kernel.function(), constants, _NO_LOW_OVERHEAD_LOOPS, repeat=True)


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


def _add(call: relax.Call) -> Kernel | None:
    made = _sum(call)
    if made is None:
        return None
    total, constants = made
    return Kernel("add", helium_add.add(int(np.prod(static_shape(call))), total), [constants], "")


_MAKERS: Makers = {
    f"{PREFIX}qconv2d": _convolution,
    f"{PREFIX}qadd": _add,
}
