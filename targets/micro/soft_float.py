"""Floating-point helpers of cores without a floating-point unit, under the names of the Arm run-time ABI.

LLVM 22 calls these helpers by the names of GCC's library (`__addsf3`), of which libgcc for Armv6-M has only those of the
Arm ABI ("Run-time ABI for the Arm Architecture", section 5.1). Arguments and results are the same.
"""

from __future__ import annotations

from pathlib import Path

from ...passes.errors import UserError
from ..aot.program import Program
from ..base import TargetDescription
from ..emulators.tools import run

_FLOATS = {"float16", "float32", "float64"}
_HELPERS = {
    "__addsf3": "__aeabi_fadd",
    "__subsf3": "__aeabi_fsub",
    "__mulsf3": "__aeabi_fmul",
    "__divsf3": "__aeabi_fdiv",
    "__fixsfsi": "__aeabi_f2iz",
    "__fixunssfsi": "__aeabi_f2uiz",
    "__floatsisf": "__aeabi_i2f",
    "__floatunsisf": "__aeabi_ui2f",
    "__unordsf2": "__aeabi_fcmpun",
    "__adddf3": "__aeabi_dadd",
    "__subdf3": "__aeabi_dsub",
    "__muldf3": "__aeabi_dmul",
    "__divdf3": "__aeabi_ddiv",
    "__fixdfsi": "__aeabi_d2iz",
    "__fixunsdfsi": "__aeabi_d2uiz",
    "__floatsidf": "__aeabi_i2d",
    "__floatunsidf": "__aeabi_ui2d",
    "__unorddf2": "__aeabi_dcmpun",
    "__extendsfdf2": "__aeabi_f2d",
    "__truncdfsf2": "__aeabi_d2f",
}


def use_arm_names(objects: list[Path]) -> None:
    """Rename the helpers in object files."""
    renames = [part for old, new in _HELPERS.items() for part in ("--redefine-sym", f"{old}={new}")]
    for path in objects:
        run(["arm-none-eabi-objcopy", *renames, path], what="renaming floating-point helpers", timeout=60)


def refuse_floats(description: TargetDescription, program: Program) -> None:
    """Refuse a program that computes in floating point.

    Raises:
        UserError: It does; the sentence names the layers.
    """
    layers = [
        step.layer
        for step in program.steps
        if {program.tensors[name].dtype for name in (*step.arguments, *step.results) if name in program.tensors} & _FLOATS
    ]
    if layers:
        named = ", ".join(f"'{layer}'" for layer in list(dict.fromkeys(layers))[:3])
        raise UserError(
            f"{description.name} has no floating-point unit, and {len(layers)} of {len(program.steps)} steps compute in "
            f"floating point ({named}); quantize the model (--quantize int8), or let a library compute them (--soft-float)"
        )
