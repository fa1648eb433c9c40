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

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

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
_LOW_SUMS = ["r8", "r9", "r10", "r11"]
_LOW_VALUES = ["r4", "r5", "r6", "r7"]
_PANEL, _OUT, _END, _STREAM_END, _ZERO, _LEAST, _MOST, _PLACES = 0, 4, 8, 12, 16, 20, 24, 28
"""Places at sp of a block's routine: where the panel, the outputs and the ends are, twice the zero point and one, limits, and
the offsets of the pixels' outputs."""


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
        return _low_block(pixels, channels, finish, unroll)
    return _block(kind, pixels, channels, finish, unroll)


def _block(kind: str, pixels: int, channels: int, finish: str, unroll: int) -> Iterator[str]:
    per_channel = pixels
    sums = [f"r{4 + i}" for i in range(pixels * channels)]
    yield from _frame(pixels)
    yield "1:"
    yield f"ldr r0, [sp, #{_PANEL}]"
    yield from (_long_sums if kind == "long" else _word_sums)(sums, pixels, channels, unroll)
    later = sums[per_channel:]
    if later:
        yield f"push {{{', '.join(later)}}}"
    for c in range(channels):
        pushed = 4 * (len(later) - c * per_channel)
        if c:
            yield f"pop {{{', '.join(sums[:per_channel])}}}"
        yield from _outputs(kind, sums[:per_channel], finish, pushed)
    yield f"ldr r2, [sp, #{_STREAM_END}]"
    yield "cmp r1, r2"
    yield "bne 1b"
    yield f"add sp, sp, #{_PLACES + 4 * pixels}"
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
    yield f"ldr r3, [sp, #{_END}]"
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
    yield f"ldr r2, [sp, #{_END}]"
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
    yield f"ldr r3, [sp, #{pushed + _ZERO}]"
    yield "lsl r3, r3, r12"
    yield "asr r3, r3, #1"
    yield f"ldr r0, [sp, #{pushed + _OUT}]"
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
    yield f"str r0, [sp, #{pushed + _OUT}]"


def _output(result: str, doubled: str, finish: str, pushed: int, pixel: int) -> Iterator[str]:
    """From twice a sum with the bias to an output in memory; lr and the given registers are free then."""
    yield from _scaled(result, doubled, finish, pushed + _LEAST, pushed + _MOST)
    yield f"ldr lr, [sp, #{pushed + _PLACES + 4 * pixel}]"
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


