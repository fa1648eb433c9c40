"""What a network costs, in closed form from how many units each channel group keeps.

The multiply-accumulates of a layer are the size of its weight times the positions it is applied to; parameters and
activations are their own size. Each of these shrinks by the share of each of its axes that leaves, so that a search can ask
for the cost of thousands of choices without rewriting the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from .._tvm import relax, tvm
from ..channels import Group
from ..graph.analysis import call_macs
from ..graph.module_params import get_params, static_shape
from ..graph.peak_memory import liveness, storages
from ..graph.rebuild import bindings

Precision = Literal["float32", "int8"]
COSTS = ("macs", "params", "ram", "constants")


class CostModel:
    """What a network costs, given the units that each group lost.

    Args:
        mod: The unpruned module, parameter values attached.
        groups: Its prunable groups.
        precision: What activations and constants are counted in: "float32", four bytes each, or "int8", one byte for each
            activation and weight, and nine for each channel of a layer (bias, multiplier, shift).

    Attributes:
        groups: The groups; arrays of lost units have one entry each.
        whole: What the unpruned network costs, by the names in `COSTS`: multiply-accumulates, parameters (elements), bytes of
            activations at the peak, bytes of constants.
    """

    def __init__(self, mod: tvm.IRModule, groups: Sequence[Group], precision: Precision = "float32") -> None:
        self.groups = list(groups)
        params = {name: value.shape for name, value in get_params(mod).items()}
        memory = storages(mod)
        self._live = liveness(memory) if memory else np.zeros((1, 0), bool)
        self._items: list[str] = []
        self._rows: list[tuple[int, np.ndarray]] = []
        sizes: list[float] = []
        shares = _shares(self.groups, params, _activations(mod))
        for name, shape in (*params.items(), *((storage.name, storage.shape) for storage in memory)):
            self._add(name, shares, range(len(shape)))
            sizes.append(math.prod(shape))
        count, activations = len(params), slice(len(params), len(params) + len(memory))
        place = {name: index for index, name in enumerate(params)}
        work = np.zeros(count)
        products: list[float] = []
        for var, value in bindings(mod["main"]):
            if not isinstance(value, relax.Call) or not (macs := call_macs(value)):
                continue
            weight = value.args[1].name if isinstance(value.args[1], relax.Var) else None
            if weight in place:
                work[place[weight]] += macs
            else:
                # A product of two activations: the result's axes, and the one that is summed over.
                self._add(var.name, shares, range(len(static_shape(var))))
                left = value.args[0]
                if isinstance(left, relax.Var):
                    self._add(left.name, shares, [len(static_shape(left)) - 1], same_item=True)
                products.append(float(macs))
        self._item_of = np.array([item for item, _ in self._rows], np.int64)
        self._share = np.array([share for _, share in self._rows]).reshape(len(self._rows), len(self.groups))
        items = len(self._items)
        self._weights = {name: np.zeros(items) for name in ("macs", "params", "constants")}
        self._weights["macs"][:count] = work
        self._weights["macs"][items - len(products) :] = products
        self._weights["params"][:count] = sizes[:count]
        self._weights["constants"][:count] = [_constant_bytes(shape, precision) for shape in params.values()]
        self._activation_bytes = np.zeros(items)
        self._activation_bytes[activations] = np.array(sizes[activations]) * (1 if precision == "int8" else 4)
        self._activations = activations
        self.whole = self.cost(np.zeros(len(self.groups)))

    def cost(self, removed: np.ndarray) -> dict[str, float]:
        """The cost after `removed` units of each group, float (groups,), by the names in `COSTS`."""
        left = self._left(removed)
        found = {name: float(weights @ left) for name, weights in self._weights.items()}
        return {**found, "ram": float(self._at_steps(left).max(initial=0))}

    def savings(self, removed: np.ndarray) -> dict[str, np.ndarray]:
        """What one more unit of each group would save now, float64 (groups,), by the names in `COSTS`.

        For the activations it is what it saves at the step where they are most.
        """
        left = self._left(removed)
        fraction = np.maximum(1 - self._share @ removed, 1e-12)
        rate = self._share / fraction[:, None]
        found = {}
        steps = self._at_steps(left)
        at_peak = np.zeros(len(left))
        if len(steps):
            at_peak[self._activations] = self._live[int(np.argmax(steps))]
        weights = {**self._weights, "ram": self._activation_bytes * at_peak}
        for name, weight in weights.items():
            found[name] = (weight * left)[self._item_of] @ rate
        return found

    def _add(
        self,
        name: str,
        shares: Mapping[tuple[str, int], np.ndarray],
        axes: Sequence[int] | range,
        same_item: bool = False,
    ) -> None:
        """Take up a tensor as an item that shrinks with these axes."""
        if not same_item:
            self._items.append(name)
        self._rows += [(len(self._items) - 1, shares[name, axis]) for axis in axes if (name, axis) in shares]

    def _left(self, removed: np.ndarray) -> np.ndarray:
        """The share of each item that is left."""
        left = np.ones(len(self._items))
        np.multiply.at(left, self._item_of, np.maximum(1 - self._share @ removed, 0))
        return left

    def _at_steps(self, left: np.ndarray) -> np.ndarray:
        """The bytes of activations in use at each step."""
        bytes_left: np.ndarray = (self._activation_bytes * left)[self._activations]
        steps: np.ndarray = self._live @ bytes_left
        return steps


def _activations(mod: tvm.IRModule) -> dict[str, tuple[int, ...]]:
    main = mod["main"]
    variables = [*main.params, *(var for var, _ in bindings(main))]
    return {var.name: static_shape(var) for var in variables if isinstance(var.ty, relax.TensorType)}


def _shares(
    groups: Sequence[Group], params: Mapping[str, tuple[int, ...]], activations: Mapping[str, tuple[int, ...]]
) -> dict[tuple[str, int], np.ndarray]:
    """For each (tensor, axis) the share of its positions that one unit of each group takes, float64 (groups,)."""
    found: dict[tuple[str, int], np.ndarray] = {}
    for number, group in enumerate(groups):
        for shapes, places in ((params, group.members), (activations, group.places)):
            for (name, axis), index in places.items():
                if name in shapes:
                    row = found.setdefault((name, axis), np.zeros(len(groups)))
                    row[number] += index.shape[1] / shapes[name][axis]
    return found


def _constant_bytes(shape: tuple[int, ...], precision: Precision) -> float:
    size = math.prod(shape)
    if precision == "float32":
        return 4.0 * size
    # A tensor with one axis longer than one is a bias; in integers it brings the channel's multiplier and shift along.
    return 1.0 * size if sum(dim > 1 for dim in shape) > 1 else 9.0 * size
