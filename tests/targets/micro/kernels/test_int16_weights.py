"""Flash spent for instructions: which layers get halfwords, and what it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.integer import ops
from tvmcompress.passes.integer.registry import is_integer_op
from tvmcompress.targets import get_target
from tvmcompress.targets.integer_io import bound_core
from tvmcompress.targets.micro.kernels.legalize import UseDspKernels

RNG = np.random.default_rng(0)


def two_convolutions() -> tvm.IRModule:
    """A pointwise convolution of 100 pixels, 8 to 8, and one of 25 pixels, 8 to 16: the first gains more for a byte.

    Routines have no limits as theirs, so that halfwords are all that flash is spent on.
    """
    params, variables = {}, []
    for index, outputs in enumerate((8, 16)):
        values = {
            "weight": RNG.integers(-127, 128, (outputs, 1, 1, 8)).astype("int8"),
            "bias": RNG.integers(-999, 999, outputs).astype("int32"),
            "multiplier": RNG.integers(1 << 30, (1 << 31) - 1, outputs).astype("int32"),
            "shift": np.full(outputs, -8, "int32"),
        }
        params.update({f"{name}{index}": value for name, value in values.items()})
        variables.append([relax.Var(f"{n}{index}", relax.TensorType(v.shape, v.dtype.name)) for n, v in values.items()])
    x = relax.Var("x", relax.TensorType((1, 10, 10, 8), "int8"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, *variables[0], *variables[1]], attrs={"num_input": 1}):
        with builder.dataflow():
            first = builder.emit(ops.qconv2d(x, *variables[0], input_zero_point=3, output_zero_point=-128, qmax=100))
            second = builder.emit_output(
                ops.qconv2d(first, *variables[1], strides=(2, 2), input_zero_point=-128, output_zero_point=4, qmax=100)
            )
        builder.emit_func_output(second)
    return attach_params(builder.get(), params)


@pytest.mark.parametrize(("budget", "chosen"), [(0, []), (None, []), (63, []), (64, [0]), (191, [0]), (192, [0, 1])])
def test_the_best_layers_come_first(budget: int | None, chosen: list[int]) -> None:
    """Eight bytes more for a word of four k and a pair of outputs: 64 bytes for the first layer, 128 for the second."""
    core = bound_core(two_convolutions())
    weights = [call.args[1].value.numpy().tobytes() for _, call in bindings(core["main"]) if is_integer_op(call)]
    found = UseDspKernels(spend_flash=budget).halfwords(core)
    assert [index for index, weight in enumerate(weights) if weight in found] == chosen


@pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")
def test_spent_flash_saves_instructions(tmp_path: Path) -> None:
    mod = two_convolutions()
    x = RNG.integers(-128, 128, (1, 10, 10, 8)).astype("int8")
    spent = {}
    for budget in (0, 192):
        artifact = get_target("cortex-m4").build(mod, tmp_path / str(budget), spend_flash=budget)
        np.testing.assert_array_equal(artifact.run([x])[0], run(mod, [x])[0])
        measured = artifact.measure([x])
        spent[budget] = (measured.constant_bytes, measured.instructions)
    assert spent[192][0] == spent[0][0] + 192
    assert spent[192][1] < spent[0][1]
