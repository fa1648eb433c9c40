"""Which convolutions get weights as halfwords: those that save most instructions for a byte of flash.

Against byte planes a word of four k costs one instruction less for two output channels and the pixels of a panel, and each
output about one and a half less; it takes eight bytes more.
"""

from __future__ import annotations

from ....passes._tvm import Constant, relax, tvm
from ....passes.graph.module_params import detach_params, static_shape
from ....passes.graph.rebuild import bindings
from ....passes.integer.registry import is_integer_op
from ...integer_io import core_and_specs
from ...kernels.layers import convolution_sizes
from ...kernels.spare_memory import spare_memory
from .epilogue import Epilogue
from .panel import Convolution, PanelConvolution
from .plans import plan_convolution, plan_winograd

_DEFAULT_SHARE = 200
"""By default one byte is spent for so many of weights."""


def choose_int16(main: relax.Function, budget: int | None, spare: bool = True) -> tuple[list[Constant], int]:
    """The weights that become halfwords, and what is left of the bytes to spend.

    Args:
        main: The model's function, parameters bound.
        budget: Bytes of flash to spend; a half percent of the weights when not given.
        spare: As of `UseDspKernels`.

    Returns:
        The weights, as arguments of their convolutions, and the bytes.
    """
    room = spare_memory(main) if spare else {}
    saved: dict[Constant, int] = {}
    size: dict[Constant, int] = {}
    weights = set()
    for var, call in bindings(main):
        if not is_integer_op(call) or len(call.args) < 2 or not isinstance(call.args[1], Constant):
            continue
        weight = call.args[1]
        weights.add(weight)
        if not is_integer_op(call, "qconv2d") or int(call.attrs.groups) != 1 or static_shape(call)[0] != 1:
            continue
        conv = convolution_shape(call)
        plan = plan_convolution(conv)
        if plan is None or plan_winograd(conv, room.get(var, 0)) is not None:
            continue
        words = PanelConvolution(conv, plan).words
        pairs, pixels = -(-conv.out_channels // 2), conv.out_height * conv.out_width
        # Patches of a layer that is computed patch by patch share the weights.
        saved[weight] = saved.get(weight, 0) + pairs * (words * -(-pixels // plan.pixels) + 3 * pixels)
        size[weight] = 8 * words * pairs
    left = sum(weight.value.numpy().nbytes for weight in weights) // _DEFAULT_SHARE if budget is None else budget
    chosen = []
    for weight in sorted(saved, key=lambda weight: -saved[weight] / size[weight]):
        if size[weight] <= left:
            left -= size[weight]
            chosen.append(weight)
    return chosen, left


def int16_weights(mod: tvm.IRModule, budget: int | None, spare: bool = True) -> list[bytes]:
    """The weights of a model that become halfwords, as they are before.

    Args:
        mod: A model module in integer operators, parameters attached.
        budget, spare: As of `choose_int16`.
    """
    core, _, _ = core_and_specs(mod)
    bare, params = detach_params(core)
    bound = relax.transform.BindParams("main", {name: tvm.runtime.tensor(value) for name, value in params.items()})(bare)
    return [weight.value.numpy().tobytes() for weight in choose_int16(bound["main"], budget, spare)[0]]


def convolution_shape(call: relax.Call) -> Convolution:
    """The shape of a `qconv2d` without groups."""
    return Convolution(**convolution_sizes(call), epilogue=epilogue_of(call))


def constant_shifts(call: relax.Call) -> list[int]:
    """The exponents of a layer's factors; none where they are computed."""
    return call.args[4].value.numpy().tolist() if isinstance(call.args[4], Constant) else []


def epilogue_of(call: relax.Call) -> Epilogue:
    """How the accumulators of an operator become outputs."""
    shifts = [int(call.attrs["output_shift"])] if is_integer_op(call, "qadd") else constant_shifts(call)
    shared = all(shift == -1 for shift in shifts)
    return Epilogue.of(call.attrs, shared)
