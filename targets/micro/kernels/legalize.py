"""Replacing integer operators by this core's kernels; what no kernel takes keeps its generic definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from tvm.relax.expr_functor import PyExprMutator, mutator

from ....passes._tvm import Constant, relax, tirx, tvm
from ....passes.integer.registry import PREFIX
from ....passes.module_params import static_shape
from ....passes.rebuild import bindings, users
from ...aot.lower import LLVM_OPTIONS_ATTR
from . import dense, depthwise, elementwise, panel, pool, winograd
from .constant_channels import settle_constant_channels
from .epilogue import Epilogue, NotRepresentable
from .packing import planes_are_exact
from .plans import plan_band, plan_convolution, plan_winograd

NO_STRENGTH_REDUCTION = "-disable-lsr:bool=true"
"""Mostly LLVM's loop strength reduction costs registers."""

_SMALL_LAYER = 1536
"""Weights."""


@tvm.transform.module_pass(opt_level=0, name="UseDspKernels")
class UseDspKernels:
    """Use the kernels for cores with the DSP extension where they apply; parameters must be bound."""

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        return use_kernels(mod, _MAKERS)


def use_kernels(mod: tvm.IRModule, makers: Makers) -> tvm.IRModule:
    """Replace the operators of `main` for which `makers` make a kernel.

    The maker of a convolution takes a `qadd` as its second argument, which it may compute as well: its kernel is then
    called "conv2d_add".
    """
    rewriter = _Rewriter(mod, makers)
    main = mod.get_global_var("main")
    rewriter.builder_.update_func(main, rewriter.visit_expr(mod["main"]))
    return rewriter.builder_.get()


@dataclass(frozen=True)
class Kernel:
    """A function with its constants.

    Attributes:
        name: Starts the function's name.
        func: The function.
        constants: Its constants.
        options: The LLVM options that it is compiled with, separated by spaces.
        repeat: Whether the tensor and the last constant are given a second time, for parameters that are not read.
    """

    name: str
    func: tirx.PrimFunc
    constants: list[np.ndarray]
    options: str = NO_STRENGTH_REDUCTION
    repeat: bool = False


Makers = Mapping[str, Callable[..., Kernel | None]]


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, makers: Makers) -> None:
        super().__init__(mod)
        self._makers = makers
        main = mod["main"]
        self._values = dict(bindings(main))
        self._readers = users(main)
        self._order = {var: index for index, var in enumerate(self._values)}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        name = getattr(call.op, "name", "")
        if static_shape(call)[:1] != (1,) if name in self._makers else False:
            return self.visit_expr_post_order(call)
        if name == f"{PREFIX}qadd":
            fused = self._convolution_and_sum(call)
            if fused is not None:
                return fused
        call = self.visit_expr_post_order(call)
        if name not in self._makers:
            return call
        try:
            kernel = self._makers[name](call)
        except NotRepresentable:
            return call
        if kernel is None:
            return call
        tensors = [self._flat(arg) for arg in call.args if not isinstance(arg, Constant)]
        constants = [relax.const(value) for value in kernel.constants]
        args = [*tensors, *constants]
        if kernel.repeat:
            args += [tensors[0], constants[-1]]
        return self._call(kernel, args, static_shape(call))

    def _convolution_and_sum(self, call: relax.Call) -> relax.Expr | None:
        """A sum fused into the convolution that makes one of its operands, for no one else, after the other one."""
        for index in (1, 0):
            own, other = call.args[index], call.args[1 - index]
            conv = self._values.get(own)
            made_last = self._order.get(other, -1) < self._order.get(own, -1)
            if not (isinstance(conv, relax.Call) and getattr(conv.op, "name", "") == f"{PREFIX}qconv2d" and made_last):
                continue
            if len(self._readers[own]) != 1 or own.same_as(other):
                continue
            try:
                kernel = self._makers[f"{PREFIX}qconv2d"](conv, _swapped(call) if index == 1 else call)
            except NotRepresentable:
                continue
            if kernel is None or kernel.name != "conv2d_add":
                continue
            *own_constants, table = (relax.const(value) for value in kernel.constants)
            x, skip = self._flat(self.visit_expr(conv.args[0])), self._flat(self.visit_expr(other))
            return self._call(kernel, [x, *own_constants, skip, table], static_shape(call))
        return None

    def _flat(self, tensor: relax.Expr) -> relax.Expr:
        return self.builder_.emit(relax.op.reshape(tensor, (int(np.prod(static_shape(tensor))),)))

    def _call(self, kernel: Kernel, args: list[relax.Expr], shape: tuple[int, ...]) -> relax.Expr:
        func = kernel.func.with_attr(LLVM_OPTIONS_ATTR, kernel.options) if kernel.options else kernel.func
        # Opaque to fusion: the body is a loop nest of its own, not a block.
        function = self.builder_.add_func(func.with_attr("op_pattern", 8), kernel.name)
        out_type = relax.TensorType((int(np.prod(shape)),), "int8")
        result = self.builder_.emit(relax.call_tir(function, relax.Tuple(args), out_ty=out_type))
        return relax.op.reshape(result, shape)


