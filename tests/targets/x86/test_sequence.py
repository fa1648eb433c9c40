"""One function in place of all calls: it is used where it can be, and computes the same."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.targets.objects import CompiledFunction
from tvmcompress.targets.x86 import compile
from tvmcompress.targets.x86.compile import compile_module


@I.ir_module
class Tangled:
    """Two inputs and two outputs, functions that are called twice, a reshape in between, and a result that is used again."""

    @R.function
    def main(x: R.Tensor((4, 6), "float32"), y: R.Tensor((6, 4), "float32"), w: R.Tensor((4, 4), "float32")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            flat = R.reshape(x, (6, 4))
            first = R.matmul(flat, w)
            second = R.matmul(first, w)
            third = R.matmul(R.add(R.reshape(second, (6, 4)), y), w)
            sums = R.sum(third, axis=[1])
            R.output(third, sums)
        return (third, sums)


@I.ir_module
class Scalar:
    """An input without axes, which has no place for an address."""

    @R.function
    def main(x: R.Tensor((), "float32"), w: R.Tensor((5, 5), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.matmul(R.multiply(w, x), w)
            z = R.matmul(y, w)
            R.output(z)
        return z


@I.ir_module
class Same:
    """A result that is an input."""

    @R.function
    def main(x: R.Tensor((5, 5), "float32"), w: R.Tensor((5, 5), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.matmul(R.matmul(x, w), w)
            R.output(y)
        return (y, x)


def compiled(mod, weights):
    """The instructions of the virtual machine, and a function that runs it."""
    executable = compile_module(attach_params(mod, {"w": weights})).executable
    machine = relax.VirtualMachine(executable, tvm.cpu())

    def run(*arrays):
        result = machine["main"](*(tvm.runtime.tensor(array) for array in arrays))
        return [result.numpy()] if isinstance(result, tvm.runtime.Tensor) else [part.numpy() for part in result]

    return executable.as_text(), run


@pytest.fixture
def random():
    return np.random.default_rng(3)


def test_all_calls_become_one(random) -> None:
    w = random.normal(size=(4, 4)).astype("float32")
    text, run = compiled(Tangled, w)
    assert "call_all" in text
    assert "matmul" not in text
    results = []
    for _ in range(2):  # nothing is left over from the first call
        x, y = random.normal(size=(4, 6)).astype("float32"), random.normal(size=(6, 4)).astype("float32")
        third, sums = run(x, y)
        expected = (x.reshape(6, 4) @ w @ w + y) @ w
        np.testing.assert_allclose(third, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(sums, expected.sum(1), rtol=1e-4, atol=1e-4)
        results.append(third)
    assert not np.shares_memory(*results)


def test_inputs_of_other_shapes_are_refused(random) -> None:
    _, run = compiled(Tangled, random.normal(size=(4, 4)).astype("float32"))
    with pytest.raises(Exception, match="(?i)shape|match"):
        run(np.zeros((4, 5), "float32"), np.zeros((6, 4), "float32"))


@pytest.mark.parametrize("mod", [Scalar, Same])
def test_what_is_not_known_is_left_to_the_virtual_machine(mod, random) -> None:
    w = random.normal(size=(5, 5)).astype("float32")
    text, run = compiled(mod, w)
    assert "call_all" not in text
    if mod is Scalar:
        (result,) = run(np.array(0.5, "float32"))
        expected = 0.5 * w @ w @ w
    else:
        x = random.normal(size=(5, 5)).astype("float32")
        result, same = run(x)
        np.testing.assert_array_equal(same, x)
        expected = x @ w @ w
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_what_calls_all_is_not_optimized(monkeypatch) -> None:
    """LLVM would take seconds for it in deep networks; what it calls is."""
    levels = {}
    build = tvm.tirx.build

    def spied(module, target):
        (var,) = module.functions
        levels[var.name_hint] = dict(target.export()).get("opt-level")
        return build(module, target=target)

    def in_this_process(functions, compiler):
        made = {name: compiler.compile(func[0].with_attr("global_symbol", name)) for name, func in functions.items()}
        return {name: CompiledFunction(each.content, {}, 0, None) for name, each in made.items()}

    monkeypatch.setattr(tvm.tirx, "build", spied)
    monkeypatch.setattr(compile, "compile_functions", in_this_process)
    compile_module(attach_params(Tangled, {"w": np.eye(4, dtype="float32")}))
    assert levels.pop("call_all") == 0
    assert levels
    assert set(levels.values()) == {None}
