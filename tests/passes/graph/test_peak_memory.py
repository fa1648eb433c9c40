"""Memory of activations on networks whose peak can be counted by hand."""

# mypy: ignore-errors

from __future__ import annotations

from tvmcompress.passes.graph.peak_memory import liveness, peak_activations, storages


def test_a_chain_holds_two_layers(net):
    built = net((1, 3, 8, 8))
    x = built.relu(built.conv(built.x, 8))  # 3 * 64 in, 8 * 64 out; bias and relu work in place
    mod = built.finish(built.conv(x, 4, stride=2))  # 8 * 64 in, 4 * 16 out
    assert peak_activations(mod) == (3 + 8) * 64
    assert [storage.elements for storage in storages(mod)] == [3 * 64, 8 * 64, 4 * 16]


def test_a_residual_holds_the_shortcut(net):
    built = net((1, 4, 8, 8))
    x = built.relu(built.conv(built.x, 4))
    y = built.conv(built.relu(built.conv(x, 4)), 4)
    mod = built.finish(built.relu(built.add(x, y)))
    # While the second convolution runs: its input, its output and the shortcut.
    assert peak_activations(mod) == 3 * 4 * 64


def test_what_is_read_again_is_not_written_over(net):
    built = net((1, 4, 8, 8))
    x = built.conv(built.x, 4, bias=False)
    mod = built.finish(built.add(built.relu(x), x))
    assert [storage.elements for storage in storages(mod)] == [256, 256, 256]


def test_reshapes_move_nothing(net):
    built = net((1, 4, 4, 4))
    mod = built.finish(built.dense(built.reshape(built.x, 1, 64), 3))
    assert [storage.elements for storage in storages(mod)] == [64, 3]


def test_concatenation_copies(net):
    built = net((1, 2, 4, 4))
    a, b = built.conv(built.x, 3), built.conv(built.x, 5)
    mod = built.finish(built.concat(a, b))
    assert peak_activations(mod) == 2 * 8 * 16
    assert liveness(storages(mod)).any(axis=1).all()
