"""Convolutions and fully connected layers for cores with the DSP extension whose weights are two of every four.

Of four successive inputs there are six pairs. For each output position all pairs of halfwords are written to a table once;
a weight group of any output channel then picks its pair by a number that is stored with it, and one SMLAD does the work of
four multiply-accumulates. Eight groups are a unit of five words: the eight numbers, four bits each, and the values of two
successive groups of a channel to a word. The numbers of the second group go on counting where the first one's end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.script import tirx as T

from ....passes._tvm import Constant, relax, tvm
from ....passes.graph.interpreter import evaluate_call
from ....passes.graph.module_params import static_shape
from ....passes.integer.registry import is_integer_op
from ....passes.numbers.sparsity_2_4 import GROUP, places_2_4
from ...aot.rewrite import rewrite_main
from ...kernels.use_kernels import is_covered
from ...kernels.vectors import i32
from .panel import Convolution
from .words import even_bytes, load_word, odd_bytes, pack_bottoms, pack_tops, smlad

# mypy: ignore-errors

_STACK_BYTES = 264
_PAIRS = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])
_UNIT = 5
"""Words of a unit."""


@dataclass(frozen=True)
class SparseConvolution:
    """One layer: packed constants and the function.

    Attributes:
        conv: The shape; the input channels come in fours. A fully connected layer is one position.
        channels: Output channels made at a time, 4 or 2.
        pixels: Positions made at a time.
    """

    conv: Convolution
    channels: int = 4
    pixels: int = 1

    @property
    def groups(self) -> int:
        """Groups of four inputs that a channel reads."""
        c = self.conv
        return c.kernel[0] * c.kernel[1] * c.channels // GROUP

    @property
    def span(self) -> int:
        """Groups of a channel in a unit."""
        return 8 // self.channels

    @property
    def units(self) -> int:
        """Units that cover all groups of a few channels."""
        return -(-self.groups // self.span)

    @property
    def blocks(self) -> int:
        """Rounds that cover all output channels."""
        return -(-self.conv.out_channels // self.channels)

    @property
    def table_bytes(self) -> int:
        """Bytes of the table of pairs."""
        return 4 * len(_PAIRS) * self.units * self.span * self.pixels

    def weights(self, weights: np.ndarray) -> np.ndarray:
        """Pack (O, K) int8 weights that have the pattern; flat int32."""
        filled = np.zeros((self.blocks * self.channels, self.units * self.span, GROUP), np.int8)
        filled[: len(weights), : self.groups] = weights.reshape(len(weights), self.groups, GROUP)
        places = places_2_4(filled)
        values = np.take_along_axis(filled.reshape(-1, GROUP), places, axis=1)
        number = (places[:, None] == _PAIRS[None]).all(2).argmax(1).reshape(-1, 2)
        number[:, 1] += len(_PAIRS)
        # Blocks, units, pairs of groups, channels, the two groups.
        order = (self.blocks, self.channels, self.units, self.span // 2)
        number = number.reshape(*order, 2).transpose(0, 2, 3, 1, 4).reshape(-1, 8).astype(np.uint32)
        head = (number << (4 * np.arange(8, dtype=np.uint32))).sum(1, dtype=np.uint32).view(np.int32)
        # SXTB16 gives bytes 0 and 2, then 1 and 3.
        words = values.reshape(*order, 2, 2).transpose(0, 2, 3, 1, 5, 4).reshape(-1, 16)
        words = np.ascontiguousarray(words).view(np.int32)
        return np.concatenate([head[:, None], words], axis=1).ravel()

    def parameters(self, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Pack what the epilogue needs by channel, flat int32, behind the trip count of the inner loop."""
        rows = np.concatenate([bias[None], self.conv.epilogue.parameters(multiplier, shift)])
        rows = np.pad(rows, ((0, 0), (0, self.blocks * self.channels - rows.shape[1])))
        return np.concatenate([np.array([self.units, 0]), rows.T.ravel()]).astype(np.int32)

    def function(self) -> tirx.PrimFunc:
        """The function of (input, weights, parameters, output), all flat."""
        return _build(self)


