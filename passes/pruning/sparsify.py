"""Unstructured and N:M sparsity: single weights become zero, shapes stay.

Dense kernels do not get faster by it, and the pass says so in a remark; it pays where weights are stored compressed, as
`CompressSparse` does with two of every four.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from .._tvm import relax, tvm
from ..channels import stem
from ..errors import UserError
from ..graph.adopt_module import model_pass
from ..graph.module_params import attach_params, detach_params, param_vars
from ..graph.rebuild import bindings
from ..graph.remarks import Remark, add_remarks

SPARSITY_ATTR = "tvmcompress.sparsity"
METHODS = ("magnitude", "random")
_NO_SPEED = "dense kernels run no faster on sparse weights; only compressed storage shrinks"


@dataclass(frozen=True)
class _Weight:
    """A weight that may be made sparse, and its axis of input channels."""

    name: str
    axis: int
    grouped: bool


@model_pass("Sparsify")
class Sparsify:
    """Zero the weights of convolutions and dense layers that matter least.

    Args:
        sparsity: Fraction of the weights to zero, in (0, 1); not used with a threshold or a pattern.
        method: "magnitude" (Han et al., "Learning both Weights and Connections", 2015) or "random".
        scope: "local" zeroes the fraction in every weight, "global" over all weights together.
        threshold: Zero the weights of smaller magnitude, in the place of a fraction.
        pattern: (n, m) keeps the n largest of every m successive weights along the axis of input channels (Mishra et
            al., "Accelerating Sparse Deep Neural Networks", 2021, with 2 of 4). Weights whose axis m does not divide,
            and those of grouped convolutions, stay dense and are remarked.
        exclude: Patterns (`*`, `?`) of layers or weights to leave alone.
        seed: For "random".

    Raises:
        UserError: An option is out of range.
    """

    def __init__(
        self,
        sparsity: float = 0.5,
        *,
        method: str = "magnitude",
        scope: str = "local",
        threshold: float | None = None,
        pattern: tuple[int, int] | None = None,
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        if not 0 < sparsity < 1:
            raise UserError(f"the sparsity must lie between 0 and 1, both excluded; {sparsity} does not")
        if method not in METHODS:
            raise UserError(f"there is no sparsity method {method!r}; choose one of {', '.join(METHODS)}")
        if scope not in ("local", "global"):
            raise UserError(f"there is no sparsity scope {scope!r}; choose local or global")
        if pattern is not None and not 0 < pattern[0] < pattern[1]:
            raise UserError(f"a sparsity pattern keeps n of m weights with 0 < n < m, not {pattern[0]} of {pattern[1]}")
        self.sparsity = sparsity
        self.method = method
        self.scope = scope
        self.threshold = threshold
        self.pattern = pattern
        self.exclude = tuple(exclude)
        self.seed = seed

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with sparse weights; the masks are recorded, see `get_masks`."""
        bare, params = detach_params(mod)
        weights = [weight for weight in _weights(mod) if not self._is_excluded(weight.name)]
        scores = {weight.name: self._scores(params[weight.name], index) for index, weight in enumerate(weights)}
        remarks = [Remark("Sparsify", "main", _NO_SPEED)]
        masks: dict[str, np.ndarray] = {}
        cut = self._global_cut(scores)
        for weight in weights:
            if self.pattern is None:
                masks[weight.name] = self._mask(scores[weight.name], cut)
                continue
            n, m = self.pattern
            if weight.grouped or scores[weight.name].shape[weight.axis] % m:
                reason = f"it stays dense: its input channels do not come in {m}s"
                remarks.append(Remark("Sparsify", stem(weight.name), reason))
                continue
            masks[weight.name] = pattern_mask(scores[weight.name], weight.axis, n, m)
        return add_remarks(_record(attach_params(bare, apply_masks(params, masks)), masks), remarks)

    def _is_excluded(self, name: str) -> bool:
        return any(fnmatchcase(candidate, pattern) for pattern in self.exclude for candidate in (name, stem(name)))

    def _scores(self, value: np.ndarray, index: int) -> np.ndarray:
        if self.method == "random":
            return np.random.default_rng([self.seed, index]).random(value.shape)
        return np.abs(value.astype(np.float64))

    def _global_cut(self, scores: Mapping[str, np.ndarray]) -> float | None:
        """The score below which weights go everywhere; None where each weight has its own."""
        if self.threshold is not None:
            return self.threshold
        if self.scope == "local" or not scores:
            return None
        everything = np.sort(np.concatenate([values.ravel() for values in scores.values()]))
        return float(everything[round(self.sparsity * (len(everything) - 1))])

    def _mask(self, scores: np.ndarray, cut: float | None) -> np.ndarray:
        if cut is not None:
            return scores >= cut
        mask = np.ones(scores.size, bool)
        mask[np.argsort(scores, axis=None, kind="stable")[: round(self.sparsity * scores.size)]] = False
        return mask.reshape(scores.shape)


def pattern_mask(scores: np.ndarray, axis: int, n: int, m: int) -> np.ndarray:
    """The mask, bool, that keeps the n highest of every m successive scores along an axis."""
    moved = np.moveaxis(scores, axis, -1)
    blocks = moved.reshape(*moved.shape[:-1], -1, m)
    rank = np.argsort(np.argsort(-blocks, axis=-1, kind="stable"), axis=-1)
    return np.moveaxis((rank < n).reshape(moved.shape), -1, axis)


def apply_masks(params: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters with what the masks leave out zeroed; call it after every step of fine-tuning."""
    return {
        name: np.where(masks[name], value, 0).astype(value.dtype) if name in masks else value for name, value in params.items()
    }


def get_masks(mod: tvm.IRModule) -> dict[str, np.ndarray]:
    """The masks of the weights that `Sparsify` has made sparse, bool, by parameter name; empty where it has not run."""
    if mod.attrs is None or SPARSITY_ATTR not in mod.attrs:
        return {}
    _, params = detach_params(mod)
    return {name: params[name] != 0 for name in json.loads(str(mod.attrs[SPARSITY_ATTR])) if name in params}


def _record(mod: tvm.IRModule, masks: Mapping[str, np.ndarray]) -> tvm.IRModule:
    # The zeros themselves are the mask, so that passes which cut or reorder weights need not know of it.
    names = sorted({*masks, *get_masks(mod)})
    return mod.with_attr(SPARSITY_ATTR, json.dumps(names))


def _weights(mod: tvm.IRModule) -> list[_Weight]:
    """The weights of convolutions and matrix products, each once."""
    params = {var: var.name for var in param_vars(mod["main"])}
    found: dict[str, _Weight] = {}
    for _, call in bindings(mod["main"]):
        name = getattr(call.op, "name", "") if isinstance(call, relax.Call) else ""
        if name.startswith("relax.nn.conv") and call.args[1] in params:
            weight = params[call.args[1]]
            axis = str(call.attrs.kernel_layout).index("I")
            found.setdefault(weight, _Weight(weight, axis, int(call.attrs.groups) > 1))
        elif name == "relax.matmul" and call.args[1] in params:
            weight = params[call.args[1]]
            found.setdefault(weight, _Weight(weight, max(len(call.args[1].ty.shape) - 2, 0), False))
    return list(found.values())
