"""Which form each layer of a model gets where no log knows it: decided for all together, by estimates.

Routines are there once however many layers take them, so whether one pays depends on the model. Together the layers take no
more flash than in their plain forms (see `forms`) and what is to be spent. By default that is a half percent of the weights:
what routines save in place of LLVM's loops is spent then, on weights as halfwords and on minimal filtering of four outputs.
Where it is given, no more than that is spent on these, whatever routines save.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....passes._tvm import Constant, relax, tvm
from ....passes.graph.rebuild import bindings
from ....passes.integer.registry import is_integer_op
from ...kernels.decisions import Decide
from ...kernels.integer_program import Item, least_cost
from ...kernels.use_kernels import Makers, Site, call_key, survey_kernels
from .forms import HALFWORDS, PLAIN, Form, Forms, Name, nearest

_DEFAULT_SHARE = 200
"""By default one byte is spent for so many of weights."""


class Formula:
    """Takes one of the forms of a layer, by its weights: patches of a layer that is computed patch by patch share them.

    Args:
        taken: Names of forms, by weights; layers that are not among them get their plain form.
        left: Bytes that are left of those to spend.
    """

    def __init__(self, taken: Mapping[Constant, Name] | None = None, left: int = 0) -> None:
        self._taken, self.left = taken or {}, left

    def take(self, call: relax.Call, forms: Forms) -> Any:
        """The plan of a layer."""
        return nearest(forms, self._taken.get(call.args[1], PLAIN)).plan

    @property
    def halfwords(self) -> list[Constant]:
        """The weights that are kept as halfwords though byte planes hold them."""
        return [weight for weight, name in self._taken.items() if name >= HALFWORDS]


class _Asking(Formula):
    """Keeps the forms of all layers; what is fused with a sum is asked for once more, as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[tuple, Forms] = {}

    def take(self, call: relax.Call, forms: Forms) -> Any:
        self.forms[call_key(call)] = forms
        return super().take(call, forms)


@dataclass
class _Layer:
    """Calls that share their weights, with their forms."""

    weight: Constant
    calls: list[tuple[Site, Forms]] = field(default_factory=list)

    def items(self) -> dict[Name, Item]:
        """What each form takes, by its name; the plain one first."""
        names = sorted({name for _, forms in self.calls for name in forms}, key=lambda name: (len(name), sorted(name)))
        return {name: self._item([(site, nearest(forms, name)) for site, forms in self.calls]) for name in names}

    def _item(self, taken: Sequence[tuple[Site, Form]]) -> Item:
        cost = sum(site.count * form.instructions for site, form in taken)
        # Equal layers of one form share its code, calls on the same weights mostly these.
        constants = sum({form.constant_bytes for _, form in taken})
        code = {f"{site.choice.workload.key} {form.plan}": round(form.code_bytes) for site, form in taken}
        routines = {name: size for _, form in taken for name, size in form.shared.items()}
        return Item(cost, constants, code | routines, max(form.spent for _, form in taken))


def choose_forms(
    mod: tvm.IRModule, makers: Callable[[Decide, Formula], Makers], budget: int | None, spare: bool = True
) -> Formula:
    """Choose the forms of all layers of a model.

    Args:
        mod: Parameters are bound.
        makers: Given who decides, and the formula.
        budget: Bytes of flash to spend; a half percent of the weights, and what routines save, when not given.
        spare: As of `use_kernels`.
    """
    asking = _Asking()
    sites = survey_kernels(mod, lambda decide: makers(decide, asking), spare)
    layers: dict[Constant, _Layer] = {}
    for site in sites:
        weight = site.call.args[1]
        layers.setdefault(weight, _Layer(weight)).calls.append((site, asking.forms[call_key(site.call)]))
    items = [layer.items() for layer in layers.values()]
    plain = [next(iter(points.values())) for points in items]
    shared = {name: size for point in plain for name, size in point.shared.items()}
    flash = sum(point.flash for point in plain) + sum(shared.values())
    spent = _share(mod["main"]) if budget is None else budget
    taken = least_cost([list(points.values()) for points in items], flash + spent, budget)
    names = [list(points)[index] for points, index in zip(items, taken, strict=True)]
    left = spent - sum(points[name].spent for points, name in zip(items, names, strict=True))
    return Formula({weight: name for weight, name in zip(layers, names, strict=True) if name}, max(0, int(left)))


def _share(main: relax.Function) -> int:
    """Bytes that are spent by default."""
    calls = [call for _, call in bindings(main) if is_integer_op(call) and len(call.args) > 1]
    weights = {call.args[1] for call in calls if isinstance(call.args[1], Constant)}
    return sum(weight.value.numpy().nbytes for weight in weights) // _DEFAULT_SHARE