def plan_sparse(conv: Convolution) -> SparseConvolution:
    """The choices for a layer: as many sums as the free registers hold."""
    positions = conv.out_height * conv.out_width
    return SparseConvolution(conv) if positions == 1 else SparseConvolution(conv, channels=2, pixels=min(3, positions))


def _build(k: SparseConvolution) -> tirx.PrimFunc:
    c, ep = k.conv, k.conv.epilogue
    H, W, C, OW, CO = c.height, c.width, c.channels, c.out_width, c.out_channels
    (KH, KW), (SH, SW) = c.kernel, c.strides
    C4, TN, PX, UNITS, NB = C // GROUP, k.channels, k.pixels, k.units, k.blocks
    M = c.out_height * c.out_width
    PANELS = -(-M // PX)
    QW = 1 + ep.words
    PAIRS = len(_PAIRS)
    HALVES = k.span // 2
    SIZE = PAIRS * UNITS * k.span * PX
    ZP = c.input_zero_point & 0xFFFF
    BORDER = i32(ZP | ZP << 16)
    PADDED = c.top or c.left or (c.out_height - 1) * SH + KH > H or (OW - 1) * SW + KW > W

    def trips(q):
        """Units of a few channels: from memory, so that LLVM does not know them, unless there is but one."""
        return 1 if UNITS == 1 else q[0]

    def position(p, px):
        return T.min(p * PX + px, M - 1) if M % PX else p * PX + px

    def row(p, px, ky):
        return tirx.floordiv(position(p, px), OW) * SH + ky - c.top

    def column(p, px, kx):
        return tirx.floormod(position(p, px), OW) * SW + kx - c.left

    def inside(p, px, ky, kx):
        """Whether an element of the window is no padding."""
        if not PADDED:
            return tirx.const(True, "bool")
        y, x = row(p, px, ky), column(p, px, kx)
        return T.And(T.And(y >= 0, y < H), T.And(x >= 0, x < W))

    def inputs(x, p, px, ky, kx, i):
        return load_word(x, (row(p, px, ky) * W + column(p, px, kx)) * C + i * GROUP)

    def pair(word, number):
        """One of the six pairs of halfwords of four bytes."""
        even, odd = even_bytes(word), odd_bytes(word)
        low, high = i32(0xFFFF), i32(0xFFFF0000)
        return (
            pack_bottoms(even, odd),
            even,
            (even & low) | (odd & high),
            (odd & low) | (even & high),
            odd,
            pack_tops(even, odd),
        )[number]

    def place(group, number, px):
        """Where a pair stands in the table."""
        return (group * PAIRS + number) * PX + px

    def unit(n, u):
        """Where a unit stands."""
        return (n * UNITS + u) * _UNIT

    def picked(w, n, u, j):
        """The number of pair `j` of a unit."""
        return (w[unit(n, u)] >> (4 * j)) & i32(15)

    def at(w, n, u, half, t, px, which):
        """Where the pair that one of two groups of a channel picks stands."""
        return place(u * k.span + 2 * half, picked(w, n, u, (half * TN + t) * 2 + which), px)

    def values(w, n, u, half, t, which):
        """The two values of one of two groups of a channel."""
        word = w[unit(n, u) + 1 + half * TN + t]
        return odd_bytes(word) if which else even_bytes(word)

    def finish(q, channel, acc):
        """The output of a channel."""
        raised = acc if ep.gain == 1 else acc << i32(1)
        return ep.apply(raised, [q[2 + channel * QW + 1 + i] for i in range(ep.words)])

    @T.prim_func(s_tir=True)
    def sparse(
        x: T.Buffer((H * W * C,), "int8"),
        w: T.Buffer((NB * UNITS * _UNIT,), "int32"),
        q: T.Buffer((2 + NB * TN * QW,), "int32"),
        out: T.Buffer((M * CO,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        table = T.alloc_buffer((SIZE,), "int32")
        acc = T.alloc_buffer((TN * PX,), "int32")
        result = T.alloc_buffer((TN * PX,), "int8")
        for p in range(PANELS):
            for px in range(PX):
                for ky in range(KH):
                    for kx in range(KW):
                        if inside(p, px, ky, kx):
                            for i in range(C4):
                                table[place((ky * KW + kx) * C4 + i, 0, px)] = pair(inputs(x, p, px, ky, kx, i), 0)
                                table[place((ky * KW + kx) * C4 + i, 1, px)] = pair(inputs(x, p, px, ky, kx, i), 1)
                                table[place((ky * KW + kx) * C4 + i, 2, px)] = pair(inputs(x, p, px, ky, kx, i), 2)
                                table[place((ky * KW + kx) * C4 + i, 3, px)] = pair(inputs(x, p, px, ky, kx, i), 3)
                                table[place((ky * KW + kx) * C4 + i, 4, px)] = pair(inputs(x, p, px, ky, kx, i), 4)
                                table[place((ky * KW + kx) * C4 + i, 5, px)] = pair(inputs(x, p, px, ky, kx, i), 5)
                        else:
                            for i in range(C4 * PAIRS):
                                table[place((ky * KW + kx) * C4, i, px)] = BORDER
            for n in range(NB):
                for j in T.unroll(TN * PX):
                    acc[j] = q[2 + (n * TN + j // PX) * QW]
                for u in range(trips(q)):
                    for half in T.unroll(HALVES):
                        for t in T.unroll(TN):
                            for px in T.unroll(PX):
                                acc[t * PX + px] = smlad(
                                    table[at(w, n, u, half, t, px, 1)],
                                    values(w, n, u, half, t, 1),
                                    smlad(
                                        table[at(w, n, u, half, t, px, 0)],
                                        values(w, n, u, half, t, 0),
                                        acc[t * PX + px],
                                    ),
                                )
                for j in T.unroll(TN * PX):
                    result[j] = finish(q, n * TN + j // PX, acc[j])
                for j in T.unroll(TN * PX):
                    if T.And(n * TN + j // PX < CO, p * PX + j % PX < M):
                        out[(p * PX + j % PX) * CO + n * TN + j // PX] = result[j]

    # Scalar accesses only, so a small table may stay on the stack.
    return sparse.with_attr("tvmcompress.workspaces", {"table": k.table_bytes} if k.table_bytes > _STACK_BYTES else {"": 0})


def decode_sparse(mod: tvm.IRModule) -> tuple[tvm.IRModule, list[Constant]]:
    """The module with plain constants in the place of `unpack_2of4` where a kernel of this core may take the layer.

    Args:
        mod: Parameters are bound.

    Returns:
        The module, and the constants, which kernels store as two of every four again.
    """
    rewriter = _Decoder(mod)
    return rewrite_main(mod, rewriter), list(rewriter.made.values())


@mutator
class _Decoder(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.made: dict[relax.Var, Constant] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        stored = self.lookup_binding(call.args[1]) if _may_have_kernel(call) else None
        if stored is None or not is_integer_op(stored, "unpack_2of4"):
            return call
        var = call.args[1]
        if var not in self.made:
            self.made[var] = relax.const(evaluate_call(stored, [arg.value.numpy() for arg in stored.args]))
        return relax.Call(call.op, [call.args[0], self.made[var], *call.args[2:]], call.attrs, call.ty_args)


def _may_have_kernel(call: relax.Call) -> bool:
    """Whether a call is a layer on computed weights that this core has a kernel for, but for its numbers."""
    if len(call.args) < 2 or not isinstance(call.args[1], relax.Var):
        return False
    if is_integer_op(call, "qdense"):
        return is_covered(call) and int(np.prod(static_shape(call.args[0])[:-1])) == 1
    if not is_integer_op(call, "qconv2d") or int(call.attrs.groups) != 1:
        return False
    return is_covered(call) and [int(d) for d in call.attrs.dilation] == [1, 1]
