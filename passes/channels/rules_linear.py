"""Matrix products: dense layers, batched products of activations, einsum, attention."""

from __future__ import annotations

import numpy as np

from .._tvm import relax, tirx
from .atoms import Role
from .axes import Axes, from_pairs
from .registry import Flow, NotCovered, Site, rule
from .rules_elementwise import any_zero, join


@rule("relax.matmul")
def _matmul(flow: Flow) -> Axes:
    left, right = flow.operand(0), flow.operand(1)
    left_pairs, right_pairs = left.pairs(), right.pairs()
    depth = -2 if len(right) > 1 else -1
    flow.mark(right.ids[depth], Role.INPUT)
    if len(right) > 1:
        flow.mark(right.ids[-1], Role.OUTPUT)
    flow.mark(left.ids[-1], Role.INPUT)
    if len(left) > 1:
        flow.mark(left.ids[-2], Role.OUTPUT)
    flow.contract(left_pairs[-1], right_pairs[depth])
    batches = [from_pairs(pairs[:-2]) for pairs in (left_pairs, right_pairs) if len(pairs) > 2]
    pairs = join(flow, batches, any_zero).pairs() if batches else []
    if len(left) > 1:
        pairs.append(left_pairs[-2])
    if len(right) > 1:
        pairs.append(right_pairs[-1])
    return from_pairs(pairs)


@rule("relax.outer")
def _outer(flow: Flow) -> Axes:
    return from_pairs([flow.operand(0).pairs()[0], flow.operand(1).pairs()[0]])


@rule("relax.einsum")
def _einsum(flow: Flow) -> Axes:
    operands = flow.fields(0)
    terms, _, result = str(flow.attrs.subscripts).replace(" ", "").partition("->")
    subscripts = terms.split(",")
    if "." in terms or "->" not in str(flow.attrs.subscripts):
        raise NotCovered(f"the subscripts {flow.attrs.subscripts} of {flow.name} are not covered")
    if any(len(set(term)) != len(term) for term in subscripts):
        raise NotCovered(f"{flow.name} takes a diagonal")
    letters: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for term, operand in zip(subscripts, operands):
        for letter, (ids, zero) in zip(term, operand.pairs()):
            if letter not in letters:
                letters[letter] = ids, zero
            elif len(letters[letter][0]) != len(ids):
                raise NotCovered(f"{flow.name} broadcasts")
            else:
                flow.tie(letters[letter][0], ids)
                letters[letter] = letters[letter][0], letters[letter][1] | zero
            flow.mark(ids, Role.OUTPUT if letter in result else Role.INPUT)
    for letter, (ids, zero) in letters.items():
        if letter not in result:
            flow.freeze(ids[~zero], f"{flow.name} sums over it and no operand is zero where it is removed")
    return from_pairs([letters[letter] for letter in result])


def _rebuild_attention(site: Site) -> relax.Expr:
    if site.attrs.scale is not None:
        return site.same()
    # The default is one over the square root of the width, which must stay that of the whole width.
    width = len(site.operand(0).ids[3])
    return site.with_attrs(scale=tirx.FloatImm("float32", width**-0.5))


@rule("relax.nn.attention", "relax.nn.attention_bias", rebuild=_rebuild_attention)
def _attention(flow: Flow) -> Axes:
    # batch, sequence, heads, width of a head
    query, key, value = (flow.operand(index).pairs() for index in range(3))
    if not len(query) == len(key) == len(value) == 4:
        raise NotCovered(f"an operand of {flow.name} has not four axes")
    flow.contract(query[3], key[3])
    for axis in (0, 2):
        flow.tie(query[axis][0], key[axis][0])
        flow.tie(query[axis][0], value[axis][0])
    flow.tie(key[1][0], value[1][0])
    flow.freeze(key[1][0], f"the softmax in {flow.name} normalizes over it")
    if len(flow.operands) > 3:
        bias = flow.operand(3).pairs()
        targets = (query[0][0], query[2][0], query[1][0], key[1][0])
        for (ids, _), target in zip(bias, targets):
            if len(ids) == len(target):
                flow.tie(ids, target)
    sequence = query[1][0], np.zeros(len(query[1][0]), bool)
    return from_pairs([(query[0][0], value[0][1]), sequence, (query[2][0], value[2][1]), value[3]])
