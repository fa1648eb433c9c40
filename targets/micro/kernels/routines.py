"""Inner loops of kernels, in assembly: what LLVM does not find.

LLVM's code loads pairs of words (LDRD) and keeps what it cannot hold on the stack. With registers chosen by hand one LDM takes
three or four words and moves the pointer, epilogues take their factors from the stream of weights, and nothing is spilled: a
word of four k, two channels and three pixels takes 17 instructions for 24 multiply-accumulates with byte planes (see `packing`)
and 16 with halfwords, where LLVM's takes 18 and 17; what comes between two reductions takes a third less.

A routine is a function of the library: layers that take the same one share it, whatever their sizes. Its name says all that is
fixed in it: `tvmcompress_panel3_planes_cut_8` has byte planes, cuts off what is negative at a zero point of -128, and has eight
words in a round of its inner loop. Instructions are those of the Arm v7-M Architecture Reference Manual (DDI 0403), chapter A7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from . import assembly, scalar_assembly
from .epilogue import Epilogue

_PREFIX = "tvmcompress_"
_NAME = re.compile(
    rf"{_PREFIX}(?:panel(?P<pixels>[23])_(?P<weights>planes|wide)_(?P<panel>cut|signed|single)"
    r"|depthwise(?P<stride>[12])_(?P<rows>row|tiles)_(?P<depthwise>cut|signed|single)"
    r"|dense_(?P<scale>each|one)_(?P<dense>cut|signed|single)|(?P<products>products)"
    r"|scalar_(?P<scalar>long|word|low)(?P<block>\d)x(?P<channels>\d)_(?P<finish>(?:cut|signed|single)(?:_within)?)"
    r"|scalar_(?P<taps>low|word)_taps(?P<tile>\d)x(?P<height>\d)_(?P<tapped>(?:cut|signed|single)(?:_within)?)"
    r"|scalar_(?P<add>low|word)_add_(?P<table>table|shift)_(?P<added>(?:cut|signed|single)(?:_within)?)"
    r"|scalar_lay_(?P<lay>long|word|low)|scalar_copy_(?P<copy>low|word))_(?P<unroll>\d+)(?P<once>_once)?"
)
_IN_OBJECTS = re.compile(_NAME.pattern.encode() + rb"(?=\0)")


def fits(epilogue: Epilogue) -> bool:
    """Whether routines have an epilogue: of two steps, and without limits but those of a byte."""
    return epilogue.two_steps and (epilogue.qmin, epilogue.qmax) == (-128, 127)


def panel_routine(pixels: int, wide: bool, epilogue: Epilogue, unroll: int, rounds: int) -> str:
    """The routine that multiplies a panel with the weights of all channels.

    It is a function of (panel, stream, outputs of the first pixel, counts, bytes to the second pixel's, to the third's). The
    panel is as `PanelPlan.halves` has it. Of each pair of channels the stream has what the sums start from, the weights, and
    four words of the epilogue; halfwords stand channel by channel within a half. Counts: rounds, bytes of the stream, zero
    point.
    """
    form = "wide" if wide else "planes"
    return f"{_PREFIX}panel{pixels}_{form}_{_kind(epilogue)}_{unroll}{'_once' if rounds == 1 else ''}"


def dense_routine(one_scale: bool, epilogue: Epilogue, unroll: int, rounds: int) -> str:
    """The routine of a fully connected layer, four outputs at a time.

    It is a function of (unpacked input, stream, output, counts). Of each four channels the stream has what the sums of both
    pairs start from, their byte planes word by word, and, unless they have `one_scale`, four words of each pair's epilogue.
    Counts: bytes of the unpacked input, bytes of the stream, zero point, and the words of one scale.
    """
    scale = "one" if one_scale else "each"
    return f"{_PREFIX}dense_{scale}_{_kind(epilogue)}_{unroll}{'_once' if rounds == 1 else ''}"


def depthwise_routine(stride: int, epilogue: Epilogue, tile: int, tiles: int) -> str:
    """The routine of a depthwise 3x3 convolution: four channels of a band.

    It is a function of (planes, stream, output of the first channel, counts). Of each channel the stream has the three words of
    weights, what sums start from, and two words of the epilogue. Counts: bytes of a plane's row, of a plane, of a pixel, zero
    point, bytes of the band's outputs, of a row's, and from the end of a row's fields to the next one's.
    """
    return f"{_PREFIX}depthwise{stride}_{'row' if tiles == 1 else 'tiles'}_{_kind(epilogue)}_{tile}"


def products_routine(unroll: int, rounds: int) -> str:
    """The routine of minimal filtering: all products of two tiles by two channels.

    It is a function of (transformed inputs, transformed weights, sums, counts). Counts: bytes of a product's weights, bytes
    from the end of a product's inputs to the next one's, products.
    """
    return f"{_PREFIX}products_{unroll}{'_once' if rounds == 1 else ''}"


def block_routine(kind: str, pixels: int, channels: int, finish: str, unroll: int) -> str:
    """The routine that multiplies a panel on cores without the DSP extension, see `scalar_assembly.block`."""
    return f"{_PREFIX}scalar_{kind}{pixels}x{channels}_{finish}_{unroll}"


def lay_routine(kind: str, words: int) -> str:
    """The routine that lays values into a panel, see `scalar_assembly.lay`."""
    return f"{_PREFIX}scalar_lay_{kind}_{words}"


def taps_routine(low: bool, pixels: int, rows: int, finish: str, stride: int) -> str:
    """The routine of a depthwise convolution on cores without the DSP extension, see `scalar_assembly.taps`."""
    return f"{_PREFIX}scalar_{'low' if low else 'word'}_taps{pixels}x{rows}_{finish}_{stride}"


def add_routine(low: bool, table: bool, finish: str, shift: int) -> str:
    """The routine of a sum on cores without the DSP extension, see `scalar_assembly.add`."""
    return f"{_PREFIX}scalar_{'low' if low else 'word'}_add_{'table' if table else 'shift'}_{finish}_{shift}"


def copy_routine(low: bool) -> str:
    """The routine that copies bytes, see `scalar_assembly.copy`."""
    return f"{_PREFIX}scalar_copy_{'low' if low else 'word'}_8"


def routine_bytes(name: str) -> int:
    """About how many bytes a routine takes: some of its instructions are halfwords."""
    return round(3.75 * sum(not line.endswith(":") for line in _lines(name)))


def routines_in(objects: Iterable[bytes]) -> list[str]:
    """The routines that object files call, by name."""
    return sorted({match[0].decode() for content in objects for match in _IN_OBJECTS.finditer(content)})


def routine_source(names: Iterable[str], prefix: str = "") -> str:
    """C source of routines, as symbols that begin with `prefix` in place of `tvmcompress_`."""
    parts = ["/* Inner loops: their registers are chosen by hand. */\n"]
    for name in names:
        symbol = f"{prefix}_{name.removeprefix(_PREFIX)}" if prefix else name
        body = "\n".join(f'      "{line}\\n"' for line in [".syntax unified", *_lines(name)])
        head = f"void {symbol}(void);\n__attribute__((naked)) void {symbol}(void)"
        parts.append(f"{head} {{\n  __asm__ volatile(\n{body});\n}}\n")
    return "\n".join(parts)


def renamed(name: str, prefix: str) -> str:
    """The symbol of a routine in a library whose symbols begin with a prefix."""
    return f"{prefix}_{name.removeprefix(_PREFIX)}"


def _kind(epilogue: Epilogue) -> str:
    if epilogue.rounding == "single":
        return "single"
    return "cut" if epilogue.kind["cut"] else "signed"


def _lines(name: str) -> list[str]:
    match = _NAME.fullmatch(name)
    assert match is not None
    unroll, once = int(match["unroll"]), match["once"] is not None
    if match["products"]:
        return list(assembly.products(unroll, once))
    if match["scalar"]:
        form = match["scalar"], int(match["block"]), int(match["channels"]), match["finish"]
        return list(scalar_assembly.block(*form, unroll))
    if match["taps"]:
        sizes = int(match["tile"]), int(match["height"])
        return list(scalar_assembly.taps(match["taps"] == "low", *sizes, match["tapped"], unroll))
    if match["add"]:
        return list(scalar_assembly.add(match["add"] == "low", match["table"] == "table", match["added"], unroll))
    if match["lay"]:
        return list(scalar_assembly.lay(match["lay"], unroll))
    if match["copy"]:
        return list(scalar_assembly.copy(match["copy"] == "low"))
    if match["stride"]:
        return list(assembly.depthwise(int(match["stride"]), match["rows"] == "row", match["depthwise"], unroll))
    if match["scale"]:
        return list(assembly.dense(match["scale"] == "one", match["dense"], unroll, once))
    return list(assembly.panel(int(match["pixels"]), match["weights"] == "wide", match["panel"], unroll, once))
