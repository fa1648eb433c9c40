"""Pruning to a budget: how many units each group loses so that the network costs at most so much and least is damaged.

Units leave one by one, each time the one whose loss is least for what it saves of the budgets still exceeded.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .._tvm import tvm
from ..channels import ChannelGraph, analyze
from ..errors import LimitError, UserError
from ..graph.adopt_module import model_pass
from ..graph.module_params import get_params
from .allocation import Allocation, check_patterns, matches, normalize
from .cost_model import CostModel, Precision
from .folding import get_selector
from .importance import Criterion, Prepared, criterion_name, get_criterion, prepare, score
from .prune_channels import prune

DAMAGES = ("output_energy", "reconstruction", "taylor", "fisher", "repaired")
"""Criteria whose scores are damages, which compare between groups as they are."""

_ROUNDS = 500
_EXCHANGES = 4
_SLACK = 0.01
"""The share of a budget that may stay unused."""

_NAMES = {"macs": "MACs", "params": "parameters", "ram": "RAM of the activations", "constants": "constants"}


@dataclass(frozen=True)
class Budget:
    """What a network may cost; None sets no bound.

    Attributes:
        macs: Fraction in (0, 1) of the multiply-accumulates.
        params: Fraction in (0, 1) of the parameters.
        ram: Bytes of activations at once.
        constants: Bytes of weights and biases.
    """

    macs: float | None = None
    params: float | None = None
    ram: float | None = None
    constants: float | None = None

    def __post_init__(self) -> None:
        for name, fraction in (("MACs", self.macs), ("parameters", self.params)):
            if fraction is not None and not 0 < fraction < 1:
                raise UserError(f"the target for {name} is a fraction between 0 and 1, both excluded; {fraction} is not")
        for name, size in (("RAM", self.ram), ("constants", self.constants)):
            if size is not None and not size > 0:
                raise UserError(f"the limit for {name} must be larger than 0 bytes; {size} is not")
        if all(value is None for value in (self.macs, self.params, self.ram, self.constants)):
            raise UserError("a budget needs a target for MACs or parameters, or a limit for RAM or constants")

    def limits(self, whole: Mapping[str, float]) -> dict[str, float]:
        """The bounds as costs, by name, given what the unpruned network costs."""
        bounds = {
            "macs": None if self.macs is None else self.macs * whole["macs"],
            "params": None if self.params is None else self.params * whole["params"],
            "ram": self.ram,
            "constants": self.constants,
        }
        return {name: value for name, value in bounds.items() if value is not None}


def allocate_budget(
    model: CostModel,
    scores: Mapping[str, np.ndarray],
    limits: Mapping[str, float],
    *,
    normalization: str = "none",
    round_to: int = 1,
    least: Mapping[str, int] | None = None,
    min_channels: int = 1,
    exclude: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """The units to remove of each group, ascending, int64; groups that lose none are left out.

    Args:
        model: The costs.
        scores: Importance of the units, float (units,), by group name: the damage that their removal does.
        limits: What the network may cost, by the names in `cost_model.COSTS`.
        normalization: What a group's scores are divided by before they are compared, see `Allocation`.
        round_to: The number of channels that a group keeps is a multiple of this where the group is large enough.
        least: Units that a group keeps at least, by its name.
        min_channels: Channels that every group keeps at least.
        exclude: Patterns of groups to leave alone.

    Raises:
        LimitError: The limits cannot be met.
        UserError: A pattern matches no group.
    """
    groups = model.groups
    check_patterns(groups, exclude)
    queues = []
    for group in groups:
        values = normalize(np.asarray(scores[group.name], np.float64), normalization)
        order = np.lexsort((-np.arange(group.size), values))
        step = max(1, round_to // math.gcd(round_to, group.width))
        keep = max(1, step, (least or {}).get(group.name, 1), math.ceil(min_channels / group.width))
        free = step <= group.size and not any(matches(group, pattern) for pattern in exclude)
        queues.append(_Queue(order, values[order], step, group.size - keep if free else 0))
    removed = np.zeros(len(groups), np.int64)
    if not _fit(model, queues, removed, limits):
        raise LimitError(_unreachable(model, removed, limits))
    if removed.any():
        removed = _exchange(model, queues, removed, limits)
    return {
        group.name: np.sort(queue.order[:count]).astype(np.int64)
        for group, queue, count in zip(groups, queues, removed)
        if count
    }


@dataclass(frozen=True)
class _Queue:
    """The units of a group in the order in which they leave.

    Attributes:
        order: The units, least important first.
        scores: Their scores.
        step: Cuts leave a multiple of so many units.
        limit: The most that may leave.
    """

    order: np.ndarray
    scores: np.ndarray
    step: int
    limit: int

    def next_cut(self, gone: int) -> int:
        """How many units the next cut takes; 0 where none may leave."""
        # The first cut brings the width to a multiple, the others keep it there.
        count = (len(self.order) - gone) % self.step or self.step
        return count if gone + count <= self.limit else 0


def _fit(model: CostModel, queues: Sequence[_Queue], removed: np.ndarray, limits: Mapping[str, float]) -> bool:
    """Cut, changing `removed`, until no budget is exceeded; False where there is nothing left to cut."""
    # Savings are looked at anew after so many cuts; at the end, after each.
    cuts = max(1, sum(queue.limit // queue.step for queue in queues) // _ROUNDS)
    while over := _over(model, removed, limits):
        before = removed.copy()
        if not _cut(model, queues, removed, over, limits, cuts):
            return False
        if cuts > 1 and not _over(model, removed, limits):
            removed[:], cuts = before, 1
    _give_back(model, queues, removed, limits)
    return True


def _exchange(model: CostModel, queues: Sequence[_Queue], removed: np.ndarray, limits: Mapping[str, float]) -> np.ndarray:
    """Exchange a unit that saves much for others that save less, where more left than the budget asks for."""
    for _ in range(_EXCHANGES):
        if _use(model, removed, limits) > 1 - _SLACK:
            break
        trials = []
        for index in np.flatnonzero(removed).tolist():
            trial = removed.copy()
            trial[index] -= min(queues[index].step, trial[index])
            held = [replace(queue, limit=int(trial[i])) if i == index else queue for i, queue in enumerate(queues)]
            if _fit(model, held, trial, limits):
                trials.append(trial)
        best = max(trials, key=lambda trial: _use(model, trial, limits), default=removed)
        if _use(model, best, limits) <= _use(model, removed, limits):
            break
        removed = best
    return removed


def _use(model: CostModel, removed: np.ndarray, limits: Mapping[str, float]) -> float:
    """How much of the tightest budget is used, at most 1."""
    cost = model.cost(removed)
    return max(cost[name] / limit for name, limit in limits.items())


def _over(model: CostModel, removed: np.ndarray, limits: Mapping[str, float]) -> list[str]:
    """The budgets that are exceeded."""
    cost = model.cost(removed)
    return [name for name, limit in limits.items() if cost[name] > limit * (1 + 1e-9)]


def _cut(
    model: CostModel,
    queues: Sequence[_Queue],
    removed: np.ndarray,
    over: Sequence[str],
    limits: Mapping[str, float],
    cuts: int,
) -> bool:
    """Make the best cuts, changing `removed`; whether there was any."""
    saved = sum(savings / limits[name] for name, savings in model.savings(removed).items() if name in over)
    saved = np.broadcast_to(saved, len(queues))

    def rated(index: int) -> tuple[float, int, int] | None:
        queue, gone = queues[index], int(removed[index])
        count = queue.next_cut(gone)
        if not count or saved[index] <= 0:
            return None
        return float(queue.scores[gone : gone + count].sum() / (count * saved[index])), index, count

    heap = [entry for index in range(len(queues)) if (entry := rated(index)) is not None]
    heapq.heapify(heap)
    for done in range(cuts):
        if not heap:
            return done > 0
        _, index, count = heapq.heappop(heap)
        removed[index] += count
        if (entry := rated(index)) is not None:
            heapq.heappush(heap, entry)
    return True


def _give_back(model: CostModel, queues: Sequence[_Queue], removed: np.ndarray, limits: Mapping[str, float]) -> None:
    """Put back what the last cuts took more than was needed, the most important first; changes `removed`."""
    open_groups = set(np.flatnonzero(removed).tolist())
    while open_groups:
        index = max(open_groups, key=lambda i: (queues[i].scores[removed[i] - 1], -i))
        count = min(queues[index].step, int(removed[index]))
        removed[index] -= count
        if _over(model, removed, limits):
            removed[index] += count
            open_groups.remove(index)
        elif not removed[index]:
            open_groups.remove(index)


def _unreachable(model: CostModel, removed: np.ndarray, limits: Mapping[str, float]) -> str:
    cost = model.cost(removed)
    missed = [
        f"{cost[name]:,.0f} of {model.whole[name]:,.0f} {'bytes of ' * (name in ('ram', 'constants'))}{_NAMES[name]} "
        f"({limit:,.0f} wanted)"
        for name, limit in limits.items()
        if cost[name] > limit
    ]
    return (
        f"the budget cannot be met by pruning: when nothing more can leave there are still {' and '.join(missed)}; "
        "ask for less, exclude fewer layers, or lower min_fraction"
    )


@model_pass("PruneToBudget")
class PruneToBudget:
    """Remove channels until a budget is met, those first that do least damage for what they save.

    What was removed is recorded, see `get_surgery`.

    Args:
        macs: Fraction of the multiply-accumulates that may be left, in (0, 1).
        params: Fraction of the parameters that may be left, in (0, 1).
        max_ram: Bytes that the activations may take at once.
        max_constants: Bytes that weights and biases may take.
        precision: What bytes are counted in: "float32", or "int8" for a network that is quantized afterwards.
        importance: As for `PruneChannels`. Scores of "output_energy", "reconstruction", "taylor", "fisher" and "repaired" are
            damages that compare between groups as they are; others are divided by their group's mean.
        samples: Calibration samples for criteria that run the network.
        normalization: Other than that default, see `Allocation`.
        round_to: The number of channels kept is a multiple of this where a group is large enough.
        min_fraction: Share of its units that every group keeps at least.
        min_channels: Channels that every group keeps at least.
        exclude: Patterns of groups to leave alone.
        rounds: In so many steps, each ranking anew what the last has left (as Molchanov et al., 2017, do with training in
            between): later units are no longer judged by a network that is not there any more.
        selection: How units leave, see `PruneChannels`.

    Raises:
        UserError: An option is out of range, a pattern matches nothing, or the budget cannot be met.
    """

    def __init__(
        self,
        macs: float | None = None,
        params: float | None = None,
        *,
        max_ram: float | None = None,
        max_constants: float | None = None,
        precision: Precision = "float32",
        importance: str | Criterion | Prepared = "l2",
        samples: Sequence[np.ndarray] | None = None,
        normalization: str | None = None,
        round_to: int = 1,
        min_fraction: float = 0.1,
        min_channels: int = 1,
        exclude: Sequence[str] = (),
        rounds: int = 1,
        selection: str = "remove",
    ) -> None:
        if rounds != int(rounds) or rounds < 1:
            raise UserError(f"the number of rounds must be a whole number of at least 1; {rounds} is not")
        self.rounds = rounds
        self.budget = Budget(macs, params, max_ram, max_constants)
        self.precision: Precision = precision
        self.name = criterion_name(importance)
        self.criterion = get_criterion(importance, samples)
        self.selector = get_selector(selection, samples)
        # Checks what both ways of spreading have in common.
        default = "none" if self.name in DAMAGES else "mean"
        checked = Allocation(
            0.5, normalization=normalization or default, round_to=round_to, min_channels=min_channels, exclude=exclude
        )
        self.normalization, self.round_to = checked.normalization, checked.round_to
        self.min_channels = checked.min_channels
        if not 0 <= min_fraction < 1:
            raise UserError(f"min_fraction must be at least 0 and below 1; {min_fraction} is not")
        self.min_fraction = min_fraction
        self.exclude = tuple(exclude)

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the smaller module; a module within the budget is returned as it is."""
        graph = analyze(mod)
        model = CostModel(mod, graph.groups, self.precision)
        limits, whole = self.budget.limits(model.whole), model.whole
        least = {group.name: math.ceil(self.min_fraction * group.size) for group in graph.groups}
        for step in range(1, self.rounds + 1):
            if step > 1:
                graph = analyze(mod)
                model = CostModel(mod, graph.groups, self.precision)
            now = {name: max(limit, whole[name] + (limit - whole[name]) * step / self.rounds) for name, limit in limits.items()}
            mod = self._round(mod, graph, model, now, least)
        return mod

    def _round(
        self,
        mod: tvm.IRModule,
        graph: ChannelGraph,
        model: CostModel,
        limits: Mapping[str, float],
        least: Mapping[str, int],
    ) -> tvm.IRModule:
        params = get_params(mod)
        criterion = prepare(self.criterion, mod)
        scores = {group.name: score(criterion, group, params) for group in graph.groups}
        units = allocate_budget(
            model,
            scores,
            limits,
            normalization=self.normalization,
            round_to=self.round_to,
            least=least,
            min_channels=self.min_channels,
            exclude=self.exclude,
        )
        reason = f"least damage for what it saves ({self.name})"
        return prune(mod, graph, units, reason, "PruneToBudget", self.selector)
