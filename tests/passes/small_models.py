"""Small float models with names, in canonical form."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tvmcompress.passes import Canonicalize, attach_params
from tvmcompress.passes._tvm import relax, tvm

Build = Callable[..., relax.Expr]


def model(build: Build, *shapes: tuple[int, ...], params: Mapping[str, np.ndarray] | None = None) -> tvm.IRModule:
    """A model of inputs x0, x1, ... and parameters; `build` gets the inputs, then the parameters as a dict."""
    params = dict(params or {})
    inputs = [relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
    weights = {name: relax.Var(name, relax.TensorType(v.shape, v.dtype.name)) for name, v in params.items()}
    builder = relax.BlockBuilder()
    with builder.function("main", [*inputs, *weights.values()], attrs={"num_input": len(inputs)}):
        with builder.dataflow():
            out = builder.emit_output(builder.normalize(build(*inputs, weights)))
        builder.emit_func_output(out)
    return Canonicalize()(attach_params(builder.get(), params))


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Random parameters: names written with a double underscore for the dot."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in shapes.items():
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 4
        made[name.replace("__", ".")] = (rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)
    return made


def samples(*shapes: tuple[int, ...], count: int = 24, seed: int = 1) -> list[np.ndarray]:
    """Random inputs, `count` of each."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((count, *shape[1:])).astype(np.float32) for shape in shapes]


def operators(mod: tvm.IRModule) -> list[str]:
    """Names of all operators called, in order, without prefix."""
    from tvmcompress.passes.graph.rebuild import bindings

    names = [value.op.name for _, value in bindings(mod["main"]) if isinstance(value, relax.Call)]
    return [name.removeprefix("relax.").removeprefix("tvmcompress.") for name in names]
