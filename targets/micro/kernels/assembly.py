"""Instructions of the routines that `routines` names, line by line, as GNU's assembler takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_SAVED = "{r4, r5, r6, r7, r8, r9, r10, r11, lr}"
_RESTORED = "{r4, r5, r6, r7, r8, r9, r10, r11, pc}"


def _smlad(acc: str, a: str, b: str) -> str:
    return f"smlad {acc}, {a}, {b}, {acc}"


def _output(acc: str, factor: str, shift: str, zero_point: str, kind: str) -> Iterator[str]:
    """From twice a sum to an output, see `epilogue`."""
    yield f"{'smmul' if kind == 'single' else 'smmulr'} {acc}, {acc}, {factor}"
    if kind == "signed":
        yield f"add {acc}, {acc}, {acc}, asr #31"
    yield f"smmlar {acc}, {acc}, {shift}, {zero_point}"
    yield f"ssat {acc}, #8, {acc}"


def _pair(raw: str, low: str, factors: tuple[str, str, str, str], zero_point: str, kind: str, planes: bool) -> Iterator[str]:
    """From the sums of a pair of channels to two bytes in the first one's register."""
    if planes:
        yield f"sub {raw}, {raw}, {low}"
        yield f"asr {raw}, {raw}, #7"
        yield f"lsl {low}, {low}, #1"
    yield from _output(raw, factors[0], factors[2], zero_point, kind)
    yield from _output(low, factors[1], factors[3], zero_point, kind)
    yield f"bfi {raw}, {low}, #8, #8"


def panel(pixels: int, wide: bool, kind: str, unroll: int, once: bool) -> Iterator[str]:
    first, second = ["r7", "r8", "r9"][:pixels], ["r10", "r11", "r12"][:pixels]
    yield f"push {_SAVED}"
    yield "ldm r3, {r4, r5, r6}"
    yield "add r5, r1, r5"
    # At sp: the panel, the outputs, rounds, the end of the stream, the zero point; at 56 the distances of outputs.
    yield "push {r0, r2, r4, r5, r6}"
    yield "1:"
    yield "ldm r1!, {r7, r10}"
    if not once:
        yield "ldr lr, [sp, #8]"
    for px in range(1, pixels):
        yield f"mov {first[px]}, {first[0]}"
        yield f"mov {second[px]}, {second[0]}"
    yield "2:"
    for _ in range(unroll):
        yield from _panel_word(first, second, wide)
    if not once:
        yield "subs lr, lr, #1"
        yield "bne 2b"
    yield "ldm r1!, {r2, r3, r4, r5}"
    yield "ldr r6, [sp, #16]"
    for raw, low in zip(first, second):
        yield from _pair(raw, low, ("r2", "r3", "r4", "r5"), "r6", kind, not wide)
    yield "ldr lr, [sp, #4]"
    yield "ldrd r2, r3, [sp, #56]"
    yield "strh r8, [lr, r2]"
    if pixels == 3:
        yield "strh r9, [lr, r3]"
    yield "strh r7, [lr], #2"
    yield "str lr, [sp, #4]"
    yield "ldr r2, [sp, #12]"
    yield "ldr r0, [sp]"
    yield "cmp r1, r2"
    yield "bne 1b"
    yield "add sp, sp, #20"
    yield f"pop {_RESTORED}"


def _panel_word(first: list[str], second: list[str], wide: bool) -> Iterator[str]:
    """Four k: the halves (k0, k2) and (k1, k3) of all pixels."""
    halves = [["r2", "r3", "r4"]] * 2 if len(first) == 3 else [["r2", "r3"], ["r4", "r9"]]
    if not wide:
        yield "ldrd r5, r6, [r1], #8"
    if len(first) == 2:
        yield "ldm r0!, {r2, r3, r4, r9}"
    for half, values in enumerate(halves):
        if wide:
            yield "ldrd r5, r6, [r1], #8"
        if len(first) == 3:
            yield "ldm r0!, {r2, r3, r4}"
        weights = ("r5", "r6") if wide else ("r5" if half == 0 else "r6",) * 2
        yield from (_smlad(acc, value, weights[0]) for acc, value in zip(first, values))
        if not wide:
            # In place: the whole word is not needed any more.
            yield f"sxtb16 {weights[1]}, {weights[1]}"
        yield from (_smlad(acc, value, weights[1]) for acc, value in zip(second, values))


