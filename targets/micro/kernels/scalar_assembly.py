"""Inner loops for cores without the DSP extension, line by line, as GNU's assembler takes them.

`lay` lays the values of a receptive field into a panel, where those of some pixels stand side by side as words. `block`
multiplies a panel with the weights of all channels, one or a few channels at a time, and makes outputs of the sums (see
`scalar_epilogue`). `copy` copies bytes. Registers are chosen by hand: loads of several words (LDM) want them in order, and
Armv6-M multiplies in eight of them, while its sums fit into the others.

*Long* products hold two pixels in a word, x0 + 2**23 x1: SMLAL adds both products with a weight to a sum of 64 bits, which is
taken apart at the end. This is exact while the sum of the first one stays below 2**22 (`long_sums_fit`). It halves the
instructions; a Cortex-M3 takes four to seven cycles for one, where it takes two for a MLA, so that what is saved in time are
loads and loops.

Instructions are those of the Arm v7-M Architecture Reference Manual (DDI 0403), chapter A7, and of the v6-M one (DDI 0419).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .scalar_frame import END, LEAST, MOST, OUT, PANEL, PLACES, STREAM_END, ZERO
from .scalar_low import low_add, low_block, low_taps

DISTANCE = 23
"""Bits from a pixel's sum to the next one's."""
BLOCKS = {
    "long": ((2, 1), (4, 1), (6, 1), (4, 2), (2, 4)),
    "word": ((2, 1), (4, 1), (5, 1), (2, 2), (3, 2), (4, 2), (1, 1), (1, 2), (1, 4), (1, 8)),
    "low": ((1, 1), (2, 1), (3, 1), (4, 1), (1, 4)),
}
"""Pixels and channels of a block, by how they are multiplied."""
_SAVED = "{r4, r5, r6, r7, r8, r9, r10, r11, lr}"
_RESTORED = "{r4, r5, r6, r7, r8, r9, r10, r11, pc}"


def long_sums_fit(weights: np.ndarray) -> bool:
    """Whether sums of (O, K) int8 weights and any int8 inputs, without a bias, can be taken apart."""
    wide = weights.astype(np.int64)
    greatest = np.maximum(-np.minimum(127 * wide, -128 * wide).sum(1), np.maximum(127 * wide, -128 * wide).sum(1))
    return bool(greatest.max(initial=0) < 1 << (DISTANCE - 1))


def lay(kind: str, words: int) -> Iterator[str]:
    """The routine that lays values into a panel: a function of (place, values, bytes to the second pixel's, how many).

    Args:
        kind: As of `block`.
        words: Of a panel for each value.
    """
    step = 4 * words
    low = kind == "low"
    yield "push {r4, lr}"
    if low:
        yield "movs r2, #0"
    yield "1:"
    # Those that do not fill a round of four come first.
    yield "lsls r4, r3, #30"
    yield "beq 2f"
    yield from _value(kind, 0, step)
    if low:
        yield f"adds r0, r0, #{step}"
    yield "subs r3, r3, #1"
    yield "b 1b"
    yield "2:"
    yield "cmp r3, #0"
    yield "beq 4f"
    yield "3:"
    for i in range(4):
        yield from _value(kind, i, step)
    if low:
        yield f"adds r0, r0, #{4 * step}"
    yield "subs r3, r3, #4"
    yield "bne 3b"
    yield "4:"
    yield "pop {r4, pc}"


def _value(kind: str, index: int, step: int) -> Iterator[str]:
    if kind == "low":
        yield "ldrsb r4, [r1, r2]"
        yield f"str r4, [r0, #{index * step}]"
        yield "adds r2, r2, #1"
        return
    if kind == "long":
        yield "ldrsb r12, [r1, r2]"
    yield "ldrsb r4, [r1], #1"
    if kind == "long":
        yield f"add r4, r4, r12, lsl #{DISTANCE}"
    yield f"str r4, [r0], #{step}"


def copy(low: bool) -> Iterator[str]:
    """The routine that copies bytes: a function of (to, from, how many), by words where addresses allow it."""
    yield "push {r4, lr}"
    if low:
        yield "movs r3, r0"
        yield "orrs r3, r3, r1"
        yield "lsls r3, r3, #30"
        yield "bne 3f"
    yield "subs r2, r2, #8"
    yield "blo 2f"
    yield "1:"
    yield "ldm r1!, {r3, r4}" if low else "ldr r3, [r1], #4"
    yield "stm r0!, {r3, r4}" if low else "ldr r4, [r1], #4"
    if not low:
        yield "str r3, [r0], #4"
        yield "str r4, [r0], #4"
    yield "subs r2, r2, #8"
    yield "bhs 1b"
    yield "2:"
    yield "adds r2, r2, #8"
    yield "3:"
    yield "cmp r2, #0"
    yield "beq 5f"
    yield "4:"
    yield "ldrb r3, [r1]"
    yield "strb r3, [r0]"
    yield "adds r0, r0, #1"
    yield "adds r1, r1, #1"
    yield "subs r2, r2, #1"
    yield "bne 4b"
    yield "5:"
    yield "pop {r4, pc}"


def block(kind: str, pixels: int, channels: int, finish: str, unroll: int) -> Iterator[str]:
    """The routine that multiplies a panel with all channels: a function of (panel, stream, outputs, counts).

    Of each block of channels the stream has the weights, value by value, and then for each channel twice the bias, the
    multiplier and the shift to the right. Counts: where the output of each pixel lies, in bytes from the first one's; bytes
    of the panel, bytes of the stream, twice the zero point and one, the least and the greatest output.

    Args:
        kind: "long"; "word" for one product at a time; "low" for Armv6-M.
        pixels, channels: One of `BLOCKS`.
        finish: How sums become outputs: "cut", "signed" or "single", see `scalar_epilogue`, with "_within" for limits.
        unroll: Values of a pixel in one round; with "low" a multiple of 4.
    """
    if kind == "low":
        return low_block(pixels, channels, finish, unroll)
    return _block(kind, pixels, channels, finish, unroll)


def _block(kind: str, pixels: int, channels: int, finish: str, unroll: int) -> Iterator[str]:
    per_channel = pixels
    sums = [f"r{4 + i}" for i in range(pixels * channels)]
    yield from _frame(pixels)
    yield "1:"
    yield f"ldr r0, [sp, #{PANEL}]"
    yield from (_long_sums if kind == "long" else _word_sums)(sums, pixels, channels, unroll)
    later = sums[per_channel:]
    if later:
        yield f"push {{{', '.join(later)}}}"
    for c in range(channels):
        pushed = 4 * (len(later) - c * per_channel)
        if c:
            yield f"pop {{{', '.join(sums[:per_channel])}}}"
        yield from _outputs(kind, sums[:per_channel], finish, pushed)
    yield f"ldr r2, [sp, #{STREAM_END}]"
    yield "cmp r1, r2"
    yield "bne 1b"
    yield f"add sp, sp, #{PLACES + 4 * pixels}"
    yield f"pop {_RESTORED}"


def _frame(pixels: int) -> Iterator[str]:
    offsets = ", ".join(f"r{4 + i}" for i in range(pixels))
    yield f"push {_SAVED}"
    yield f"ldm r3!, {{{offsets}}}"
    yield f"push {{{offsets}}}"
    yield "ldm r3, {r4, r5, r6, r7, r8}"
    yield "add r4, r0, r4"
    yield "add r5, r1, r5"
    yield "push {r0, r2, r4, r5, r6, r7, r8}"


def _long_sums(sums: list[str], pixels: int, channels: int, unroll: int) -> Iterator[str]:
    pairs = pixels // 2
    values = ["r10", "r11", "r12"] if pairs == 3 else ["r2", "r12"][:pairs]
    yield f"ldr r3, [sp, #{END}]"
    for i, register in enumerate(sums):
        yield f"mov {register}, #{0 if i % 2 else 1 << (DISTANCE - 1)}"
    yield "2:"
    for _ in range(unroll):
        yield from _load(values)
        for c in range(channels):
            yield "ldrsb lr, [r1], #1"
            for j in range(pairs):
                low, high = sums[2 * (c * pairs + j) :][:2]
                yield f"smlal {low}, {high}, {values[j]}, lr"
    yield "cmp r0, r3"
    yield "bne 2b"


def _word_sums(sums: list[str], pixels: int, channels: int, unroll: int) -> Iterator[str]:
    free = ["r2", *(f"r{n}" for n in range(4 + len(sums), 13))]
    # Those that do not fit at once come by pairs.
    groups = [free[:pixels]] if len(free) >= pixels else [["r2", "r12"]] * (pixels // 2)
    weights = ["lr", "r3"][:channels]
    for register in sums:
        yield f"mov {register}, #0"
    yield "2:"
    for _ in range(unroll):
        if pixels == 1:
            yield from _load(["r2"])
            for total in sums:
                yield "ldrsb lr, [r1], #1"
                yield f"mla {total}, r2, lr, {total}"
            continue
        for register in weights:
            yield f"ldrsb {register}, [r1], #1"
        pixel = 0
        for values in groups:
            yield from _load(values)
            for value in values:
                for c, weight in enumerate(weights):
                    total = sums[c * pixels + pixel]
                    yield f"mla {total}, {value}, {weight}, {total}"
                pixel += 1
    yield f"ldr r2, [sp, #{END}]"
    yield "cmp r0, r2"
    yield "bne 2b"


def _load(registers: list[str]) -> Iterator[str]:
    """Words of the panel; pairs need no order."""
    if len(registers) == 1:
        yield f"ldr {registers[0]}, [r0], #4"
    elif len(registers) == 2:
        yield f"ldrd {registers[0]}, {registers[1]}, [r0], #8"
    else:
        yield f"ldm r0!, {{{', '.join(registers)}}}"


def _outputs(kind: str, sums: list[str], finish: str, pushed: int) -> Iterator[str]:
    """Of one channel, whose words are next in the stream; so many bytes were pushed meanwhile."""
    for register in ("r10", "r11", "r12"):
        yield f"ldr {register}, [r1], #4"
    if kind == "long":
        yield f"sub r2, r10, #{1 << DISTANCE}"
    yield f"ldr r3, [sp, #{pushed + ZERO}]"
    yield "lsl r3, r3, r12"
    yield "asr r3, r3, #1"
    yield f"ldr r0, [sp, #{pushed + OUT}]"
    if kind == "long":
        for j, (low, high) in enumerate(zip(sums[::2], sums[1::2])):
            # The first pixel's in lr, until its output takes the place of the upper word.
            yield f"ubfx lr, {low}, #0, #{DISTANCE}"
            yield "add lr, r2, lr, lsl #1"
            yield f"lsr {low}, {low}, #{DISTANCE}"
            yield f"orr {low}, {low}, {high}, lsl #{32 - DISTANCE}"
            yield f"add {low}, r10, {low}, lsl #1"
            yield from _output(high, "lr", finish, pushed, 2 * j)
            yield from _output(low, low, finish, pushed, 2 * j + 1)
    else:
        for j, register in enumerate(sums):
            yield f"add {register}, r10, {register}, lsl #1"
            yield from _output(register, register, finish, pushed, j)
    yield "add r0, r0, #1"
    yield f"str r0, [sp, #{pushed + OUT}]"


def _output(result: str, doubled: str, finish: str, pushed: int, pixel: int) -> Iterator[str]:
    """From twice a sum with the bias to an output in memory; lr and the given registers are free then."""
    yield from _scaled(result, doubled, finish, pushed + LEAST, pushed + MOST)
    yield f"ldr lr, [sp, #{pushed + PLACES + 4 * pixel}]"
    yield f"strb {result}, [r0, lr]"


def _scaled(result: str, doubled: str, finish: str, least: int, most: int) -> Iterator[str]:
    """From twice a sum with the bias to an output.

    The multiplier is in r11, the shift in r12, what is added before it in r3; lr is free; limits are at places at sp.
    """
    yield f"smull lr, {result}, {doubled}, r11"
    if not finish.startswith("single"):
        yield f"add {result}, {result}, lr, lsr #31"
    if finish.startswith("signed"):
        yield f"add {result}, {result}, {result}, asr #31"
    yield f"add {result}, {result}, r3"
    yield f"asr {result}, {result}, r12"
    if finish.endswith("_within"):
        for place, condition in ((least, "lt"), (most, "gt")):
            yield f"ldr lr, [sp, #{place}]"
            yield f"cmp {result}, lr"
            yield f"it {condition}"
            yield f"mov{condition} {result}, lr"
    else:
        yield f"ssat {result}, #8, {result}"


def taps(low: bool, pixels: int, rows: int, finish: str, stride: int) -> Iterator[str]:
    """The routine that makes some outputs of a row of a depthwise convolution with kernels three wide, of all channels.

    It is a function of (source, stream, outputs, counts). The source has pixels with all channels, of as many rows as a kernel
    has. The stream is as that of `block`, counts are too, but with the bytes from a row of the source to the next one in place
    of the panel's.

    Args:
        low: Whether it is for Armv6-M.
        pixels: From 2 to 5, to 4 with `low` or a stride of 2.
        rows: Of a kernel.
        finish: As of `block`.
        stride: 1 or 2.
    """
    return low_taps(pixels, rows, finish, stride) if low else _taps(pixels, rows, finish, stride)


def _taps(pixels: int, rows: int, finish: str, stride: int) -> Iterator[str]:
    sums = [f"r{4 + i}" for i in range(pixels)]
    weights = ["r9", "r10", "r11"] if pixels == 5 else ["r8", "r9", "r10"]
    value, far = ("lr", "") if pixels == 5 else ("r11", "lr")
    # Multiples of the bytes of a pixel are a register, shifted.
    distances = {1: "r3", 2: "r3, lsl #1", 3: "r2", 4: "r3, lsl #2", 5: "r12", 6: "r2, lsl #1", 7: far, 8: "r3, lsl #3"}
    yield from _frame(pixels)
    yield "sub r6, r4, r0"
    yield f"str r6, [sp, #{END}]"
    yield "1:"
    yield f"ldr r0, [sp, #{PANEL}]"
    yield f"ldr r3, [sp, #{PLACES + 4}]"
    yield "add r2, r0, #1"
    yield f"str r2, [sp, #{PANEL}]"
    yield "add r2, r3, r3, lsl #1"
    yield "add r12, r3, r3, lsl #2"
    if far:
        yield f"rsb {far}, r3, r3, lsl #3"
    begun: set[str] = set()
    for row in range(rows):
        if row:
            yield f"ldr {value}, [sp, #{END}]"
            yield f"add r0, r0, {value}"
        for weight in weights:
            yield f"ldrsb {weight}, [r1], #1"
        for column in range((pixels - 1) * stride + 3):
            yield f"ldrsb {value}, [r0{f', {distances[column]}' if column else ''}]"
            for kx, weight in enumerate(weights):
                pixel, beside = divmod(column - kx, stride)
                if beside == 0 and 0 <= pixel < pixels:
                    total = sums[pixel]
                    yield f"mla {total}, {value}, {weight}, {total}" if total in begun else f"mul {total}, {value}, {weight}"
                    begun.add(total)
    yield from _outputs("word", sums, finish, 0)
    yield f"ldr r2, [sp, #{STREAM_END}]"
    yield "cmp r1, r2"
    yield "bne 1b"
    yield f"add sp, sp, #{PLACES + 4 * pixels}"
    yield f"pop {_RESTORED}"


def add(low: bool, table: bool, finish: str, shift: int) -> Iterator[str]:
    """The routine of a sum of two tensors: a function of (first, second, output, constants).

    Constants: the multiplier, the shift to the right, what is added before it, the least and the greatest output, how many
    elements, and then what twice the first operand is by its byte, or, without a `table`, what twice the sum of both operands
    has besides them. Operands without a table are shifted.

    Args:
        low: Whether it is for Armv6-M.
        table: Whether the first operand has a table.
        finish: As of `block`.
        shift: To the left, to twice an operand.
    """
    return low_add(table, finish, shift) if low else _add(table, finish, shift)


def _add(table: bool, finish: str, shift: int) -> Iterator[str]:
    yield f"push {_SAVED}"
    yield "ldr r11, [r3], #4"
    yield "ldr r12, [r3], #4"
    yield "ldm r3!, {r4, r5, r6, r7}"
    # At sp: limits, and the end of the output.
    yield "add r7, r2, r7"
    yield "push {r5, r6, r7}"
    yield "mov r10, r3" if table else "ldr r10, [r3]"
    yield "mov r3, r4"
    yield "1:"
    yield "ldrsb r5, [r1], #1"
    if table:
        yield "ldrb r4, [r0], #1"
        yield "ldr r4, [r10, r4, lsl #2]"
    else:
        yield "ldrsb r4, [r0], #1"
        yield f"add r4, r10, r4, lsl #{shift}"
    yield f"add r4, r4, r5, lsl #{shift}"
    yield from _scaled("r6", "r4", finish, 0, 4)
    yield "strb r6, [r2], #1"
    yield "cmp r2, r7"
    yield "bne 1b"
    yield "add sp, sp, #12"
    yield f"pop {_RESTORED}"
