"""Dot products of integers as x86 instructions, for `Schedule.tensorize`.

| name | instruction | needs | step |
|---|---|---|---|
| `x86.pmaddwd.4x2` | pmaddwd, paddd | SSE2, which every x86-64 has | int32[4] += sum over 2 of int16 * int16 |
| `x86.pmaddubsw.4x4` | pmaddubsw, pmaddwd, paddd | SSSE3, small weights | int32[4] += sum over 4 of uint8 * int8 |
| `x86.vpmaddwd.8x2` | vpmaddwd, vpaddd | AVX2 | int32[8] += sum over 2 of int16 * int16 |
| `x86.vpmaddwd.16x2` | the same, 512 bits | AVX-512BW | int32[16] += sum over 2 of int16 * int16 |
| `x86.vpdpbusd.8x4` | vpdpbusd | AVX-512VNNI and VL, or AVX-VNNI | int32[8] += sum over 4 of uint8 * int8 |
| `x86.vpdpbusd.16x4` | the same, 512 bits | AVX-512VNNI | int32[16] += sum over 4 of uint8 * int8 |
| `x86.vpdpwssd.8x2` | vpdpwssd | as vpdpbusd | int32[8] += sum over 2 of int16 * int16 |
| `x86.vpdpwssd.16x2` | the same, 512 bits | AVX-512VNNI | int32[16] += sum over 2 of int16 * int16 |
| `x86.vpmaddubsw.8x4` | vpmaddubsw, vpmaddwd, vpaddd | AVX2, small weights | int32[8] += sum over 4 of uint8 * int8 |
| `x86.vpmaddubsw.16x4` | the same, 512 bits | AVX-512BW, small weights | int32[16] += sum over 4 of uint8 * int8 |

All of them are exact: two products of 8-bit numbers widened to int16 fit into int32, and vpdpbusd and vpdpwssd do not saturate.
vpmaddubsw, the 8-bit product of plain AVX2, saturates at int16; it is used where no two weights that it adds up can
reach that (`fits_int16`), as weights of seven bits cannot.

Each comes in two forms. *broadcast*: the same `group` activations for all lanes, as in a convolution. *lanes*: every
lane its own activations, packed into the bytes or halves of an int32, as in a depthwise convolution.
"""

# TVMScript's annotations are calls, which are no types to mypy.
# mypy: disable-error-code="valid-type"

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from ....passes._tvm import tirx, tvm

DOT_ANNOTATION = "x86.dot"
"""Annotation of a block: the tensor intrinsic that its schedule is to use."""


BLOCK_ANNOTATION = "x86.block"
"""Annotation of a block: output channels whose weights lie together; vectors may not reach beyond them."""

LANES_ANNOTATION = "x86.lanes"
"""Annotation of a block of floats, and attribute of a function: how many fit into a register, where they are not eight."""

HIGH_ANNOTATION = "x86.high"
"""Annotation of a block that takes upper halves of products of 64 bits: the intrinsic that its schedule is to use. Vectors of
64-bit numbers would take the lanes apart and put them together again; in the intrinsics even and odd ones are multiplied where
they are, as LLVM does by itself with 256 bits."""

HIGH_LANES = (8, 16)
"""Lanes of these intrinsics."""

OPAQUE = 8
"""Relax's pattern of an operator that is fused with no other."""

LANES_SUFFIX = ".lanes"


@dataclass(frozen=True)
class Dot:
    """A dot product instruction.

    Attributes:
        instruction: The instruction's name.
        lanes: int32 results.
        group: Products that go into each.
        activation: dtype of the activations.
        weight: dtype of the weights.
    """

    instruction: str
    lanes: int
    group: int
    activation: str
    weight: str

    @property
    def broadcast(self) -> str:
        """Name of the intrinsic with the same activations for all lanes."""
        return f"x86.{self.instruction}.{self.lanes}x{self.group}"

    @property
    def packed(self) -> str:
        """Name of the intrinsic with activations of its own for every lane."""
        return self.broadcast + LANES_SUFFIX

    @property
    def offset(self) -> int:
        """What is added to an int8 activation to make it an `activation`."""
        return 128 if self.activation == "uint8" else 0


