"""Atoms: ties, freezes and roles."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tvmcompress.passes.channels.atoms import STRUCTURAL, Atoms, Role


def test_tied_atoms_are_one_component_and_others_are_not():
    atoms = Atoms()
    a, b, c = atoms.new(3), atoms.new(3), atoms.new(3)
    atoms.tie(a, b)
    atoms.tie(b[:1], c[1:2])
    labels = atoms.solve().labels
    assert labels[a[0]] == labels[b[0]] == labels[c[1]]
    assert labels[a[1]] == labels[b[1]] != labels[a[0]]
    assert len(set(labels[c])) == 3


def test_ties_broadcast():
    atoms = Atoms()
    grid = atoms.new(6).reshape(2, 3)
    atoms.tie(grid[:, :1], grid)
    labels = atoms.solve().labels[grid]
    assert (labels == labels[:, :1]).all()
    assert labels[0, 0] != labels[1, 0]


def test_a_freeze_reaches_all_that_is_tied_whatever_the_order():
    atoms = Atoms()
    a, b = atoms.new(2), atoms.new(2)
    atoms.freeze(a[:1], "a reason")
    atoms.tie(a, b)
    solved = atoms.solve()
    assert solved.frozen[solved.labels[b]].tolist() == [True, False]
    assert solved.reasons[solved.why[solved.labels[b[0]]]] == "a reason"
    assert solved.why[solved.labels[b[1]]] == -1


def test_a_reason_that_tells_something_wins_over_one_that_goes_without_saying():
    atoms = Atoms()
    a = atoms.new(1)
    atoms.freeze(a, STRUCTURAL)
    atoms.freeze(a, "first")
    atoms.freeze(a, "second")
    solved = atoms.solve()
    assert solved.reasons[solved.why[solved.labels[a[0]]]] == "first"


def test_only_structural_freezes_have_no_reason():
    atoms = Atoms()
    a = atoms.new(1)
    atoms.freeze(a)
    solved = atoms.solve()
    assert solved.frozen.tolist() == [True]
    assert solved.why.tolist() == [-1]


def test_known_frozen_follows_ties_made_later():
    atoms = Atoms()
    a, b = atoms.new(2), atoms.new(2)
    atoms.freeze(a)
    assert not atoms.known_frozen(b).any()
    atoms.tie(a, b)
    assert atoms.known_frozen(b).all()


def test_the_first_role_stays():
    atoms = Atoms()
    a = atoms.new(2)
    atoms.mark(a[:1], Role.OUTPUT)
    atoms.mark(a, Role.INPUT)
    assert atoms.solve().roles.tolist() == [Role.OUTPUT, Role.INPUT]


def test_nothing_at_all():
    assert len(Atoms().solve().labels) == 0


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40), st.data())
def test_components_equal_those_of_a_plain_union_find(count, ties, data):
    atoms = Atoms()
    ids = atoms.new(count)
    parent = list(range(count))

    def find(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for left, right in ties:
        left, right = left % count, right % count
        atoms.tie(ids[[left]], ids[[right]])
        parent[find(left)] = find(right)
    frozen = data.draw(st.sets(st.integers(0, count - 1)))
    if frozen:
        atoms.freeze(np.array(sorted(frozen)), "why")
    solved = atoms.solve()
    roots = [find(i) for i in range(count)]
    for i in range(count):
        assert solved.frozen[solved.labels[i]] == any(roots[j] == roots[i] for j in frozen)
        for j in range(count):
            assert (solved.labels[i] == solved.labels[j]) == (roots[i] == roots[j])
