"""Computing the first layers patch by patch, so that their large tensors never exist whole.

The first layers of a convolutional network have the largest activations and small receptive fields. Computed one patch of
their last tensor after the other, each patch from the region of the input that it depends on, only a patch of each tensor
between them is in memory; what neighbouring patches both depend on is computed for each of them (Lin et al., "MCUNetV2:
Memory-Efficient Patch-based Inference for Tiny Deep Learning", NeurIPS 2021).

Patches are whole rows here: in NHWC such a patch is contiguous in memory, so that it is read from the input and written
to the result where it lies, and rows overlap in one direction only. A patch may be as low as one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .._tvm import relax, tvm
from ..graph.adopt_module import model_pass
from ..graph.analysis import call_macs
from ..graph.module_params import static_shape
from ..graph.rebuild import Rebuilder, bindings, users
from ..graph.remarks import Remark, add_remarks
from .row_windows import Rows, RowWindow, on_rows, row_window

PATCH = ".patch"
"""Stands between the name of a layer and the number of the patch in the names of its parts."""


@dataclass(frozen=True)
class Prefix:
    """The layers that a tensor is computed by, as far as rows depend on rows.

    Attributes:
        end: The tensor.
        layers: The layers with their windows, in order, the last one computing `end`.
        sources: What they read from outside: tensors that exist whole.
    """

    end: relax.Var
    layers: dict[relax.Var, tuple[relax.Call, RowWindow]]
    sources: tuple[relax.Var, ...]

    @property
    def height(self) -> int:
        """Rows of the end."""
        return static_shape(self.end)[1]

    def patches(self, count: int) -> list[Rows]:
        """The rows of the end cut into at most `count` patches, all as high but the last."""
        high = -(-self.height // count)
        return [(start, min(start + high, self.height)) for start in range(0, self.height, high)]

    def rows(self, patch: Rows) -> dict[relax.Var, Rows]:
        """The rows of every tensor that a patch of the end is computed from, the end's own included."""
        needed = {self.end: patch}
        for var in reversed(self.layers):
            call, window = self.layers[var]
            first, behind = window.needs(needed[var])
            for position in window.operands:
                operand = call.args[position]
                known = needed.get(operand, (first, behind))
                needed[operand] = (min(first, known[0]), max(behind, known[1]))
        return needed

    def extra_macs(self, count: int) -> int:
        """Multiply-accumulates of the rows that `count` patches compute more than once."""
        total = 0.0
        computed = [self.rows(patch) for patch in self.patches(count)]
        for var, (call, _) in self.layers.items():
            rows = sum(needed[var][1] - needed[var][0] for needed in computed)
            total += call_macs(call) * (rows / static_shape(var)[1] - 1)
        # Rows that nothing depends on are not computed at all.
        return round(total)


def find_prefix(func: relax.Function, end: relax.Var) -> Prefix | None:
    """The layers that compute `end`; None where there are none, or where one of their tensors is read elsewhere."""
    values, readers = dict(bindings(func)), users(func)
    layers: dict[relax.Var, tuple[relax.Call, RowWindow]] = {}
    pending, sources = [end], []
    while pending:
        var = pending.pop()
        window = row_window(values.get(var))
        if window is None:
            if var not in sources:
                sources.append(var)
            continue
        if var in layers:
            continue
        call = values[var]
        layers[var] = (call, window)
        pending += [call.args[position] for position in window.operands]
    if end not in layers or not all(isinstance(var, relax.Var) for var in sources):
        return None
    if any(reader not in layers for var in layers if not var.same_as(end) for reader in readers[var]):
        return None
    order = {var: index for index, var in enumerate(values)}
    ordered = {var: layers[var] for var in sorted(layers, key=order.__getitem__)}
    return Prefix(end, ordered, tuple(sources))


def prefixes(func: relax.Function) -> Iterator[Prefix]:
    """Every prefix that could be computed in patches, shortest first."""
    for var, value in bindings(func):
        if row_window(value) is None:
            continue
        found = find_prefix(func, var)
        if found is not None and found.height > 1:
            yield found


@model_pass("PatchExecution")
class PatchExecution:
    """Compute the layers up to a tensor patch by patch; every byte of the result stays.

    The module is an integer program, images NHWC and batch 1. Where the layers cannot be cut, it is left as it is, and a
    remark says so.

    Args:
        end: Name of the variable that is put together of patches.
        patches: How many; two or more.
    """

    def __init__(self, end: str, patches: int) -> None:
        self.end, self.patches = end, patches

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        main = mod["main"]
        var = next((var for var, _ in bindings(main) if var.name == self.end), None)
        prefix = None if var is None else find_prefix(main, var)
        if prefix is None or len(prefix.patches(self.patches)) < 2:
            reason = (
                "there is no such tensor"
                if var is None
                else "its layers do not compute rows from rows, or their tensors are read elsewhere"
                if prefix is None
                else f"{prefix.height} rows cannot be cut into {self.patches} patches"
            )
            return add_remarks(mod, [Remark("PatchExecution", self.end, f"not computed in patches: {reason}")])
        return _cut(mod, prefix, prefix.patches(self.patches))


def _cut(mod: tvm.IRModule, prefix: Prefix, patches: list[Rows]) -> tvm.IRModule:
    build = Rebuilder(mod)
    for var, value in bindings(build.source):
        if var.same_as(prefix.end):
            parts = [_patch(build, prefix, index, rows) for index, rows in enumerate(patches)]
            build.values[var] = build.emit(relax.op.concat(parts, axis=1), var.name)
        elif var not in prefix.layers:
            new = build.get(value)
            build.values[var] = new if isinstance(new, relax.Var) else build.emit(new, var.name)
    return build.finish()


def _patch(build: Rebuilder, prefix: Prefix, index: int, patch: Rows) -> relax.Var:
    """One patch of the end."""
    needed = prefix.rows(patch)
    slices: dict[tuple[relax.Var, Rows], relax.Expr] = {}

    def cut(var: relax.Var, whole: relax.Expr, have: Rows) -> None:
        """Note a tensor that there is, and cut out of it what its readers need of it."""
        slices[var, have] = whole
        for reader, (call, window) in prefix.layers.items():
            wanted = window.needs(needed[reader])
            for position in window.operands:
                if call.args[position].same_as(var) and (var, wanted) not in slices:
                    begin, end = wanted[0] - have[0], wanted[1] - have[0]
                    piece = relax.op.strided_slice(whole, axes=[1], begin=[begin], end=[end])
                    slices[var, wanted] = build.emit(piece, f"{var.name}.rows{index}")

    for source in prefix.sources:
        cut(source, build.get(source), (0, static_shape(source)[1]))
    for var, (call, window) in prefix.layers.items():
        wanted = window.needs(needed[var])
        args = [
            slices[arg, wanted] if position in window.operands else build.get(arg) for position, arg in enumerate(call.args)
        ]
        made = build.emit(on_rows(call, args, window.padding(needed[var])), f"{var.name}{PATCH}{index}")
        cut(var, made, needed[var])
    return slices[prefix.end, patch]
