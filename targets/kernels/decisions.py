"""What a kernel's maker may decide, by name, so that a search can decide otherwise than its formula.

A workload says what a kernel computes as far as its cost depends on it; a space lists the decisions that may be taken for it,
the formula's own first. Who takes them is a parameter of the passes that use kernels: the formula (`by_default`), a tuning
log, or a search that measures one point after the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from typing import Any

from ...passes._tvm import relax
from .versions import VERSIONS

Decisions = Mapping[str, int | str]
"""Values by the name of what is decided."""


@dataclass(frozen=True)
class Workload:
    """What a kernel computes.

    Attributes:
        family: Of the kernels.
        kernel: Which of them.
        shape: All that its cost depends on, by name; no values of weights.
    """

    family: str
    kernel: str
    shape: Mapping[str, Any]

    @property
    def key(self) -> str:
        """As text: equal for equal workloads."""
        return json.dumps({**asdict(self), "version": VERSIONS[self.family]}, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Choice:
    """Something to decide.

    Attributes:
        workload: Of the kernel.
        default: What the formula takes.
        others: Makes the other decisions that may be taken; most builds never ask for them.
        formulas: What the formula takes in other models, which may be the default too.
    """

    workload: Workload
    default: Decisions
    others: Callable[[], Iterable[Decisions]]
    formulas: Sequence[Decisions] = ()

    @cached_property
    def space(self) -> Sequence[Decisions]:
        """The decisions that may be taken, each once; the default first, then what the formula takes elsewhere."""
        return list({point_key(point): point for point in (self.default, *self.formulas, *self.others())}.values())

    @cached_property
    def by_formula(self) -> frozenset[str]:
        """What the formula takes in any model, as text."""
        return frozenset(map(point_key, (self.default, *self.formulas)))


Decide = Callable[[relax.Call, Choice], Decisions]
"""Takes one of the decisions of a choice, at a call."""


def by_default(call: relax.Call, choice: Choice) -> Decisions:
    """What the formula takes."""
    return choice.default


def point_key(decisions: Decisions) -> str:
    """Decisions as text: equal for equal ones."""
    return json.dumps(dict(decisions), sort_keys=True)


def fields(record: Any, *left_out: str) -> dict[str, Any]:
    """The fields of a data class as a workload has them: plain values, nested ones spread out."""
    found: dict[str, Any] = {}
    for name, value in vars(record).items():
        if name in left_out:
            continue
        if is_dataclass(value):
            found.update({f"{name}_{inner}": part for inner, part in fields(value).items()})
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def layer_name(kernel: str, shape: Mapping[str, Any]) -> str:
    """What a workload is called in tables: its kernel and sizes."""
    if "reads" in shape:
        sizes = {name: "x".join(map(str, shape.get(name, ()))) for name in ("sums", "reads", "outputs")}
        return f"{kernel}{' of ' * bool(sizes['sums'])}{sizes['sums']} on {sizes['reads']} to {sizes['outputs']}"
    if "inputs" in shape:
        return f"{kernel} {shape['inputs']} to {shape['outputs']}"
    size = "x".join(map(str, shape.get("kernel", (3, 3))))
    outputs = f" to {shape['out_channels']}" if "out_channels" in shape and kernel != "depthwise" else ""
    stride = shape.get("stride", max(shape.get("strides", (1,))))
    by = f" by {stride}" if stride > 1 else ""
    tensor = f"{shape['height']}x{shape['width']}x{shape['channels']}"
    return f"{kernel} {size}{by} on {tensor}{outputs}{' and sum' if shape.get('adds') else ''}"
