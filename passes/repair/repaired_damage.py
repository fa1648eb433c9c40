"""Importance as the damage that is left behind the repair: what a network loses when one group shrinks and the layers that read
the group have made good what they can.

Each group is pruned alone by a few shares, in the order of the criterion "reconstruction"; the layers around it are solved for
on some of the samples, and the outputs are compared on the others. Groups then compare by what was measured (as with
`sensitivity`, where nothing is repaired): a group whose units the readers can do without loses more than one whose loss nothing
makes good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .._tvm import relax, tvm
from ..channels import ChannelGraph, Group, analyze
from ..errors import UserError
from ..graph.interpreter import Interpreter
from ..graph.module_params import get_params
from ..graph.rebuild import bindings
from ..pruning.allocation import lowest
from ..pruning.damage_curves import Curve, DamageCurves
from ..pruning.importance import Criterion, SampledCriterion, prepare, score
from ..pruning.prune_channels import prune
from ..pruning.reconstruction_criterion import ReconstructionError
from .reconstruct import reconstruct

SHARES = (0.2, 0.4, 0.6, 0.8)
"""Of a group's units, pruned to measure its curve."""

_RIDGE = 1e-3
_HELD_BACK = 0.4
"""The share of the samples that outputs are compared on."""

_TINY, _LARGEST = 1e-12, 1e30


class Trial:
    """Tells what is lost of a module's outputs when it is pruned and repaired.

    Args:
        mod: The module.
        samples: One array an input, axis 0 the samples; at least two.

    Attributes:
        held: Those that outputs are compared on.

    Raises:
        UserError: There are fewer samples, or they do not fit.
    """

    def __init__(self, mod: tvm.IRModule, samples: Sequence[np.ndarray]) -> None:
        count = len(samples[0])
        if count < 2:
            raise UserError("to measure what a repair leaves takes at least two calibration samples, one to compare on")
        held = min(max(1, round(_HELD_BACK * count)), count - 1)
        self._mod = mod
        self._fitted, self.held = ([array[part] for array in samples] for part in (slice(held, None), slice(held)))
        self._probabilities = _probabilities(mod)
        try:
            self._wanted = Interpreter(mod)(self.held)
        except ValueError as error:
            raise UserError(f"the calibration samples cannot be run: {error}") from error

    def error(self, pruned: tvm.IRModule, group: Group) -> float:
        """What is left of the error on samples held back once the layers around a group are solved for.

        Args:
            pruned: With only this group smaller.
            group: The group.
        """
        names = {name for name, _ in group.members}
        repaired = reconstruct(self._mod, pruned, self._fitted, ridge=_RIDGE, only=names)
        return self.compare(Interpreter(repaired)(self.held))

    def compare(self, found: Sequence[np.ndarray]) -> float:
        """How far outputs are from those of the module: the Kullback-Leibler divergence of probabilities, of others the squared
        error relative to their variance; the sum over the outputs of the mean over the samples."""
        total = 0.0
        for target, value, probable in zip(self._wanted, found, self._probabilities):
            if target.dtype.kind != "f" or not target.size:
                continue
            p, q = target.astype(np.float64), value.astype(np.float64)
            if probable:
                total += float((p * (np.log(p + _TINY) - np.log(q + _TINY))).sum(-1).mean())
            else:
                total += float(np.square(p - q).mean() / max(float(p.var()), _TINY))
        return total if math.isfinite(total) else math.inf


class RepairedDamage(SampledCriterion):
    """What costs less of the outputs behind the repair matters less: measured for each group alone (minutes)."""

    def prepare(self, mod: tvm.IRModule) -> Criterion:
        """Measure every group of the module, and return the criterion."""
        graph, params = analyze(mod), get_params(mod)
        base = ReconstructionError(self.samples, self.batch)
        ranking, trial = prepare(base, mod), Trial(mod, self.samples)
        curves = {group.name: _curve(mod, graph, group, score(ranking, group, params), trial) for group in graph.groups}
        return DamageCurves(ranking, curves).prepare(mod)


def _curve(mod: tvm.IRModule, graph: ChannelGraph, group: Group, scores: np.ndarray, trial: Trial) -> Curve:
    found: list[tuple[float, float]] = []
    for count in sorted({min(max(1, round(share * group.size)), group.size - 1) for share in SHARES}):
        pruned = prune(mod, graph, {group.name: lowest(scores, count)}, "measured")
        found.append((count / group.size, min(trial.error(pruned, group), _LARGEST)))
    return found


def _probabilities(mod: tvm.IRModule) -> list[bool]:
    """Which outputs come from a softmax over the last axis."""
    made = dict(bindings(mod["main"]))
    body = mod["main"].body.body
    fields = list(body.fields) if isinstance(body, relax.Tuple) else [body]
    found = []
    for expr in fields:
        while isinstance(expr, relax.Var) and expr in made:
            expr = made[expr]
        last = isinstance(expr, relax.Call) and int(getattr(expr.attrs, "axis", -1)) in (-1, len(expr.ty.shape) - 1)
        found.append(last and expr.op.name == "relax.nn.softmax")
    return found
