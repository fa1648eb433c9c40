"""Einstein sums of two tensors as matrix products."""

from __future__ import annotations

from dataclasses import dataclass

from .._tvm import relax
from .module_params import static_shape


@dataclass(frozen=True)
class MatmulForm:
    """An Einstein sum of two tensors as: permute both, reshape both to three axes, multiply, reshape, permute.

    Attributes:
        axes: For either operand the order in which its axes are brought: batch, rows, depth for the first; batch, depth,
            columns for the second.
        shapes: For either operand its shape with three axes.
        product: The shape of the product, all axes apart: batch, rows, columns.
        result: The order in which the axes of the product are brought for the result.
    """

    axes: tuple[tuple[int, ...], tuple[int, ...]]
    shapes: tuple[tuple[int, int, int], tuple[int, int, int]]
    product: tuple[int, ...]
    result: tuple[int, ...]


def matmul_form(call: relax.Call) -> MatmulForm | None:
    """The matrix product that a call of `einsum` is; None for one of more or fewer tensors, with an index twice on one
    tensor, or with an index that is summed over on one tensor alone."""
    fields = list(call.args[0].fields) if isinstance(call.args[0], relax.Tuple) else []
    inputs, arrow, out = str(call.attrs.subscripts).replace(" ", "").partition("->")
    sides = inputs.split(",")
    if len(fields) != 2 or len(sides) != 2 or not arrow or "." in inputs:
        return None
    first, second = sides
    if any(len(set(side)) != len(side) for side in (first, second, out)) or set(out) - set(first + second):
        return None
    sizes: dict[str, int] = {}
    for side, field in zip(sides, fields):
        for index, length in zip(side, static_shape(field)):
            if sizes.setdefault(index, length) != length:
                return None
    batch = [i for i in first if i in second and i in out]
    depth = [i for i in first if i in second and i not in out]
    rows, columns = [i for i in first if i not in second], [i for i in second if i not in first]
    if not depth or any(i not in out for i in rows + columns):
        return None

    def size(indices: list[str]) -> int:
        total = 1
        for index in indices:
            total *= sizes[index]
        return total

    made = batch + rows + columns
    return MatmulForm(
        axes=(
            tuple(first.index(i) for i in batch + rows + depth),
            tuple(second.index(i) for i in batch + depth + columns),
        ),
        shapes=((size(batch), size(rows), size(depth)), (size(batch), size(depth), size(columns))),
        product=tuple(sizes[i] for i in made),
        result=tuple(made.index(i) for i in out),
    )
