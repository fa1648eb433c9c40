"""What a floating-point unit of single precision leaves to library functions: doubles, and integers of 64 bits.

LLVM 22 calls GCC's functions for them (`__adddf3`, `__fixsfdi`) with floats in registers of the floating-point unit, as the
hard-float ABI has it; in libgcc they take them in integer registers whatever the ABI ("Run-time ABI for the Arm Architecture",
section 4.1.2). Functions in C stand between, which GCC compiles for both sides.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..aot.generate import Generated
from ..emulators.tools import run

_UNARY = {
    "fixsfdi": ("int64_t", "float"),
    "fixunssfdi": ("uint64_t", "float"),
    "floatdisf": ("float", "int64_t"),
    "floatundisf": ("float", "uint64_t"),
    "fixdfdi": ("int64_t", "double"),
    "fixunsdfdi": ("uint64_t", "double"),
    "floatdidf": ("double", "int64_t"),
    "floatundidf": ("double", "uint64_t"),
    "fixdfsi": ("int32_t", "double"),
    "fixunsdfsi": ("uint32_t", "double"),
    "floatsidf": ("double", "int32_t"),
    "floatunsidf": ("double", "uint32_t"),
    "extendsfdf2": ("double", "float"),
    "truncdfsf2": ("float", "double"),
}
_BINARY = {"adddf3": "+", "subdf3": "-", "muldf3": "*", "divdf3": "/"}
# By GCC's definition of the results, one that is not a number included.
_COMPARISONS = {
    "eqdf2": "a == b ? 0 : 1",
    "nedf2": "a == b ? 0 : 1",
    "ltdf2": "a < b ? -1 : 1",
    "ledf2": "a <= b ? -1 : 1",
    "gtdf2": "a > b ? 1 : -1",
    "gedf2": "a >= b ? 1 : -1",
    "unorddf2": "a != a || b != b",
}


def with_float_helpers(generated: Generated) -> Generated:
    """A library with the functions that its objects need for doubles and 64 bits, for a core with a floating-point unit."""
    prefix, needed = generated.prefix, _needed(list(generated.objects))
    if not needed:
        return generated
    renames = [part for name in needed for part in ("--redefine-sym", f"__{name}={prefix}_{name}")]
    for path in generated.objects:
        run(["arm-none-eabi-objcopy", *renames, path], what="renaming floating-point helpers", timeout=60)
    source = generated.folder / f"{prefix}_floats.c"
    prototypes, bodies = zip(*(_function(prefix, name) for name in needed))
    head = "/* Floating point beyond what the unit of the core computes. */\n\n#include <stdint.h>\n\n"
    source.write_text(head + "".join(f"{line};\n" for line in prototypes) + "\n" + "\n".join(bodies))
    return replace(generated, sources=(*generated.sources, source))


def _needed(objects: list[Path]) -> list[str]:
    known = {f"__{name}" for name in (*_UNARY, *_BINARY, *_COMPARISONS)}
    listed = [run(["arm-none-eabi-nm", "-u", path], what="reading the kernels", timeout=60).split() for path in objects]
    return sorted(name.removeprefix("__") for name in known & {name for names in listed for name in names})


def _function(prefix: str, name: str) -> tuple[str, str]:
    """Prototype and definition."""
    if name in _UNARY:
        result, operand = _UNARY[name]
        prototype, value = f"{result} {prefix}_{name}({operand} a)", f"({result})a"
    elif name in _BINARY:
        prototype, value = f"double {prefix}_{name}(double a, double b)", f"a {_BINARY[name]} b"
    else:
        prototype, value = f"int {prefix}_{name}(double a, double b)", _COMPARISONS[name]
    return prototype, f"{prototype} {{ return {value}; }}\n"
