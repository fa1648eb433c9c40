"""Masks of attention that a model is given in floating point: 0 for what is kept, -10000 or less for what is left out.

That a tensor is such a mask, and no bias of the scores, only its values tell. Where they do, the addition becomes a choice,
which `passes.graph.attention_mask` knows: the mask then needs no scale, which no 8 bits could give it together with the scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .._tvm import Constant, relax, tvm
from ..graph.adopt_module import model_pass
from ..graph.attention_mask import LOW, masked_scores
from ..graph.interpreter import Interpreter
from ..graph.module_params import input_vars, static_shape
from ..graph.pointwise import POINTWISE
from ..graph.rebuild import Rebuilder, rebuild
from ..graph.remarks import Remark, add_remarks
from ..graph.view import GraphView

_MOVES = {
    f"relax.{name}"
    for name in (
        "reshape",
        "expand_dims",
        "squeeze",
        "permute_dims",
        "broadcast_to",
        "strided_slice",
        "flatten",
        "repeat",
        "tile",
    )
}
_LEFT_OUT = -1e4
_CHUNK = 32


@model_pass("MasksFromSamples")
class MasksFromSamples:
    """Turn additions of masks to the scores of a softmax into choices, where samples say that they are masks: all values that
    the mask takes are 0 or below -1000. What is masked is remarked upon, since other values would then count as one of the two.

    Args:
        batches: Calibration samples, each a sequence of arrays, one an input of `main`, axis 0 the samples.
    """

    def __init__(self, batches: Iterable[Sequence[np.ndarray]]) -> None:
        self.batches = batches

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with choices in the place of such additions."""
        found = _candidates(GraphView(mod))
        masks = _masks(mod, set(found.values()), self.batches) if found else set()
        chosen = {var: mask for var, mask in found.items() if mask in masks}
        if not chosen:
            return mod
        names = {var.name: mask.name for var, mask in chosen.items()}

        def rewrite(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
            if var.name not in names or not isinstance(value, relax.Call):
                return None
            scores, mask = value.args if getattr(value.args[1], "name", "") == names[var.name] else value.args[::-1]
            dtype = str(value.ty.dtype)
            kept = build.emit(relax.op.greater(build.get(mask), relax.const(np.array(LOW, dtype))), f"{var.name}.kept")
            return relax.op.where(kept, build.get(scores), relax.const(np.array(_LEFT_OUT, dtype)))

        message = (
            "is taken for a mask of attention, since on all samples it is 0 or below -1000; other values count as one of these"
        )
        remarks = [Remark("MasksFromSamples", name, message) for name in dict.fromkeys(names.values())]
        return add_remarks(rebuild(mod, rewrite), remarks)


def has_candidates(mod: tvm.IRModule) -> bool:
    """Whether there is anything that might be such a mask."""
    return bool(_candidates(GraphView(mod)))


def _candidates(graph: GraphView) -> dict[relax.Var, relax.Var]:
    """The additions in front of a softmax, and what might be a mask: what follows from inputs without any weights."""
    found = {}
    given: dict[relax.Var, bool] = dict.fromkeys(input_vars(graph.main), True)
    given |= dict.fromkeys(graph.params, False)
    for var, value in graph.values.items():
        given[var] = _is_given(value, given)
        if getattr(getattr(value, "op", None), "name", "") != "relax.nn.softmax":
            continue
        added = graph.call(value.args[0])
        if added is None or added.op.name != "relax.add" or not graph.is_alone(value.args[0]):
            continue
        if masked_scores(value, graph.values.get, lambda expr: _constant(graph, expr)) is not None:
            continue
        for scores, mask in (added.args, added.args[::-1]):
            both = isinstance(scores, relax.Var) and isinstance(mask, relax.Var)
            whole = both and static_shape(scores) == static_shape(value.args[0])
            if whole and given.get(mask, False) and not given.get(scores, False) and "float" in str(mask.ty.dtype):
                found[value.args[0]] = mask
    return found


def _constant(graph: GraphView, expr: relax.Expr) -> np.ndarray | None:
    if isinstance(expr, Constant):
        return np.asarray(expr.value.numpy())
    return graph.params.get(expr) if isinstance(expr, relax.Var) else None


def _is_given(value: relax.Expr, given: dict[relax.Var, bool]) -> bool:
    """Whether a value follows from inputs alone, by operators that move or act on each element."""
    if isinstance(value, relax.Var):
        return given.get(value, False)
    if not isinstance(value, relax.Call) or getattr(value.op, "name", "") not in POINTWISE | _MOVES:
        return False
    tensors = [arg for arg in value.args if isinstance(arg, relax.Var) and isinstance(arg.ty, relax.TensorType)]
    # Constants of one element, such as the 1 and the -10000 in (1 - mask) * -10000, may be parameters.
    return any(given.get(arg, False) for arg in tensors) and all(
        given.get(arg, False) or np.prod(static_shape(arg)) == 1 for arg in tensors
    )


def _masks(mod: tvm.IRModule, wanted: set[relax.Var], batches: Iterable[Sequence[np.ndarray]]) -> set[relax.Var]:
    """Those whose values on all samples are 0 or below the limit."""
    interpreter, left = Interpreter(mod), set(wanted)
    for batch in batches:
        for start in range(0, len(batch[0]), _CHUNK):
            execution = interpreter.start([array[start : start + _CHUNK] for array in batch])
            execution.kept.update(left)
            while not left <= set(execution.values):
                execution.step()
            for var in list(left):
                value = np.asarray(execution.values[var])
                if not ((value == 0) | (value <= LOW)).all():
                    left.discard(var)
            if not left:
                return left
    return left
