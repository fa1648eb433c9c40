"""Inner loops for Armv6-M, line by line, as GNU's assembler takes them: what `scalar_assembly` has for the smallest cores.

They multiply in eight registers, while sums fit into the others, and have no product of 64 bits: the upper half of one is put
together from four of halves. Instructions are those of the Armv6-M Architecture Reference Manual (DDI 0419).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from .scalar_frame import END, LEAST, MOST, OUT, PANEL, PLACES, STREAM_END, ZERO

_SUMS = ["r8", "r9", "r10", "r11"]
_VALUES = ["r4", "r5", "r6", "r7"]


def low_block(pixels: int, channels: int, finish: str, unroll: int) -> Iterator[str]:
    """As `scalar_assembly.block`."""
    sums, values = _SUMS[: pixels * channels], _VALUES[:pixels]
    places = ", ".join(values)
    yield from _frame(pixels)
    yield "1:"
    yield f"ldr r0, [sp, #{PANEL}]"
    yield f"ldr r3, [sp, #{END}]"
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
    yield from _outputs(sums, finish, channels)


def low_taps(pixels: int, rows: int, finish: str, stride: int) -> Iterator[str]:
    """As `scalar_assembly.taps`."""
    sums = _SUMS[:pixels]
    offsets = [*_VALUES[1:pixels]]
    yield from _frame(pixels)
    yield "subs r4, r4, r0"
    yield f"str r4, [sp, #{END}]"
    yield "1:"
    yield f"ldr r0, [sp, #{PANEL}]"
    yield "adds r2, r0, #1"
    yield f"str r2, [sp, #{PANEL}]"
    yield f"ldr r5, [sp, #{PLACES + 4}]"
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
                yield f"ldr r2, [sp, #{END}]"
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
    yield from _outputs(sums, finish)


def low_add(table: bool, finish: str, shift: int) -> Iterator[str]:
    """As `scalar_assembly.add`."""
    yield "push {r4, r5, r6, r7, lr}"
    yield from _moved(_VALUES, _SUMS)
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
    yield from _output(finish, 4, 8)
    yield "mov r4, r8"
    yield "mov r5, r12"
    yield "strb r0, [r5, r4]"
    yield "adds r4, r4, #1"
    yield "ldr r5, [sp, #12]"
    yield "cmp r4, r5"
    yield "bne 1b"
    yield "add sp, sp, #16"
    yield "pop {r4, r5, r6, r7}"
    yield from _moved(_SUMS, _VALUES)
    yield "pop {r4, r5, r6, r7, pc}"


def _frame(pixels: int) -> Iterator[str]:
    places = ", ".join(_VALUES[:pixels])
    yield "push {r4, r5, r6, r7, lr}"
    yield from _moved(_VALUES, _SUMS)
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


def _outputs(sums: list[str], finish: str, channels: int = 1) -> Iterator[str]:
    """Of some channels, whose words are next in the stream; then the next ones, or the end."""
    pixels = len(sums) // channels
    for c in range(channels):
        yield "ldm r1!, {r2, r3, r7}"
        yield "mov r12, r1"
        yield "mov lr, r2"
        yield "uxth r2, r3"
        yield "lsrs r3, r3, #16"
        yield f"ldr r6, [sp, #{ZERO}]"
        yield "lsls r6, r7"
        yield "asrs r6, r6, #1"
        yield "push {r6}"
        yield "movs r1, #1"
        yield "lsls r1, r1, #15"
        for pixel, total in enumerate(sums[c * pixels : (c + 1) * pixels]):
            yield f"mov r0, {total}"
            yield "lsls r0, r0, #1"
            yield "add r0, lr"
            yield from _output(finish, 4 + LEAST, 4 + MOST)
            yield f"ldr r4, [sp, #{4 + PLACES + 4 * pixel}]"
            yield f"ldr r5, [sp, #{4 + OUT}]"
            yield "strb r0, [r5, r4]"
        yield "pop {r6}"
        yield f"ldr r5, [sp, #{OUT}]"
        yield "adds r5, r5, #1"
        yield f"str r5, [sp, #{OUT}]"
        yield "mov r1, r12"
    yield f"ldr r2, [sp, #{STREAM_END}]"
    yield "cmp r1, r2"
    yield "beq 4f"
    yield "b 1b"
    yield "4:"
    yield f"add sp, sp, #{PLACES + 4 * pixels}"
    yield "pop {r4, r5, r6, r7}"
    yield from _moved(_SUMS, _VALUES)
    yield "pop {r4, r5, r6, r7, pc}"


def _output(finish: str, least: int, most: int) -> Iterator[str]:
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


def _moved(to: Iterable[str], source: Iterable[str]) -> Iterator[str]:
    yield from (f"mov {a}, {b}" for a, b in zip(to, source))
