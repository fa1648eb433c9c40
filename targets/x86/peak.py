"""How many multiply-accumulates a second this machine's vector units do at most, measured.

A matrix product whose sums stay in registers and whose operands in the first-level cache; the best of some tiles. What a
layer reaches of it says how much there is left to gain.
"""

from __future__ import annotations

import functools

import numpy as np

from ...passes._tvm import te, tirx, tvm
from .host import cpu_features, resolve_cpu, tvm_target
from .kernels.intrinsics import BLOCK_ANNOTATION, DOT_ANNOTATION, DOTS, LANES_ANNOTATION, Dot
from .space import schedule_as

_REPEAT = 64
"""Times that the product is computed in one call, so that the call itself does not count."""
_DEPTH = 256
_TILES = ((2, 6), (3, 4), (4, 3), (2, 12), (4, 6))
"""Vectors and positions."""


@functools.cache
def peak_products(product: str, cpu: str = "native") -> float:
    """Multiply-accumulates a second of one core.

    Args:
        product: The name of a dot product's intrinsic (`Dot.broadcast`), or "" for float32.
        cpu: What is compiled for; this machine must be able to run it.
    """
    dot = next((dot for dot in DOTS if dot.broadcast == product), None)
    lanes = dot.lanes if dot is not None else 16 if "avx512f" in cpu_features(resolve_cpu(cpu)) else 8
    return max(_measure(dot, lanes, vectors, positions, cpu) for vectors, positions in _TILES)


def _measure(dot: Dot | None, lanes: int, vectors: int, positions: int, cpu: str) -> float:
    mod = _product(dot, lanes, vectors, positions)
    tile: dict[str, int | str] = {"channels": vectors * lanes, "positions": positions, "rows": 1, "unroll": 2}
    point: dict[str, int | str] = {**tile, "order": "rows", "border": "none", "epilogue": "tile", "taps": "loop"}
    target = tvm_target(cpu, 1)
    library = tvm.tirx.build(schedule_as(mod, point, parallel=False).mod, target=target)
    shapes = [(tuple(int(dim) for dim in param.ty.shape), str(param.ty.dtype)) for param in mod["main"].params]
    tensors = [tvm.runtime.tensor(np.ones(shape, dtype)) for shape, dtype in shapes]
    timer = getattr(library, "mod", library).time_evaluator("main", tvm.cpu(), number=4, repeat=20)
    work = _REPEAT * positions * vectors * lanes * _DEPTH
    return work / float(min(timer(*tensors).results))


def _product(dot: Dot | None, lanes: int, vectors: int, positions: int) -> tvm.IRModule:
    group, activation, kind = (1, "float32", "float32") if dot is None else (dot.group, dot.activation, dot.weight)
    x = te.placeholder((positions, _DEPTH), activation, name="x")
    w = te.placeholder((vectors, _DEPTH // group, lanes, group), kind, name="w")
    part, item = te.reduce_axis((0, _DEPTH // group), "part"), te.reduce_axis((0, group), "item")
    result = "float32" if dot is None else "int32"

    def element(_: tirx.Var, i: tirx.Var, k: tirx.Var) -> tirx.PrimExpr:
        if dot is None:
            return te.sum(x[i, part] * w[k // lanes, part, k % lanes, 0], axis=[part])
        products = x[i, part * group + item].astype(result) * w[k // lanes, part, k % lanes, item].astype(result)
        return te.sum(products, axis=[part, item])

    attrs = {BLOCK_ANNOTATION: lanes, LANES_ANNOTATION: lanes} if dot is None else {DOT_ANNOTATION: dot.broadcast}
    out = te.compute((_REPEAT, positions, vectors * lanes), element, name="product", attrs=attrs)
    return tvm.IRModule({"main": te.create_prim_func([x, w, out]).with_attr("global_symbol", "main")})
