"""The forms that formulas may give a layer, and by estimates what each takes.

A layer's plain form needs nothing; others take a routine in place of LLVM's inner loop (see `routines`), of a short round or a
long one, weights as halfwords, or minimal filtering of four outputs. Which are taken is decided for all layers of a model
together, see `formula`: only what differs between the forms of a layer counts.

Estimates follow measurements on a Cortex-M4 of the layers of small residual, depthwise-separable and mobile networks. Routines
are known to the instruction; LLVM's loops take half an instruction more for a word and a pixel, and eight between two
reductions. What code a routine takes the place of grows with the round of LLVM's loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .dense import Dense
from .depthwise import Depthwise
from .panel import Convolution, PanelConvolution, PanelPlan
from .plans import plan_dense_routine, plan_panel_routine, plan_winograd
from .routines import dense_routine, depthwise_routine, fits, panel_routine, products_routine, routine_bytes
from .winograd import WinogradPlan

Name = frozenset[str]
"""Of a form: what it takes."""
PLAIN, HALFWORDS, ROUTINE, LONG, FOUR = (frozenset(part.split()) for part in ("", "halfwords", "routine", "long", "four"))

_CODE = 2048
"""Bytes of the code of a plain form: whatever it is, since differences count."""


@dataclass(frozen=True)
class Form:
    """One way to compute a layer.

    Attributes:
        plan: Of the kernel's template.
        instructions: Of one call, but for what all forms have in common.
        constant_bytes: Of its constants.
        code_bytes: Of its own code.
        routine: The routine that it calls, if any.
        spent: Bytes of flash that are spent for speed alone.
    """

    plan: Any
    instructions: float
    constant_bytes: int
    code_bytes: float
    routine: str = ""
    spent: float = 0.0

    @property
    def shared(self) -> dict[str, int]:
        """Bytes of the routine, by its name."""
        return {self.routine: routine_bytes(self.routine)} if self.routine else {}


Forms = Mapping[Name, Form]
"""By name; the plain one is among them."""


def nearest(forms: Forms, wanted: Name) -> Form:
    """The form that takes most of what is wanted, and nothing else."""
    return forms[max((name for name in forms if name <= wanted), key=lambda name: (len(name), sorted(name)))]


def plans_of(forms: Forms) -> list[Any]:
    """The plans of all forms."""
    return [form.plan for form in forms.values()]


def panel_forms(conv: Convolution, plan: PanelPlan, adds: bool, exact: bool, late: bool) -> Forms:
    """The forms of a convolution by panels.

    Args:
        conv: The convolution.
        plan: The plain plan, of any weights.
        adds: Whether a sum follows in the same kernel.
        exact: Whether byte planes hold the weights.
        late: Whether they do not hold the biases with them.
    """
    found: dict[Name, Form] = {}
    least = _panel_bytes(conv, plan) if exact else 0
    for wide in (False, True) if exact else (True,):
        own = replace(plan, int16_weights=wide, late_bias=late and not wide)
        routines = [plan_panel_routine(conv, own, long, adds) for long in (False, True)]
        name = HALFWORDS if wide and exact else PLAIN
        for taken, words in ((own, PLAIN), (routines[0], ROUTINE), (routines[1], ROUTINE | LONG)):
            if taken is not None:
                size = _panel_bytes(conv, taken)
                rounds = PanelConvolution(conv, taken).rounds
                called = panel_routine(taken.pixels, wide, conv.epilogue, taken.unroll, rounds) if taken.routine else ""
                code = _CODE - (_panel_code(conv, plan, taken, adds) if taken.routine else 0)
                spent = size - least - 8 * taken.routine if wide and exact else 0
                found[name | words] = Form(taken, _panel_instructions(conv, taken, adds), size, code, called, spent)
    return found


def _panel_bytes(conv: Convolution, plan: PanelPlan) -> int:
    pairs = -(-conv.out_channels // 2)
    return pairs * PanelConvolution(conv, plan).words * (16 if plan.int16_weights else 8) + (8 if plan.routine else 0)


def _panel_instructions(conv: Convolution, plan: PanelPlan, adds: bool) -> float:
    kernel = PanelConvolution(conv, plan)
    word = {(3, False): 17, (3, True): 16, (2, False): 12, (2, True): 11}[plan.pixels, plan.int16_weights]
    between: float = 14 + (7 if plan.int16_weights else 10) * plan.pixels + (0 if kernel.rounds == 1 else 1 + 2 * kernel.rounds)
    if not plan.routine:
        between += plan.pixels * (8 + 3 * adds + kernel.words / 2)
    panels = kernel.source.walks * kernel.source.panels
    return panels * -(-conv.out_channels // 2) * (kernel.words * word + between)


def _panel_code(conv: Convolution, plan: PanelPlan, taken: PanelPlan, adds: bool) -> float:
    """Bytes of code that the routine of a plan takes the place of."""
    kernel = PanelConvolution(conv, plan)
    if kernel.row_words == 0:
        # What unpacks bytes of several rows takes more where the panel is kept for a routine.
        return -70
    # LLVM unrolls a loop over few panels where no other is in it.
    unrolled = 800 if kernel.source.panels < 4 else 0
    unpacking = 150 * (taken.pixels - plan.pixels) if adds else 0
    return (140 + 72 * plan.unroll if plan.pixels == 3 else 50 + 55 * plan.unroll) - unrolled - unpacking


def winograd_forms(conv: Convolution, plan: WinogradPlan, room: int, adds: bool) -> Forms:
    """The forms of a convolution by minimal filtering.

    Args:
        conv: The convolution.
        plan: The plain plan.
        room: Bytes of workspace that it may use.
        adds: Whether a sum follows in the same kernel.
    """
    products = conv.out_height * conv.out_width * conv.out_channels * conv.channels * 9
    found = {PLAIN: Form(plan, 0.68 * products, 0, _CODE)}
    # Routines of minimal filtering leave outputs to LLVM, so that every epilogue will do.
    for tile, share, name, grown in ((2, 0.57, ROUTINE, 0), (4, 0.5, ROUTINE | FOUR, 1450 + 350 * adds)):
        taken = plan_winograd(conv, room, tile, True)
        if taken is not None:
            called = products_routine(taken.unroll, 3 * conv.channels // 4 // taken.unroll)
            found[name] = Form(taken, share * products, 16, _CODE - 500 + grown, called, grown)
    return found


def depthwise_forms(layer: Depthwise) -> Forms:
    """The forms of a depthwise convolution."""
    outputs = layer.out_height * layer.out_width * layer.channels
    found = {PLAIN: Form(layer, 20 * outputs, 0, _CODE)}
    if fits(layer.epilogue) and layer.out_width % layer.tile == 0:
        tiles = layer.out_width // layer.tile
        called = depthwise_routine(layer.stride, layer.epilogue, layer.tile, tiles)
        code = _CODE - 60 * layer.tile - (160 if tiles > 1 else 100)
        found[ROUTINE] = Form(replace(layer, columns=layer.tile, routine=True), 17 * outputs, 32, code, called)
    return found


def dense_forms(layer: Dense) -> Forms:
    """The forms of a fully connected layer."""
    weights = layer.inputs * layer.outputs
    found = {PLAIN: Form(layer, 1.05 * weights + 6 * layer.outputs, 0, _CODE)}
    for name in (ROUTINE, ROUTINE | LONG):
        taken = plan_dense_routine(layer, name >= LONG)
        if taken is not None:
            rounds = layer.inputs // 4 // taken.unroll
            called = dense_routine(layer.one_scale, layer.epilogue, taken.unroll, rounds)
            code = _CODE - 60 * layer.unroll - 140
            # Of four outputs a word takes 14 instructions, a round three more.
            blocks = (14.5 * layer.inputs // 4 + 3 * rounds + 12) / 4
            found[name] = Form(taken, blocks * layer.outputs, 0, code, called)
    return found