def _swapped(call: relax.Call) -> relax.Call:
    """The same sum with its operands exchanged."""
    attrs = {str(key): value for key, value in call.attrs.items()}
    for name in ("zero_point", "multiplier", "shift"):
        one, two = f"input1_{name}", f"input2_{name}"
        attrs[one], attrs[two] = attrs[two], attrs[one]
    return relax.Call(call.op, [call.args[1], call.args[0]], tvm.ir.make_node("ir.DictAttrs", **attrs))


def constant_values(call: relax.Call) -> list[np.ndarray] | None:
    """Weights, bias, multipliers and shifts of a layer; None where one of them is computed."""
    values = [arg.value.numpy() for arg in call.args[1:] if isinstance(arg, Constant)]
    return values if len(values) == len(call.args) - 1 else None


def _epilogue(call: relax.Call) -> Epilogue:
    attrs = call.attrs
    return Epilogue(str(attrs.rounding), int(attrs.output_zero_point), int(attrs.qmin), int(attrs.qmax))


def folded_bias(call: relax.Call, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The bias with the input's zero point taken out of the sum over (O, K) weights."""
    folded = bias.astype(np.int64) - int(call.attrs.input_zero_point) * weight.astype(np.int64).sum(1)
    if np.abs(folded).max(initial=0) >= 1 << 31:
        raise NotRepresentable("a bias that leaves 32 bits")
    return folded.astype(np.int32)


def _settled(
    call: relax.Call, weight: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights (O, K), bias with the input's zero point taken out, multipliers and shifts, proven to fit the kernels."""
    epilogue = _epilogue(call)
    settled = settle_constant_channels(weight, folded_bias(call, weight, bias), multiplier, shift, epilogue)
    epilogue.check_range(*settled[:2])
    return settled


def _is_late(weight: np.ndarray, bias: np.ndarray) -> bool:
    """Whether byte planes hold the weights but not the bias with them."""
    return planes_are_exact(weight) and not planes_are_exact(weight, bias)


def _convolution(call: relax.Call, addition: relax.Call | None = None) -> Kernel | None:
    attrs = call.attrs
    constants = constant_values(call)
    if constants is None or int(attrs.groups) != 1 or [int(d) for d in attrs.dilation] != [1, 1]:
        return None
    weight, bias, multiplier, shift = constants
    outputs, kh, kw, channels = weight.shape
    _, height, width, _ = static_shape(call.args[0])
    _, out_height, out_width, _ = static_shape(call)
    top, left, bottom, right = (int(p) for p in attrs.padding)
    flat, folded, multiplier, shift = _settled(call, weight.reshape(outputs, -1), bias, multiplier, shift)
    weight = flat.reshape(weight.shape)
    covers = (out_height, out_width) == (1, 1) and (kh, kw) == (height, width) and not (top or left or bottom or right)
    if covers:
        return _fully_connected(call, flat, folded, multiplier, shift)
    conv = panel.Convolution(
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
    made = _sum(addition) if addition is not None else None
    residual = made[0] if made is not None else None
    minimal = plan_winograd(conv)
    if minimal is not None:
        fast = winograd.WinogradConvolution(conv, minimal, residual)
        constants = [fast.weights(weight), fast.parameters(folded, multiplier, shift)]
        if made is not None:
            return Kernel("conv2d_add", fast.function(), [*constants, made[1]])
        return Kernel("conv2d", fast.function(), constants, repeat=True)
    plan = plan_convolution(conv, residual is not None)
    if plan is None:
        return None
    plan = replace(plan, wide_weights=not planes_are_exact(flat), late_bias=_is_late(flat, folded))
    kernel = panel.PanelConvolution(conv, plan, residual)
    constants = [kernel.weights(weight), kernel.parameters(folded, multiplier, shift)]
    if made is not None:
        return Kernel("conv2d_add", kernel.function(), [*constants, made[1]])
    return Kernel("conv2d", kernel.function(), constants, repeat=True)


def _depthwise(call: relax.Call) -> Kernel | None:
    attrs = call.attrs
    constants = constant_values(call)
    if constants is None or [int(d) for d in attrs.dilation] != [1, 1]:
        return None
    weight, bias, multiplier, shift = constants
    _, height, width, channels = static_shape(call.args[0])
    _, out_height, out_width, outputs = static_shape(call)
    strides = [int(s) for s in attrs.strides]
    top, left = (int(p) for p in list(attrs.padding)[:2])
    fits = weight.shape[1:3] == (3, 3) and outputs == channels and channels % 4 == 0
    if not fits or strides not in ([1, 1], [2, 2]) or max(top, left) > 1 or width < 2 or out_width < 2:
        return None
    layer = depthwise.Depthwise(
        height, width, channels, out_height, out_width, strides[0], top, left, int(attrs.input_zero_point),
        _epilogue(call), 1,
    )  # fmt: skip
    layer = replace(layer, band=plan_band(out_height, layer))
    flat, folded, multiplier, shift = _settled(call, weight.reshape(-1, channels).T, bias, multiplier, shift)
    weight = flat.T.reshape(weight.shape)
    parameters = depthwise.pack_parameters(layer, folded, multiplier, shift)
    return Kernel(
        "depthwise", depthwise.depthwise_3x3(layer), [depthwise.pack_weights(weight[0]), parameters], options=""
    )


def _dense(call: relax.Call) -> Kernel | None:
    constants = constant_values(call)
    if constants is None or int(np.prod(static_shape(call.args[0])[:-1])) != 1:
        return None
    weight, bias, multiplier, shift = constants
    return _fully_connected(call, *_settled(call, weight, bias, multiplier, shift))


def _fully_connected(
    call: relax.Call, weight: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> Kernel | None:
    outputs, inputs = weight.shape
    if inputs % 4 or not planes_are_exact(weight):
        return None
    # Unpacking once pays for small inputs; for large ones the workspace would cost more RAM than it saves time.
    unpacked = inputs <= 128
    # Small layers would be mostly code.
    longest = 32 if weight.size >= _SMALL_LAYER else 4
    unroll = max(u for u in range(1, longest + 1) if inputs // 4 % u == 0)
    one_scale = bool((multiplier == multiplier[0]).all() and (shift == shift[0]).all())
    late = _is_late(weight, bias)
    layer = dense.Dense(inputs, outputs, _epilogue(call), 2 if unpacked else 4, unroll, unpacked, late, one_scale)
    constants = [dense.pack_weights(layer, weight), dense.pack_parameters(layer, bias, multiplier, shift)]
    return Kernel("dense", dense.dense(layer), constants)


def _sum(call: relax.Call) -> tuple[elementwise.Sum, np.ndarray] | None:
    """The sum that a `qadd` computes, and its constants."""
    attrs = call.attrs
    shapes = [static_shape(arg) for arg in call.args]
    if shapes[0] != shapes[1] or any(isinstance(arg, Constant) for arg in call.args):
        return None
    first, second = (
        elementwise.Operand(
            int(attrs[f"input{i}_zero_point"]), int(attrs[f"input{i}_multiplier"]), int(attrs[f"input{i}_shift"])
        )
        for i in (1, 2)
    )
    total = elementwise.Sum(first, second, int(attrs.left_shift), _epilogue(call))
    return total, total.constants(int(attrs.output_multiplier), int(attrs.output_shift))


def _add(call: relax.Call) -> Kernel | None:
    made = _sum(call)
    if made is None:
        return None
    total, constants = made
    return Kernel("add", elementwise.add(int(np.prod(static_shape(call))), total), [constants])


def _average(call: relax.Call) -> Kernel | None:
    attrs = call.attrs
    _, height, width, channels = static_shape(call.args[0])
    whole = [int(p) for p in attrs.pool_size] == [height, width] and not any(int(p) for p in attrs.padding)
    if not whole or channels % 4 or height * width > pool.MOST_PIXELS:
        return None
    return Kernel("average", pool.global_average(height * width, channels, int(attrs.qmin), int(attrs.qmax)), [])


_MAKERS: Makers = {
    f"{PREFIX}qconv2d": _convolution,
    f"{PREFIX}qdepthwise": _depthwise,
    f"{PREFIX}qdense": _dense,
    f"{PREFIX}qadd": _add,
    f"{PREFIX}qavgpool": _average,
}