def _low_block(pixels: int, channels: int, finish: str, unroll: int) -> Iterator[str]:
    sums, values = _LOW_SUMS[: pixels * channels], _LOW_VALUES[:pixels]
    places = ", ".join(values)
    yield from _low_frame(pixels)
    yield "1:"
    yield f"ldr r0, [sp, #{_PANEL}]"
    yield f"ldr r3, [sp, #{_END}]"
    yield "mov lr, r3"
    yield "movs r3, #0"
    yield from _moved(sums, ["r3"] * len(sums))
    yield "2:"
    for _ in range(unroll if channels > 1 else 0):
        yield "ldm r0!, {r4}"
        yield "ldm r1!, {r2}"
        for total in sums[:-1]:
            yield "sxtb r3, r2"
            yield "muls r3, r4, r3"
            yield f"add {total}, r3"
            yield "asrs r2, r2, #8"
        yield "muls r2, r4, r2"
        yield f"add {sums[-1]}, r2"
    for _ in range(unroll // 4 if channels == 1 else 0):
        yield "ldm r1!, {r2}"
        for k in range(4):
            weight = "r3" if k < 3 else "r2"
            if k < 3:
                yield "sxtb r3, r2"
            yield f"ldm r0!, {{{places}}}"
            for value, total in zip(values, sums):
                yield f"muls {value}, {weight}, {value}"
                yield f"add {total}, {value}"
            if k < 3:
                yield "asrs r2, r2, #8"
    yield "cmp r0, lr"
    # Conditional branches do not reach far.
    yield "beq 3f"
    yield "b 2b"
    yield "3:"
    yield from _low_outputs(sums, finish, channels)


def _low_frame(pixels: int) -> Iterator[str]:
    places = ", ".join(_LOW_VALUES[:pixels])
    yield "push {r4, r5, r6, r7, lr}"
    yield from _moved(_LOW_VALUES, _LOW_SUMS)
    yield "push {r4, r5, r6, r7}"
    yield f"ldm r3!, {{{places}}}"
    yield f"push {{{places}}}"
    yield "ldm r3!, {r4, r5}"
    yield "adds r4, r0, r4"
    yield "adds r5, r1, r5"
    yield "ldm r3!, {r6, r7}"
    yield "ldr r3, [r3]"
    yield "push {r3}"
    yield "push {r0, r2, r4, r5, r6, r7}"


def _low_outputs(sums: list[str], finish: str, channels: int = 1) -> Iterator[str]:
    """Of some channels, whose words are next in the stream; then the next ones, or the end."""
    pixels = len(sums) // channels
    for c in range(channels):
        yield "ldm r1!, {r2, r3, r7}"
        yield "mov r12, r1"
        yield "mov lr, r2"
        yield "uxth r2, r3"
        yield "lsrs r3, r3, #16"
        yield f"ldr r6, [sp, #{_ZERO}]"
        yield "lsls r6, r7"
        yield "asrs r6, r6, #1"
        yield "push {r6}"
        yield "movs r1, #1"
        yield "lsls r1, r1, #15"
        for pixel, total in enumerate(sums[c * pixels : (c + 1) * pixels]):
            yield f"mov r0, {total}"
            yield "lsls r0, r0, #1"
            yield "add r0, lr"
            yield from _low_output(finish, 4 + _LEAST, 4 + _MOST)
            yield f"ldr r4, [sp, #{4 + _PLACES + 4 * pixel}]"
            yield f"ldr r5, [sp, #{4 + _OUT}]"
            yield "strb r0, [r5, r4]"
        yield "pop {r6}"
        yield f"ldr r5, [sp, #{_OUT}]"
        yield "adds r5, r5, #1"
        yield f"str r5, [sp, #{_OUT}]"
        yield "mov r1, r12"
    yield f"ldr r2, [sp, #{_STREAM_END}]"
    yield "cmp r1, r2"
    yield "beq 4f"
    yield "b 1b"
    yield "4:"
    yield f"add sp, sp, #{_PLACES + 4 * pixels}"
    yield "pop {r4, r5, r6, r7}"
    yield from _moved(_LOW_SUMS, _LOW_VALUES)
    yield "pop {r4, r5, r6, r7, pc}"


def _low_output(finish: str, least: int, most: int) -> Iterator[str]:
    """From twice a sum with the bias to an output, in r0; r4 to r6 are free then.

    The multiplier's halves are in r2 and r3, 2**15 in r1, the shift in r7, what is added before the shift on top of the stack,
    limits at places there.
    """
    yield "uxth r4, r0"
    yield "asrs r0, r0, #16"
    yield "movs r5, r4"
    yield "muls r5, r2, r5"
    yield "lsrs r5, r5, #16"
    yield "muls r4, r3, r4"
    yield "adds r4, r4, r5"
    if not finish.startswith("single"):
        yield "adds r4, r4, r1"
    yield "movs r5, r0"
    yield "muls r5, r2, r5"
    yield "uxth r6, r4"
    yield "adds r5, r5, r6"
    yield "muls r0, r3, r0"
    yield "asrs r4, r4, #16"
    yield "adds r0, r0, r4"
    yield "asrs r5, r5, #16"
    yield "adds r0, r0, r5"
    if finish.startswith("signed"):
        yield "asrs r4, r0, #31"
        yield "adds r0, r0, r4"
    yield "ldr r4, [sp]"
    yield "adds r0, r0, r4"
    yield "asrs r0, r7"
    if finish.endswith("_within"):
        for place, condition in ((least, "bge"), (most, "ble")):
            yield f"ldr r4, [sp, #{place}]"
            yield "cmp r0, r4"
            yield f"{condition} 5f"
            yield "movs r0, r4"
            yield "5:"
    else:
        yield "sxtb r4, r0"
        yield "cmp r4, r0"
        yield "beq 5f"
        yield "asrs r0, r0, #31"
        yield "movs r4, #127"
        yield "eors r0, r4"
        yield "5:"


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
    return _low_taps(pixels, rows, finish, stride) if low else _taps(pixels, rows, finish, stride)


def _taps(pixels: int, rows: int, finish: str, stride: int) -> Iterator[str]:
    sums = [f"r{4 + i}" for i in range(pixels)]
    weights = ["r9", "r10", "r11"] if pixels == 5 else ["r8", "r9", "r10"]
    value, far = ("lr", "") if pixels == 5 else ("r11", "lr")
    # Multiples of the bytes of a pixel are a register, shifted.
    distances = {1: "r3", 2: "r3, lsl #1", 3: "r2", 4: "r3, lsl #2", 5: "r12", 6: "r2, lsl #1", 7: far, 8: "r3, lsl #3"}
    yield from _frame(pixels)
    yield "sub r6, r4, r0"
    yield f"str r6, [sp, #{_END}]"
    yield "1:"
    yield f"ldr r0, [sp, #{_PANEL}]"
    yield f"ldr r3, [sp, #{_PLACES + 4}]"
    yield "add r2, r0, #1"
    yield f"str r2, [sp, #{_PANEL}]"
    yield "add r2, r3, r3, lsl #1"
    yield "add r12, r3, r3, lsl #2"
    if far:
        yield f"rsb {far}, r3, r3, lsl #3"
    begun: set[str] = set()
    for row in range(rows):
        if row:
            yield f"ldr {value}, [sp, #{_END}]"
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
    yield f"ldr r2, [sp, #{_STREAM_END}]"
    yield "cmp r1, r2"
    yield "bne 1b"
    yield f"add sp, sp, #{_PLACES + 4 * pixels}"
    yield f"pop {_RESTORED}"


def _low_taps(pixels: int, rows: int, finish: str, stride: int) -> Iterator[str]:
    sums = _LOW_SUMS[:pixels]
    offsets = [*_LOW_VALUES[1:pixels]]
    yield from _low_frame(pixels)
    yield "subs r4, r4, r0"
    yield f"str r4, [sp, #{_END}]"
    yield "1:"
    yield f"ldr r0, [sp, #{_PANEL}]"
    yield "adds r2, r0, #1"
    yield f"str r2, [sp, #{_PANEL}]"
    yield f"ldr r5, [sp, #{_PLACES + 4}]"
    yield "mov r12, r5"
    if stride == 2:
        yield "lsls r5, r5, #1"
    for before, offset in itertools.pairwise(offsets):
        yield f"adds {offset}, {before}, r5"
    yield "movs r4, #0"
    yield from _moved(sums, ["r4"] * pixels)
    for tap in range(3 * rows):
        if tap:
            if tap % 3 == 0:
                # Two pixels back and a row on.
                yield f"ldr r2, [sp, #{_END}]"
                yield "adds r0, r0, r2"
                yield "mov r2, r12"
                yield "subs r0, r0, r2"
                yield "subs r0, r0, r2"
            else:
                yield "add r0, r12"
        yield "ldrsb r2, [r1, r4]"
        yield "adds r1, r1, #1"
        for offset, total in zip(["r4", *offsets], sums):
            yield f"ldrsb r3, [r0, {offset}]"
            yield "muls r3, r2, r3"
            yield f"add {total}, r3"
    if 3 * rows % 4:
        yield f"adds r1, r1, #{-3 * rows % 4}"
    yield from _low_outputs(sums, finish)


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
    return _low_add(table, finish, shift) if low else _add(table, finish, shift)


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


def _low_add(table: bool, finish: str, shift: int) -> Iterator[str]:
    yield "push {r4, r5, r6, r7, lr}"
    yield from _moved(_LOW_VALUES, _LOW_SUMS)
    yield "push {r4, r5, r6, r7}"
    yield from _moved(["r9", "r10", "r12"], ["r0", "r1", "r2"])
    yield "ldm r3!, {r0, r7}"
    yield "ldm r3!, {r1, r4, r5, r6}"
    # At sp: what is added, limits, how many.
    yield "push {r1, r4, r5, r6}"
    yield "mov r11, r3"
    yield "uxth r2, r0"
    yield "lsrs r3, r0, #16"
    yield "movs r1, #1"
    yield "lsls r1, r1, #15"
    yield "movs r4, #0"
    yield "1:"
    yield "mov r8, r4"
    yield "mov r5, r9"
    yield "mov r6, r11"
    if table:
        yield "ldrb r5, [r5, r4]"
        yield "lsls r5, r5, #2"
        yield "ldr r0, [r6, r5]"
    else:
        yield "ldrsb r5, [r5, r4]"
        yield f"lsls r5, r5, #{shift}"
        yield "ldr r0, [r6]"
        yield "adds r0, r0, r5"
    yield "mov r6, r10"
    yield "ldrsb r6, [r6, r4]"
    yield f"lsls r6, r6, #{shift}"
    yield "adds r0, r0, r6"
    yield from _low_output(finish, 4, 8)
    yield "mov r4, r8"
    yield "mov r5, r12"
    yield "strb r0, [r5, r4]"
    yield "adds r4, r4, #1"
    yield "ldr r5, [sp, #12]"
    yield "cmp r4, r5"
    yield "bne 1b"
    yield "add sp, sp, #16"
    yield "pop {r4, r5, r6, r7}"
    yield from _moved(_LOW_SUMS, _LOW_VALUES)
    yield "pop {r4, r5, r6, r7, pc}"


def _moved(to: Iterable[str], source: Iterable[str]) -> Iterator[str]:
    yield from (f"mov {a}, {b}" for a, b in zip(to, source))
