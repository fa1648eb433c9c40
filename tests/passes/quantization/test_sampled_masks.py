"""Masks of attention given in floating point: seen from samples, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tvmcompress import InputSpec, Model, compress
from tvmcompress.passes import get_remarks
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import Interpreter
from tvmcompress.passes.quantization.sampled_masks import MasksFromSamples, has_candidates

from ..conftest import Net

op = relax.op
TOKENS, SIZE, SAMPLES = 10, 12, 48


def attention(kind: str) -> Any:
    """Scores of (1, 10, 10), and a mask of the keys as `kind` has it."""
    net: Any = Net((1, TOKENS, SIZE), (1, TOKENS))
    x, mask = net.inputs
    query, key, value = (net.dense(x, SIZE) for _ in range(3))
    turned = net.emit(op.permute_dims(key, [0, 2, 1]))
    scores = net.emit(op.matmul(query, turned))
    if kind == "flags":
        mask = net.emit(op.multiply(net.emit(op.subtract(relax.const(1.0), mask)), relax.const(-1e4)))
    wide = net.emit(op.expand_dims(mask, 1), "wide")
    added = net.emit(op.add(wide, scores) if kind == "first" else op.add(scores, wide))
    soft = net.emit(op.nn.softmax(added, -1))
    return net.finish(net.emit(op.matmul(soft, value)))


def samples(kind: str) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    kept = np.arange(TOKENS) < rng.integers(3, TOKENS + 1, SAMPLES)[:, None]
    mask = kept if kind == "flags" else np.where(kept, 0, -1e4)
    return [rng.normal(size=(SAMPLES, TOKENS, SIZE)).astype("float32"), mask.astype("float32")]


@pytest.mark.parametrize("kind", ["added", "first", "flags"])
def test_a_mask_is_taken_out_of_the_scores(kind: str) -> None:
    mod, data = attention(kind), samples(kind)
    assert has_candidates(mod)
    chosen = MasksFromSamples([data])(mod)
    assert [remark.subject for remark in get_remarks(chosen)] == ["wide"]
    for expected, found in zip(Interpreter(mod)(data), Interpreter(chosen)(data)):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    specs = (InputSpec(name="input0", shape=(1, TOKENS, SIZE)), InputSpec(name="input1", shape=(1, TOKENS)))
    made = compress(Model(mod, specs), {"input0": data[0], "input1": data[1]}, quantize="int8")
    (expected,), (found,) = Interpreter(mod)(data), Interpreter(made.model.module)(data)
    assert 10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum()) > 25
    assert not has_candidates(chosen)


def test_a_bias_is_none() -> None:
    """One value between is enough, and so are weights behind the input."""
    mod, data = attention("added"), samples("added")
    data[1][17, 2] = -0.5
    left = MasksFromSamples([data])(mod)
    assert has_candidates(left)
    assert not get_remarks(left)
    net: Any = Net((1, 4, 6))
    scores, other = net.dense(net.x, 4), net.dense(net.x, 4)
    mod = net.finish(net.emit(op.nn.softmax(net.emit(op.add(scores, other)), -1)))
    assert not has_candidates(mod)
