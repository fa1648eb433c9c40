"""Instructions that the code for a core may use beyond its architecture's base, and how Linux tells whether they are there."""

from __future__ import annotations

from typing import Any

from tvm.target import codegen

from ...passes._tvm import tvm
from ..record import Record
from ..remote.facts import Facts


class Feature(Record):
    """Some instructions.

    Attributes:
        name: As in /proc/cpuinfo.
        llvm: As LLVM has it.
        word: Which of the auxiliary vector's words tells of them: 1 for AT_HWCAP, 2 for AT_HWCAP2.
        bit: Which bit of it.
    """

    name: str
    llvm: str
    word: int
    bit: int


_WIDE = (
    # Linux, arch/arm64/include/uapi/asm/hwcap.h; what no generated code uses (atomics, cryptography) is left out.
    Feature(name="asimd", llvm="neon", word=1, bit=1),
    Feature(name="asimdhp", llvm="fullfp16", word=1, bit=10),
    Feature(name="asimdrdm", llvm="rdm", word=1, bit=12),
    Feature(name="asimddp", llvm="dotprod", word=1, bit=20),
    Feature(name="asimdfhm", llvm="fp16fml", word=1, bit=23),
    Feature(name="sve", llvm="sve", word=1, bit=22),
    Feature(name="i8mm", llvm="i8mm", word=2, bit=13),
    Feature(name="bf16", llvm="bf16", word=2, bit=14),
)

_NARROW = (
    # arch/arm/include/uapi/asm/hwcap.h.
    Feature(name="neon", llvm="neon", word=1, bit=12),
    Feature(name="vfpv4", llvm="vfp4", word=1, bit=16),
    Feature(name="idiva", llvm="hwdiv-arm", word=1, bit=17),
)


def needed(target: dict[str, Any]) -> tuple[Feature, ...]:
    """What code for a TVM target may use."""
    described = tvm.target.Target(target)
    known = _WIDE if str(target["mtriple"]).startswith("aarch64") else _NARROW
    return tuple(feature for feature in known if codegen.target_has_features(feature.llvm, described))


def present(hwcap: int, hwcap2: int) -> list[str]:
    """What a 64-bit processor has beyond Armv8.0 by what its kernel says, as attributes of a TVM target; no SVE, which no
    kernel uses."""
    found = (feature for feature in _WIDE if feature.llvm not in ("neon", "sve"))
    return [f"+{feature.llvm}" for feature in found if not lacking((feature,), hwcap, hwcap2)]


def lacking_for(target: dict[str, Any], facts: Facts, architecture: str) -> list[str]:
    """What code for the TVM target of a 64-bit Arm may use and a board lacks; empty where the board does not say."""
    if architecture != "aarch64":
        return ["the instructions of a 64-bit Arm"]
    return lacking(needed(target), facts.hwcap, facts.hwcap2) if facts.hwcap else []


def masks(features: tuple[Feature, ...]) -> tuple[int, int]:
    """Their bits in AT_HWCAP and AT_HWCAP2."""
    words = [sum(1 << feature.bit for feature in features if feature.word == word) for word in (1, 2)]
    return words[0], words[1]


def lacking(features: tuple[Feature, ...], hwcap: int, hwcap2: int) -> list[str]:
    """The names of those that a processor lacks, by what its kernel says."""
    return [feature.name for feature in features if not (hwcap, hwcap2)[feature.word - 1] >> feature.bit & 1]