MADD4 = Dot("pmaddwd", 4, 2, "int16", "int16")
MADDUBS4 = Dot("pmaddubsw", 4, 4, "uint8", "int8")
MADD8 = Dot("vpmaddwd", 8, 2, "int16", "int16")
MADD16 = Dot("vpmaddwd", 16, 2, "int16", "int16")
VNNI8 = Dot("vpdpbusd", 8, 4, "uint8", "int8")
VNNI16 = Dot("vpdpbusd", 16, 4, "uint8", "int8")
WORDS8 = Dot("vpdpwssd", 8, 2, "int16", "int16")
WORDS16 = Dot("vpdpwssd", 16, 2, "int16", "int16")
MADDUBS8 = Dot("vpmaddubsw", 8, 4, "uint8", "int8")
MADDUBS16 = Dot("vpmaddubsw", 16, 4, "uint8", "int8")
DOTS = (MADD4, MADDUBS4, MADD8, MADD16, VNNI8, VNNI16, MADDUBS8, MADDUBS16, WORDS8, WORDS16)


def best_dot(features: frozenset[str], channels: int) -> Dot:
    """The widest dot product that a CPU has and that does not waste lanes on `channels` output channels."""
    wide = channels % 16 == 0 or (channels > 32 and channels % 8 != 0)
    if "avx512vnni" in features and "avx512vl" in features:
        return VNNI16 if wide else VNNI8
    if "avxvnni" in features:
        return VNNI8
    if "avx512bw" in features:
        return MADD16 if wide else MADD8
    return MADD8 if "avx2" in features else MADD4


def bytewise(dot: Dot, features: frozenset[str]) -> Dot | None:
    """The product of bytes that takes the place of one of halves where the weights are small enough."""
    if dot == MADD4 and "ssse3" not in features:
        return None
    return {MADD4: MADDUBS4, MADD8: MADDUBS8, MADD16: MADDUBS16}.get(dot)


def of_words(features: frozenset[str], channels: int) -> Dot:
    """The widest product of 16-bit numbers, as `best_dot` says for those of bytes."""
    dot = best_dot(features, channels)
    return {VNNI8: WORDS8, VNNI16: WORDS16}.get(dot, dot)


def fits_int16(packed: np.ndarray) -> bool:
    """Whether vpmaddubsw is exact with these weights: int8, the last axis a group of four, added up in twos."""
    pairs = packed.reshape(-1, 2).astype(np.int64) * 255
    low, high = np.minimum(pairs, 0).sum(1).min(initial=0), np.maximum(pairs, 0).sum(1).max(initial=0)
    return bool(low >= -(1 << 15) and high < 1 << 15)


def _lookup(name: str) -> object:
    return T.llvm_lookup_intrinsic_id(name)


def _accumulate(dot: Dot, acc: object, activation: object, weight: object) -> object:
    """acc + the dot products, one expression: in TVM 0.27 an assignment inside an intrinsic allocates memory."""
    result = f"int32x{dot.lanes}"
    if dot.instruction.startswith("vpdp"):
        name = f"llvm.x86.avx512.{dot.instruction}.{32 * dot.lanes}"
        return T.call_llvm_pure_intrin(_lookup(name), acc, activation, weight, dtype=result)
    of_bytes, of_halves = _MULTIPLY_ADD[dot.lanes]
    if dot.instruction.endswith("pmaddubsw"):
        halves, count = f"int16x{2 * dot.lanes}", 2 * dot.lanes
        sums = T.call_llvm_pure_intrin(_lookup(of_bytes), activation, weight, dtype=halves)
        ones = T.broadcast(T.int16(1), count)
        return acc + T.call_llvm_pure_intrin(_lookup(of_halves), sums, ones, dtype=result)
    return acc + T.call_llvm_pure_intrin(_lookup(of_halves), activation, weight, dtype=result)