def dense(one_scale: bool, kind: str, unroll: int, once: bool) -> Iterator[str]:
    yield f"push {_SAVED}"
    yield "ldm r3, {r4, r5, r6, r7, r8}" if one_scale else "ldm r3, {r4, r5, r6}"
    yield "add r4, r0, r4"
    yield "add r5, r1, r5"
    # At sp: the input, the output, the end of the input, the end of the stream, the zero point, the words of one scale.
    yield "push {r0, r2, r4, r5, r6, r7, r8}"
    yield "1:"
    yield "ldm r1!, {r7, r8, r9, r10}"
    yield "2:"
    for word in range(unroll):
        if word % 2 == 0:
            yield "ldm r0!, {r2, r3, r4, r5}" if word + 1 < unroll else "ldm r0!, {r2, r3}"
        yield "ldm r1!, {r6, r11, r12, lr}"
        values = ("r2", "r3") if word % 2 == 0 else ("r4", "r5")
        for acc, words in (("r7", ("r6", "r11")), ("r9", ("r12", "lr"))):
            yield from (_smlad(acc, value, weight) for value, weight in zip(values, words))
        yield from (f"sxtb16 {weight}, {weight}" for weight in ("r6", "r11", "r12", "lr"))
        for acc, words in (("r8", ("r6", "r11")), ("r10", ("r12", "lr"))):
            yield from (_smlad(acc, value, weight) for value, weight in zip(values, words))
    if not once:
        yield "ldr r6, [sp, #8]"
        yield "cmp r0, r6"
        yield "bne 2b"
    yield "ldr r0, [sp]"
    yield "ldr r6, [sp, #16]"
    if one_scale:
        yield "ldrd r2, r4, [sp, #20]"
    for raw, low in (("r7", "r8"), ("r9", "r10")):
        if not one_scale:
            yield "ldm r1!, {r2, r3, r4, r5}"
        factors = ("r2", "r2", "r4", "r4") if one_scale else ("r2", "r3", "r4", "r5")
        yield from _pair(raw, low, factors, "r6", kind, True)
    yield "ldr lr, [sp, #4]"
    yield "strh r7, [lr], #2"
    yield "strh r9, [lr], #2"
    yield "str lr, [sp, #4]"
    yield "ldr r2, [sp, #12]"
    yield "cmp r1, r2"
    yield "bne 1b"
    yield "add sp, sp, #28"
    yield f"pop {_RESTORED}"


_COUNTS, _END, _ROW_END, _PLANES, _OUTPUT, _STREAM, _LEFT = 48, 52, 56, 60, 64, 68, 72
"""Places at sp of a depthwise routine, behind factor, shift, zero point, place of the next output, bytes of a pixel, start and
taps."""


def depthwise(stride: int, one_tile: bool, kind: str, tile: int) -> Iterator[str]:
    yield f"push {_SAVED}"
    yield "sub sp, sp, #76"
    yield "mov r4, #4"
    for register, place in (("r0", _PLANES), ("r1", _STREAM), ("r2", _OUTPUT), ("r3", _COUNTS), ("r4", _LEFT)):
        yield f"str {register}, [sp, #{place}]"
    yield "1:"
    yield f"ldr r1, [sp, #{_STREAM}]"
    yield "ldm r1!, {r2, r3, r4, r5, r6, r7}"
    yield f"str r1, [sp, #{_STREAM}]"
    for row, word in enumerate(("r2", "r3", "r4")):
        yield f"sxtb16 r8, {word}"
        yield f"sxtb16 r9, {word}, ror #8"
        yield "sadd16 r8, r8, r8"
        yield "sadd16 r9, r9, r9"
        yield f"strd r8, r9, [sp, #{24 + 8 * row}]"
    yield "str r5, [sp, #20]"
    yield "strd r6, r7, [sp]"
    yield f"ldr r3, [sp, #{_COUNTS}]"
    yield f"ldr r0, [sp, #{_PLANES}]"
    yield f"ldr r2, [sp, #{_OUTPUT}]"
    yield "ldm r3, {r4, r5, r6, r7, r8, r9}"
    yield "mov lr, r4"
    yield "strd r7, r2, [sp, #8]"
    yield "str r6, [sp, #16]"
    yield "add r8, r2, r8"
    yield "add r9, r2, r9"
    yield f"strd r8, r9, [sp, #{_END}]"
    yield "add r5, r0, r5"
    yield "add r2, r2, #1"
    yield f"strd r5, r2, [sp, #{_PLANES}]"
    yield "2:"
    yield from _depthwise_sums(stride, tile)
    yield "ldm sp, {r1, r2, r3, r4, r11}"
    yield from _depthwise_outputs(kind, tile)
    yield "str r4, [sp, #12]"
    if one_tile and stride == 1:
        yield "sub r0, r0, lr"
    if not one_tile:
        yield "sub r0, r0, lr, lsl #1"
        yield f"add r0, r0, #{2 * tile * stride}"
        yield f"ldr r1, [sp, #{_ROW_END}]"
        yield "cmp r4, r1"
        yield "bne 2b"
        yield f"ldr r2, [sp, #{_COUNTS}]"
        yield "ldrd r2, r3, [r2, #20]"
        yield "add r1, r1, r2"
        yield "add r0, r0, r3"
        yield f"str r1, [sp, #{_ROW_END}]"
    yield f"ldr r1, [sp, #{_END}]"
    yield "cmp r4, r1"
    yield "bne 2b"
    yield f"ldr r4, [sp, #{_LEFT}]"
    yield "subs r4, r4, #1"
    yield f"str r4, [sp, #{_LEFT}]"
    yield "bne 1b"
    yield "add sp, sp, #76"
    yield f"pop {_RESTORED}"


