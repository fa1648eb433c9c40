"""Choosing the plan of a convolution by the instructions that it would execute.

Counted are vector instructions, loads and stores, and what surrounds loops; where a tile overlaps the one before, the overlap
counts as well.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...kernels.layers import ConvolutionShape
from ...kernels.vectors import VECTOR
from .epilogue import Epilogue
from .plan import ConvolutionKernel, Plan
from .products import Products

_BAND_BYTES = 16384
_COLUMNS_BYTES = 16384
_LOOP = 3
"""Instructions that a round of a loop takes besides its body."""
_TILE = 12
"""Instructions of a tile besides its sums and outputs: addresses, and loops around it."""


def plan_convolution(shape: ConvolutionShape, epilogue: Epilogue, products: Products) -> Plan:
    """The plan of fewest instructions."""
    return min(plans(shape, products), key=lambda plan: cost(ConvolutionKernel(shape, epilogue, products, plan)))


def plans(shape: ConvolutionShape, products: Products) -> Iterator[Plan]:
    """All plans whose tiles the registers hold."""
    for source in _sources(shape, products):
        rows = shape.out_height if source == "direct" else _band_rows(shape, source)
        flat = source == "columns" or (source == "direct" and shape.strides == (1, 1))
        walk, lines = (rows * shape.out_width, 1) if flat else (shape.out_width, rows)
        for vectors in range(1, min(8, -(-shape.out_channels // 4)) + 1):
            for down in range(1, min(4, lines) + 1):
                for across in range(1, min(16, walk) + 1):
                    if products.fits(down * across, vectors):
                        yield Plan(source, (down, across), vectors, rows, products.unroll)


def _sources(shape: ConvolutionShape, products: Products) -> list[str]:
    rows, columns = (shape.out_height - 1) * shape.strides[0], (shape.out_width - 1) * shape.strides[1]
    pointwise = shape.kernel == (1, 1) and not (shape.top or shape.left) and rows < shape.height and columns < shape.width
    if pointwise and shape.channels % products.granule == 0:
        return ["direct"]
    if pointwise and shape.height == 1:
        return ["columns"]
    return ["band"] if shape.kernel[0] == 1 else ["band", "columns"]


def _band_rows(shape: ConvolutionShape, source: str) -> int:
    """Output rows of a band: as many as the workspaces hold."""
    across = ((shape.out_width - 1) * shape.strides[1] + shape.kernel[1]) * shape.channels
    field = shape.kernel[0] * shape.kernel[1] * shape.channels

    def fits(rows: int) -> bool:
        band = ((rows - 1) * shape.strides[0] + shape.kernel[0]) * across
        return band <= _BAND_BYTES and (source == "band" or rows * shape.out_width * field <= _COLUMNS_BYTES)

    most = max(rows for rows in range(1, shape.out_height + 1) if rows == 1 or fits(rows))
    # As many bands, of equal height.
    bands = -(-shape.out_height // most)
    return -(-shape.out_height // bands)


def cost(k: ConvolutionKernel) -> float:
    """Instructions that a kernel would execute, as they are counted here."""
    s, plan, products = k.shape, k.plan, k.products
    pixels = plan.pixels[0] * plan.pixels[1]
    bands = -(-s.out_height // plan.rows)
    walk, lines = (plan.rows * s.out_width, 1) if k.flat else (s.out_width, plan.rows)
    tiles = -(-lines // plan.pixels[0]) * -(-walk // plan.pixels[1]) * len(k.starts) * bands
    inner = 0.0
    for phase in k.phases:
        steps = sum(products.cost(pixels, plan.vectors, size) for _, size in phase.steps)
        inner += phase.rounds * (steps + (_LOOP if phase.rounds > 1 else 0))
    inner = k.runs * (inner + (_LOOP if k.runs > 1 else 0))
    # Scaling, narrowing and storing, and the start of the sums.
    ends = pixels * plan.vectors * (5.5 + products.end_cost) + pixels + products.sums(pixels, plan.vectors)
    total = tiles * (inner + ends + 3 * plan.vectors + _TILE)
    if plan.source != "direct":
        total += bands * k.band.count * (k.band.pitch / VECTOR * 2.2 + 12)
    if plan.source == "columns":
        total += s.out_height * s.out_width * s.kernel[0] * 2.2 * -(-s.kernel[1] * s.channels // VECTOR)
    return total
