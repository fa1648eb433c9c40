"""Fused projections, split where they are made."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import PruneHeads, SplitProjections, get_surgery, groups, zero_channels
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run

from ..small_models import model, operators, samples, weights

op, nn = relax.op, relax.op.nn
TOKENS = (1, 5, 10)


def index(value):
    return relax.const(np.int64(value), "int64")


def attend(q, k, v, w):
    """Attention over (batch, heads, tokens, width)."""
    scores = nn.softmax(op.matmul(q, op.permute_dims(k, [0, 1, 3, 2])), -1)
    y = op.reshape(op.permute_dims(op.matmul(scores, v), [0, 2, 1, 3]), (1, 5, 12))
    return op.matmul(y, w["proj.weight"])


def fused(x, w, order=(2, 0, 3, 1, 4)):
    y = op.reshape(op.matmul(x, w["qkv.weight"]), (1, 5, 3, 2, 6))
    return op.permute_dims(y, list(order)) if order else y


def by_take(x, w):
    y = fused(x, w)
    return attend(*(op.take(y, index(part), 0) for part in range(3)), w)


def by_split(x, w):
    parts = op.split(fused(x, w), 3, 0)
    return attend(*(op.squeeze(parts[part], [0]) for part in range(3)), w)


def untransposed(x, w):
    y = fused(x, w, order=None)
    return attend(*(op.permute_dims(op.take(y, index(part), 2), [0, 2, 1, 3]) for part in range(3)), w)


def by_way_of_single_axes(x, w):
    """As PyTorch's own multi-head attention does it."""
    y = op.expand_dims(op.reshape(op.matmul(x, w["qkv.weight"]), (1, 5, 3, 12)), [0])
    y = op.squeeze(op.permute_dims(y, [3, 1, 2, 0, 4]), [3])
    heads = (op.reshape(op.take(y, index(part), 0), (1, 5, 2, 6)) for part in range(3))
    return attend(*(op.permute_dims(part, [0, 2, 1, 3]) for part in heads), w)


FUSED = [by_take, by_split, untransposed, by_way_of_single_axes]


def network(build):
    return model(build, TOKENS, params=weights(qkv__weight=(10, 36), proj__weight=(12, 4)))


@pytest.mark.parametrize("build", FUSED, ids=lambda build: build.__name__)
def test_queries_and_values_have_widths_of_their_own(build):
    mod = network(build)
    split = SplitProjections()(mod)
    x = samples(TOKENS)
    np.testing.assert_allclose(run(split, x)[0], run(mod, x)[0], rtol=1e-6, atol=1e-6)
    assert operators(split)[:2] == ["matmul", "split"]
    members = [group.members["qkv.weight", 1] for group in groups(split) if group.frozen is None]
    # Position k of both heads' queries and keys is one unit, that of their values another.
    position = np.arange(6)[:, None]
    assert [idx.tolist() for idx in members] == [
        (position + [0, 6, 12, 18]).tolist(),
        (position + [24, 30]).tolist(),
    ]


@pytest.mark.parametrize("build", FUSED, ids=lambda build: build.__name__)
def test_whole_heads_still_go(build):
    split = SplitProjections()(network(build))
    pruned = PruneHeads(0.5)(split)
    (group,) = get_surgery(pruned).groups
    assert (group.size, len(group.kept)) == (2, 1)
    assert len(group.members["qkv.weight:1"]) == 18
    x = samples(TOKENS)
    expected = run(zero_channels(split, get_surgery(pruned)), x)[0]
    np.testing.assert_allclose(run(pruned, x)[0], expected, rtol=1e-5, atol=1e-5)


def whole_is_read(x, w):
    y = fused(x, w)
    return op.add(op.take(y, index(0), 0), op.mean(y, 0))


def inner_part(x, w):
    """Interleaved: every head's query, key and value side by side."""
    y = op.reshape(op.matmul(x, w["qkv.weight"]), (1, 5, 2, 3, 6))
    return op.add(op.take(y, index(0), 3), op.take(y, index(2), 3))


def range_of_parts(x, w):
    return op.sum(op.take(fused(x, w), relax.const(np.array([0, 2])), 0), 0)


@pytest.mark.parametrize("build", [whole_is_read, inner_part, range_of_parts], ids=lambda build: build.__name__)
def test_others_are_left(build):
    mod = network(build)
    assert operators(SplitProjections()(mod)) == operators(mod)