def _depthwise_sums(stride: int, tile: int) -> Iterator[str]:
    """The sums of a tile, in r5 and those behind it; a row's words are in r1 to r4, those beyond the fourth in r1 again."""
    words = tile + 1 if stride == 2 else (tile - 1) // 2 + 2
    yield "ldr r5, [sp, #20]"
    for row in range(3):
        yield f"ldrd r11, r12, [sp, #{24 + 8 * row}]"
        yield f"ldm r0, {{{', '.join(f'r{1 + word}' for word in range(min(words, 4)))}}}"
        # The first sum last: it has what all start from.
        order = [*range(1, tile), 0] if row == 0 else [*range(tile)]
        if words > 4:
            late = [i for i in range(tile) if i >= 3]
            early = [i for i in order if i < 3]
            order = [*(i for i in early if i), *([] if row == 0 else [0])]
            yield from _depthwise_products(stride, order, row)
            if row == 0:
                # Those that come later need it too.
                yield from (f"mov r{5 + i}, r5" for i in late)
                yield from _depthwise_products(stride, [0], row)
            yield from _late_words(words)
            yield from _depthwise_products(stride, late, row, started=True)
        else:
            yield from _depthwise_products(stride, order, row)
        if row < 2:
            yield "add r0, r0, lr"


def _late_words(words: int) -> Iterator[str]:
    if words > 5:
        yield "ldrd r1, r2, [r0, #16]"
    else:
        yield "ldr r1, [r0, #16]"
    if words == 7:
        yield "ldr r3, [r0, #24]"


def _depthwise_products(stride: int, outputs: Iterable[int], row: int, started: bool = False) -> Iterator[str]:
    """One row's products of some outputs; those of the first row start from the first sum."""
    for i in outputs:
        acc, start = f"r{5 + i}", "r5" if row == 0 and not started else f"r{5 + i}"
        word = i if stride == 2 else i // 2
        one, two = f"r{1 + word % 4}", f"r{1 + (word + 1) % 4}"
        if stride == 2 or i % 2 == 0:
            yield f"smlad {acc}, {one}, r11, {start}"
            yield f"smlabt {acc}, {two}, r12, {acc}"
        else:
            yield f"smlatb {acc}, {one}, r11, {start}"
            yield f"smlad {acc}, {two}, r12, {acc}"


def _depthwise_outputs(kind: str, tile: int) -> Iterator[str]:
    """The outputs of a tile, a pixel of r11 bytes apart; r4 then is behind the last."""
    for i in range(tile):
        yield from _output(f"r{5 + i}", "r1", "r2", "r3", kind)
    places = ("[r4]", "[r4, r11]", "[r4, r11, lsl #1]")
    for i in range(tile):
        if i == 3:
            yield "add r4, r4, r11"
            yield "add r4, r4, r11, lsl #1"
        yield f"strb r{5 + i}, {places[i % 3]}"
    last = (tile - 1) % 3 + 1
    yield f"add r4, r4, r11{', lsl #1' if last == 2 else ''}"
    if last == 3:
        yield "add r4, r4, r11, lsl #1"


def products(unroll: int, once: bool) -> Iterator[str]:
    yield f"push {_SAVED}"
    yield "ldm r3, {r4, r5, r6}"
    # At sp: the sums, bytes of a product's weights, bytes between its inputs and the next one's, products, end of the weights.
    yield "push {r2, r4, r5, r6, r7}"
    yield "1:"
    if not once:
        yield "ldr r4, [sp, #4]"
        yield "add r4, r1, r4"
        yield "str r4, [sp, #16]"
    yield from (f"mov {acc}, #0" for acc in ("r2", "r3", "r12", "lr"))
    yield "2:"
    for _ in range(unroll):
        yield "ldm r0!, {r4, r5, r6, r7}"
        yield "ldm r1!, {r8, r9, r10, r11}"
        for half in range(2):
            for acc, value, weight in (("r2", 4, 8), ("r3", 4, 10), ("r12", 6, 8), ("lr", 6, 10)):
                yield _smlad(acc, f"r{value + half}", f"r{weight + half}")
    if not once:
        yield "ldr r4, [sp, #16]"
        yield "cmp r1, r4"
        yield "bne 2b"
    yield "ldm sp, {r4, r5, r6, r7}"
    yield "stm r4!, {r2, r3, r12, lr}"
    yield "add r0, r0, r6"
    yield "subs r7, r7, #1"
    yield "str r4, [sp]"
    yield "str r7, [sp, #12]"
    yield "bne 1b"
    yield "add sp, sp, #20"
    yield f"pop {_RESTORED}"
