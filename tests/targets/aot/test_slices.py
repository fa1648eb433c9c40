"""Slices and concatenations along the outermost axis move nothing; the others are computed."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tests.targets.aot.memory import check_memory
from tests.targets.aot.test_library import Library, infer
from tvmcompress.passes import attach_params
from tvmcompress.passes.graph.interpreter import run


@I.ir_module
class Outermost:
    @R.function
    def main(x: R.Tensor((1, 8, 4), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.strided_slice(x, axes=[1], begin=[0], end=[2])
            b = R.strided_slice(x, axes=[1], begin=[-4], end=[8])
            c = R.exp(a)
            d = R.reshape(R.exp(b), (4, 4))
            out = R.concat((R.reshape(d, (1, 4, 4)), c), axis=1)
            R.output(out)
        return out


@I.ir_module
class Inner:
    @R.function
    def main(x: R.Tensor((1, 8, 4), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.exp(R.strided_slice(x, axes=[2], begin=[0], end=[2]))
            b = R.exp(R.strided_slice(x, axes=[1], begin=[0], end=[8], strides=[2]))
            out = R.concat((R.reshape(a, (1, 4, 4)), b), axis=2)
            R.output(out)
        return out


@I.ir_module
class Unaligned:
    @R.function
    def main(x: R.Tensor((1, 8, 3), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.exp(R.strided_slice(x, axes=[1], begin=[1], end=[4]))
            b = R.exp(R.strided_slice(x, axes=[1], begin=[4], end=[8]))
            out = R.concat((a, b), axis=1)
            R.output(out)
        return out


@I.ir_module
class Shared:
    """A part that is joined twice, and one that is an input, must be copied; one that is returned, too."""

    @R.function
    def main(x: R.Tensor((1, 4, 4), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.exp(x)
            b = R.concat((a, x), axis=1)
            c = R.concat((R.exp(a), a), axis=1)
            d = R.add(b, c)
            e = R.concat((d, d), axis=1)
            R.output(d, e)
        return (d, e)


@pytest.mark.parametrize(
    ("net", "copies"), [(Outermost, 0), (Inner, 3), (Unaligned, 2), (Shared, 2)], ids=["outer", "inner", "unaligned", "shared"]
)
def test_views(net, copies, tmp_path) -> None:
    mod = attach_params(net, {})
    library = Library(mod, tmp_path)
    program = library.made.program
    check_memory(program, library.made.arena)
    copying = [step for step in program.steps if "slice" in step.function or "concat" in step.function]
    assert (len(copying) > 0) == (copies > 0)
    x = np.random.default_rng(0).normal(size=[int(d) for d in net["main"].params[0].ty.shape]).astype("float32")
    for got, want in zip(infer(library, x), run(mod, [x]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)

