"""Layers that threads share: which parts of them, and that results are the same bytes whatever the number of threads."""

# mypy: ignore-errors

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.passes.small_models import model, weights
from tvmcompress.passes import LowerQDQ, Quantize, calibrate
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.targets import get_target
from tvmcompress.targets.x86 import host
from tvmcompress.targets.x86.compile import compile_module
from tvmcompress.targets.x86.lower import prim_funcs

op = relax.op
SHAPE = (1, 64, 27, 35)


def convolution(x, w):
    return op.nn.relu(op.nn.conv2d(x, w["a"], padding=[2, 2, 2, 2]))


def filtered(x, w):
    return op.nn.conv2d(x, w["e"], padding=[1, 1, 1, 1])


def strided(x, w):
    return op.nn.conv2d(x, w["b"], strides=[2, 2])


def depthwise(x, w):
    return op.nn.conv2d(x, w["c"], padding=[1, 1, 1, 1], groups=64)


def wide(x, w):
    return op.matmul(op.reshape(op.nn.avg_pool2d(x, [9, 7], strides=[9, 7]), (1, 960)), w["d"])


def exponential(x, w):
    return op.exp(x)


PARAMS = weights(3, a=(64, 64, 5, 5), e=(64, 64, 3, 3), b=(96, 64, 1, 1), c=(64, 1, 3, 3), d=(960, 1280))
# What each uses, and the loops that threads share: padding and sum of a convolution, in one loop where the padding is a band.
LAYERS = {convolution: ("a", 2), filtered: ("e", 1), strided: ("b", 1), depthwise: ("c", 1)}
LAYERS |= {wide: ("d", 1), exponential: ("", 1)}


def made(build, names: str, integer: bool):
    mod = model(build, SHAPE, params={name: PARAMS[name] for name in names})
    x = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    return (LowerQDQ()(Quantize(calibrate(mod, [[x]]))(mod)) if integer else mod), x


@pytest.mark.parametrize(
    ("build", "integer"),
    [(build, integer) for build in LAYERS for integer in (False, True) if not (integer and build is exponential)],
)
def test_large_layers_are_shared(build, integer) -> None:
    names, least = LAYERS[build]
    functions = prim_funcs(compile_module(made(build, names, integer)[0], threads=2).module)
    scripts = [func.script() for func in functions.values()]
    assert sum(script.count("T.parallel(") for script in scripts) >= least
    # Where there are few pieces, one thread may have to do twice as much as another. Minimal filtering has rows of tiles.
    pieces = 7 if any("winograd" in name for name in functions) else 9
    assert all(int(count) >= pieces for script in scripts for count in re.findall(r"T\.parallel\(T\.int64\((\d+)\)", script))


def network(x, w):
    return wide(op.nn.relu(op.add(depthwise(x, w), x)), w)


def deep(x, w):
    return strided(op.exp(op.negative(convolution(x, w))), w)


@pytest.mark.parametrize("integer", [False, True], ids=["float", "integer"])
@pytest.mark.parametrize(("build", "names"), [(network, "cd"), (deep, "ab"), (filtered, "e")])
def test_bytes_do_not_depend_on_threads(build, names, integer, tmp_path) -> None:
    mod, x = made(build, names, integer)
    artifact = get_target("x86").build(mod, tmp_path, tuning_log=False)
    given = [artifact.inputs[0].quantize(x)]
    alone = artifact.run(given, threads=1)[0]
    assert np.unique(alone).size > 20
    for threads in range(2, host.available_cpus() + 1):
        for _ in range(3):
            assert artifact.run(given, threads=threads)[0].tobytes() == alone.tobytes()
    if not integer:
        np.testing.assert_allclose(alone, run(mod, [x])[0], rtol=1e-4, atol=1e-5)
