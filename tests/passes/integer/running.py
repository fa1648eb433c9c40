"""Running one operator: compiled from its generic definition, and by the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run

Build = Callable[..., relax.Expr]


def module(build: Build, inputs: list[np.ndarray], params: Mapping[str, np.ndarray] | None = None) -> tvm.IRModule:
    """A module whose `main` is one expression of its inputs and parameters."""
    params = params or {}
    variables = [relax.Var(f"x{i}", relax.TensorType(v.shape, v.dtype.name)) for i, v in enumerate(inputs)]
    weights = [relax.Var(name, relax.TensorType(v.shape, v.dtype.name)) for name, v in params.items()]
    builder = relax.BlockBuilder()
    with builder.function("main", [*variables, *weights], attrs={"num_input": len(variables)}):
        with builder.dataflow():
            out = builder.emit_output(build(*variables, *weights))
        builder.emit_func_output(out)
    return attach_params(builder.get(), params)


def compiled(mod: tvm.IRModule, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Outputs of the module compiled for the host."""
    params = [value.numpy() for value in mod.attrs["tvmcompress.params"].values()]
    machine = relax.VirtualMachine(tvm.compile(mod.without_attr("tvmcompress.params"), target="llvm"), tvm.cpu())
    result = machine["main"](*(tvm.runtime.tensor(np.array(v, order="C")) for v in [*inputs, *params]))
    return [result.numpy()] if isinstance(result, tvm.runtime.Tensor) else [part.numpy() for part in result]


def both(build: Build, inputs: list[np.ndarray], params: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
    """The result, after checking that the compiled and the interpreted one are equal."""
    mod = module(build, inputs, params)
    by_code, by_reference = compiled(mod, inputs)[0], run(mod, inputs)[0]
    assert by_code.dtype == by_reference.dtype
    np.testing.assert_array_equal(by_code, by_reference)
    return by_code
