"""Fully connected layers for cores with the DSP extension.

Nothing is reused but the input, so the loop is bound by reading weights: byte planes (see `packing`) need one word for four
multiply-accumulates. A few pairs of channels share the unpacking of the input; when memory allows, the input is unpacked
once for all channels instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from .epilogue import Epilogue
from .packing import byte_planes, first_plane, pair_parameters, second_plane
from .routines import dense_routine
from .words import even_bytes, hidden_zero, load_word, odd_bytes, qadd, smlad

# mypy: ignore-errors

_STACK_BYTES = 264
_LEAD = 2
"""Words that nothing is in before the values of a buffer. With an offset in every address none takes the form of two
registers, which would keep its load from being paired."""


@dataclass(frozen=True)
class Dense:
    """The shape of a fully connected layer.

    Attributes:
        inputs: K, a multiple of 4.
        outputs: O.
        epilogue: How accumulators become outputs.
        pairs: Pairs of channels made at a time.
        unroll: Words of four k in one round of the inner loop; divides K / 4.
        unpacked: Whether the input is unpacked once, into a workspace of 2 K bytes.
        late_bias: As of `panel.PanelPlan`.
        one_scale: Whether all channels share one factor, whose words then stand once at the head.
        routine: Whether a routine computes it, see `routines`: of two pairs, with the input unpacked, and no `late_bias`; the
            outputs are a multiple of 4.
    """

    inputs: int
    outputs: int
    epilogue: Epilogue
    pairs: int
    unroll: int
    unpacked: bool
    late_bias: bool = False
    one_scale: bool = False
    routine: bool = False

    @property
    def blocks(self) -> int:
        """Rounds of `pairs` pairs that cover all outputs."""
        return -(-self.outputs // (2 * self.pairs))


def pack_constants(
    layer: Dense, weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> list[np.ndarray]:
    """What the function reads, flat int32: (O, K) int8 weights, and what the epilogue needs, from (O,) int32 each."""
    constants = [pack_weights(layer, weights), pack_parameters(layer, bias, multiplier, shift)]
    if not layer.routine:
        return constants
    # By blocks: what sums start from, the weights, the epilogue's words of each pair where they differ.
    head, pairs = np.split(constants[1], [2 + (layer.epilogue.words if layer.one_scale else 0)])
    pairs = pairs.reshape(layer.blocks, 2, -1)
    starts, factors = (part.reshape(layer.blocks, -1) for part in (pairs[..., :2], pairs[..., 2:]))
    words = constants[0][_LEAD:].reshape(layer.blocks, -1)
    stream = np.concatenate([starts, words, factors], axis=1).ravel()
    counts = np.array([2 * layer.inputs, stream.nbytes, layer.epilogue.zero_point, *head[2:]], np.int32)
    return [stream, counts]


def pack_weights(layer: Dense, weights: np.ndarray) -> np.ndarray:
    """(O, K) int8 as byte planes, the pairs of a block interleaved word by word; flat int32."""
    padded = np.zeros((layer.blocks * layer.pairs * 2, layer.inputs), np.int8)
    padded[: layer.outputs] = weights
    planes = byte_planes(padded).reshape(layer.blocks, layer.pairs, layer.inputs // 4, 2)
    return np.concatenate([np.zeros(_LEAD, np.int32), planes.transpose(0, 2, 1, 3).ravel()])


def pack_parameters(layer: Dense, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What the epilogue needs, by pair; flat int32, behind the trip count of the inner loop."""
    factors = layer.epilogue.parameters(multiplier, shift)
    form = "late" if layer.late_bias else "planes"
    words = pair_parameters(bias, factors[:0] if layer.one_scale else factors, form, layer.epilogue.gain)
    padded = np.zeros((layer.blocks * layer.pairs, words.shape[1]), np.int32)
    padded[: len(words)] = words
    head = np.array([layer.inputs // 4 // layer.unroll, 0], np.int32)
    return np.concatenate([head, factors[:, 0] if layer.one_scale else factors[:0, 0], padded.ravel()]).astype(np.int32)


def dense(layer: Dense) -> tirx.PrimFunc:
    """The function of (input, weights, parameters, output), all flat."""
    K4, CO, TN, UK, NB = layer.inputs // 4, layer.outputs, layer.pairs, layer.unroll, layer.blocks
    ep = layer.epilogue
    # Where the factors stand: at the head, or with the channels.
    SHARED = layer.one_scale
    HEAD = 2 + (ep.words if SHARED else 0)
    QW = 2 + (0 if SHARED else 2 * ep.words)
    LEAD = _LEAD
    UNPACK, LATE = layer.unpacked, layer.late_bias
    PARTIAL = CO != NB * TN * 2

    ROUNDS = K4 // UK
    ROUTINE = layer.routine
    name = dense_routine(SHARED, ep, UK, ROUNDS) if ROUTINE else ""
    WN = NB * (K4 * 4 + 2 * QW) if ROUTINE else LEAD + NB * K4 * TN * 2
    QN = 3 + (ep.words if SHARED else 0) if ROUTINE else HEAD + NB * TN * QW

    def multiply(unpacked, w, q, out):
        """The call of the routine."""
        places = (T.address_of(buffer[place]) for buffer, place in ((unpacked, LEAD), (w, 0), (out, 0), (q, 0)))
        return T.evaluate(T.call_extern("int32", name, *places))

    def trips(q):
        """Rounds of the inner loop: from memory, so that LLVM does not know them, unless there is but one."""
        return 1 if ROUNDS == 1 else q[0]

    def at(n, k):
        return LEAD + k * 2 + (hidden_zero(n) if ROUNDS == 1 else 0)

    def finish(q, n, raw, low, which):
        places = [2 + i if SHARED else HEAD + n * QW + 2 + 2 * i + which for i in range(ep.words)]
        params = [q[place] for place in places]
        if which:
            return ep.apply(second_plane(low, ep.gain), params)
        first = first_plane(raw, low, ep.gain)
        return ep.apply(qadd(first, q[HEAD + n * QW]) if LATE else first, params)

    @T.prim_func(s_tir=True)
    def fully_connected(
        x: T.Buffer((K4 * 4,), "int8"),
        w: T.Buffer((WN,), "int32"),
        q: T.Buffer((QN,), "int32"),
        out: T.Buffer((CO,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        unpacked = T.alloc_buffer((LEAD + (K4 * 2 if UNPACK else 0),), "int32")
        acc = T.alloc_buffer((2 * TN,), "int32")
        result = T.alloc_buffer((2 * TN,), "int8")
        if UNPACK:
            for k in range(K4):
                unpacked[LEAD + k * 2] = even_bytes(load_word(x, k * 4))
                unpacked[LEAD + k * 2 + 1] = odd_bytes(load_word(x, k * 4))
        if ROUTINE:
            multiply(unpacked, w, q, out)
        else:
            for n in range(NB):
                for t in T.unroll(TN):
                    acc[t * 2] = q[HEAD + (n * TN + t) * QW + (1 if LATE else 0)]
                    acc[t * 2 + 1] = q[HEAD + (n * TN + t) * QW + 1]
                for k0 in range(trips(q)):
                    for ku in T.unroll(UK):
                        for t in T.unroll(TN):
                            if UNPACK:
                                acc[t * 2] = smlad(
                                    unpacked[at(n, k0 * UK + ku) + 1],
                                    w[LEAD + ((n * K4 + k0 * UK + ku) * TN + t) * 2 + 1],
                                    smlad(
                                        unpacked[at(n, k0 * UK + ku)],
                                        w[LEAD + ((n * K4 + k0 * UK + ku) * TN + t) * 2],
                                        acc[t * 2],
                                    ),
                                )
                                acc[t * 2 + 1] = smlad(
                                    unpacked[at(n, k0 * UK + ku) + 1],
                                    even_bytes(w[LEAD + ((n * K4 + k0 * UK + ku) * TN + t) * 2 + 1]),
                                    smlad(
                                        unpacked[at(n, k0 * UK + ku)],
                                        even_bytes(w[LEAD + ((n * K4 + k0 * UK + ku) * TN + t) * 2]),
                                        acc[t * 2 + 1],
                                    ),
                                )
                            else:
                                acc[t * 2] = smlad(
                                    odd_bytes(load_word(x, (k0 * UK + ku) * 4)),
                                    w[LEAD + ((n * K4 + k0 * UK + ku) * TN + t) * 2 + 1],
                                    smlad(
                                        even_bytes(load_word(x, (k0 * UK + ku) * 4)),
                                        w[LEAD + ((n * K4 + k0 * UK + ku) * TN + t) * 2],
                                        acc[t * 2],
                                    ),
                                )
                                acc[t * 2 + 1] = smlad(
                                    odd_bytes(load_word(x, (k0 * UK + ku) * 4)),
                                    even_bytes(w[LEAD + ((n * K4 + k0 * UK + ku) * TN + t) * 2 + 1]),
                                    smlad(
                                        even_bytes(load_word(x, (k0 * UK + ku) * 4)),
                                        even_bytes(w[LEAD + ((n * K4 + k0 * UK + ku) * TN + t) * 2]),
                                        acc[t * 2 + 1],
                                    ),
                                )
                for t in T.unroll(TN):
                    result[t * 2] = finish(q, n * TN + t, acc[t * 2], acc[t * 2 + 1], 0)
                    result[t * 2 + 1] = finish(q, n * TN + t, acc[t * 2], acc[t * 2 + 1], 1)
                for t in T.unroll(2 * TN):
                    if PARTIAL:
                        if n * 2 * TN + t < CO:
                            out[n * 2 * TN + t] = result[t]
                    else:
                        out[n * 2 * TN + t] = result[t]

    # Scalar accesses only, so a small workspace may stay on the stack.
    workspaces = {"unpacked": layer.inputs * 2 + 4 * LEAD} if UNPACK and layer.inputs * 2 + 4 * LEAD > _STACK_BYTES else {"": 0}
    return fully_connected.with_attr("tvmcompress.workspaces", workspaces)