_MULTIPLY_ADD = {
    4: ("llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.sse2.pmadd.wd"),
    8: ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
    16: ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
}
"""LLVM's names of the instructions that multiply and add up bytes and halves, by lanes."""


def _operand(dot: Dot) -> str:
    """dtype of the instruction's operands."""
    count = dot.lanes * dot.group
    return f"uint8x{count}" if dot.activation == "uint8" else f"int16x{count}"


def _register(dot: Dot) -> None:
    lanes, group, activation, weight = dot.lanes, dot.group, dot.activation, dot.weight
    part, whole, operand = f"{activation}x{group}", f"{weight}x{lanes * group}", _operand(dot)
    vector = f"int32x{lanes}"

    @T.prim_func(s_tir=True)
    def broadcast_definition(
        A: T.Buffer((group,), activation, offset_factor=1),
        B: T.Buffer((lanes, group), weight, offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:group], B[0:lanes, 0:group])
            T.writes(C[0:lanes])
            for i in T.serial(0, lanes):
                for k in T.serial(0, group):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vi, vk], "int32")

    @T.prim_func(s_tir=True)
    def broadcast_instruction(
        A: T.Buffer((group,), activation, offset_factor=1),
        B: T.Buffer((lanes, group), weight, offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:group], B[0:lanes, 0:group])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = _accumulate(
                dot,
                C.vload([0], dtype=vector),
                T.reinterpret(T.broadcast(T.reinterpret(A.vload([0], part), dtype="int32"), lanes), dtype=operand),
                T.reinterpret(B.vload([0, 0], dtype=whole), dtype=operand),
            )

    @T.prim_func(s_tir=True)
    def lanes_definition(
        A: T.Buffer((lanes,), "int32", offset_factor=1),
        B: T.Buffer((lanes, group), weight, offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:lanes], B[0:lanes, 0:group])
            T.writes(C[0:lanes])
            for i in T.serial(0, lanes):
                with T.sblock("update"):
                    vi = T.axis.spatial(lanes, i)
                    C[vi] = C[vi] + packed_product(A[vi], [B[vi, k] for k in range(group)], dot)

    @T.prim_func(s_tir=True)
    def lanes_instruction(
        A: T.Buffer((lanes,), "int32", offset_factor=1),
        B: T.Buffer((lanes, group), weight, offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:lanes], B[0:lanes, 0:group])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = _accumulate(
                dot,
                C.vload([0], dtype=vector),
                T.reinterpret(A.vload([0], vector), dtype=operand),
                T.reinterpret(B.vload([0, 0], dtype=whole), dtype=operand),
            )

    TensorIntrin.register(dot.broadcast, broadcast_definition, broadcast_instruction)
    TensorIntrin.register(dot.packed, lanes_definition, lanes_instruction)


def packed_product(word: tvm.ir.Expr, weights: Sequence[tvm.ir.Expr], dot: Dot) -> tvm.ir.Expr:
    """The products of the bytes or halves of an int32 with weights, summed: what one lane of the instruction does."""
    bits = 32 // dot.group
    total = None
    for index, weight in enumerate(weights):
        # Shifting left first extends the sign of a half or clears what is above a byte.
        high = word if index == dot.group - 1 else tirx.shift_left(word, _int32(32 - bits * (index + 1)))
        value = tirx.shift_right(high, _int32(32 - bits))
        if dot.group == 4:
            value = tirx.bitwise_and(value, _int32(255))
        product = value * weight.astype("int32")
        total = product if total is None else total + product
    return total


def _int32(value: int) -> tvm.ir.Expr:
    return tirx.const(value, "int32")


# TVMScript reads the sources of all frames of the call stack for every function: seconds where the stack is deep, as it
# is while modules import each other. A thread of its own has a short one.
with ThreadPoolExecutor(1) as _executor:
    list(_executor.map(_register, DOTS))
