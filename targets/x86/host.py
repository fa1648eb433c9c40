"""x86-64 instruction sets: what this machine has, and the TVM targets that stand for them."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from ...passes._tvm import tvm
from ...passes.errors import UserError
from ..objects import available_cpus

# TVM would bind the calling thread, and with it the rest of the process, to one core when its thread pool starts.
os.environ.setdefault("TVM_BIND_THREADS", "0")

PORTABLE_CPU = "x86-64-v3"
"""AVX2 and FMA: every desktop and server CPU since about 2013, and what a portable build is compiled for."""

ASK_FOR_TILES = (158, 0x1023, 18)
"""The system call: arch_prctl, ARCH_REQ_XCOMP_PERM, the state of the tiles."""

_TRIPLE = "x86_64-linux-gnu"
_CODE_FEATURES = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "lzcnt", "popcnt", "movbe", "amx")
_LEVELS = ("x86-64-v4", "x86-64-v3", "x86-64-v2", "x86-64")

# Sets that a virtual machine may have though the model that it claims to be has not.
_ADDED = ("amx-int8", "amx-tile")

# The kernel's names that are not LLVM's with other punctuation.
_KERNEL_NAMES = {"pni": "sse3", "bmi1": "bmi", "abm": "lzcnt", "sse4_1": "sse4.1", "sse4_2": "sse4.2"}


@functools.cache
def host_cpu() -> str:
    """This machine's CPU as `supported_cpu` gives it, such as `znver4` or `emeraldrapids,-amx-int8`."""
    name = str(tvm.target.codegen.llvm_get_system_cpu())
    try:
        flags = kernel_features(Path("/proc/cpuinfo").read_text())
    except OSError:
        flags = None
    if flags is not None and "amx-tile" in flags and not tiles_granted():
        flags = frozenset(flag for flag in flags if not flag.startswith("amx"))
    return name if flags is None else supported_cpu(name, flags)


@functools.cache
def tiles_granted() -> bool:
    """Ask Linux for the tiles of AMX, which a process has only then; whether it gives them."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    return int(ctypes.CDLL(None).syscall(*ASK_FOR_TILES)) == 0


def supported_cpu(name: str, flags: frozenset[str]) -> str:
    """A CPU without the instruction sets that the operating system does not offer, as a virtual machine may hide some, and with
    the tiles that it offers.

    Args:
        name: LLVM's name of the CPU.
        flags: What the operating system offers, see `kernel_features`.

    Returns:
        The name, and behind it each instruction set that is left out as `,-avx512fp16`, and `,+amx-int8`: a CPU as all
        functions here take it.
    """
    features = cpu_features(name)
    added = [f"+{feature}" for feature in _ADDED if feature not in features and flags.issuperset(_ADDED)]
    return ",".join([name, *(f"-{feature}" for feature in sorted(features - flags)), *added])


def kernel_features(cpuinfo: str) -> frozenset[str] | None:
    """The instruction sets that the text of /proc/cpuinfo names, by LLVM's names; None where it has no flags.

    The kernel lists what the processor has and the operating system saves on a change of context.
    """
    line = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), None)
    return None if line is None else kernel_flags(line.partition(":")[2].split())


def kernel_flags(flags: Iterable[str]) -> frozenset[str]:
    """Instruction sets as the kernel names them, by LLVM's names."""
    return frozenset(map(_llvm_name, flags))


def _llvm_name(flag: str) -> str:
    """avx512_vbmi2 is LLVM's avx512vbmi2, avx_vnni avxvnni, amx_tile amx-tile, avx10_1 avx10.1."""
    if flag.startswith("amx_"):
        return flag.replace("_", "-")
    if flag.startswith("avx10"):
        return flag.replace("_", ".")
    return _KERNEL_NAMES.get(flag, flag.replace("_", "") if flag.startswith("avx") else flag)


@functools.cache
def cpu_features(cpu: str) -> frozenset[str]:
    """The vector and bit instruction sets that LLVM may use when compiling for `cpu`, by LLVM's names.

    Raises:
        UserError: LLVM knows no CPU of this name, or no instruction set that is added to it or taken from it.
    """
    name, *changes = cpu.split(",")
    if not _is_known(name):
        raise UserError(f"LLVM knows no x86-64 CPU named {name}; give `native`, {PORTABLE_CPU} or a name such as znver3")
    for change in changes:
        if change[:1] not in ("+", "-") or change[1:] not in _all_features():
            raise UserError(f"{change} behind {name} is no instruction set to add or leave out; write for instance -avx512f")
    names = map(str, tvm.target.codegen.llvm_get_cpu_features(tvm.target.Target(_target_dict(cpu))))
    # The others tune ("fast-gather") or are not for ordinary code ("pku").
    return frozenset(name for name in names if name.startswith(_CODE_FEATURES))


@functools.cache
def _all_features() -> frozenset[str]:
    """Every instruction set that some CPU known to LLVM has."""
    newest = ("diamondrapids", "pantherlake", "znver5", "bdver4", "knl")
    return frozenset().union(*(cpu_features(name) for name in newest if _is_known(name)))


def _is_known(name: str) -> bool:
    return bool(tvm.target.codegen.llvm_is_valid_cpu(name, _TRIPLE))


def cpu_level(cpu: str) -> str:
    """The highest level of the x86-64 psABI (`x86-64-v3` is AVX2, `x86-64-v4` AVX-512) whose instructions `cpu` has."""
    features = cpu_features(cpu)
    return next((level for level in _LEVELS if cpu_features(level) <= features), _LEVELS[-1])


def resolve_cpu(cpu: str) -> str:
    """`native` as the name of this machine's CPU, `portable` as the level that nearly all have, others as they are."""
    if cpu == "native":
        return host_cpu()
    return PORTABLE_CPU if cpu == "portable" else cpu


def tvm_target(cpu: str = "native", threads: int | None = None) -> tvm.target.Target:
    """The TVM target that compiles for `cpu` (`native`, `portable` or an LLVM name).

    Args:
        cpu: What to compile for.
        threads: How many threads schedules may count on; by default the CPUs that this process may run on.

    Raises:
        UserError: LLVM knows no CPU of this name.
    """
    name = resolve_cpu(cpu)
    cpu_features(name)
    return tvm.target.Target({**_target_dict(name), "num-cores": threads or available_cpus()})


def log_names(cpu: str = "native") -> tuple[str, ...]:
    """What stands for a CPU in the keys of tuning logs, the first to ask first.

    A search records what it measures as the CPU's own. The level stands for what was faster on every CPU of it that was
    tried: a schedule that gains a twentieth where vectors of 512 bits are done in halves took 1.7 times the formula's time
    where they are not.
    """
    name = resolve_cpu(cpu)
    model, level = name.partition(",")[0], cpu_level(name)
    return tuple(dict.fromkeys((model if cpu_level(model) == level else name, level)))


def log_target(cpu: str = "native") -> tvm.target.Target:
    """The target as tuning logs record it: the CPU, without what is particular to a machine."""
    return tvm.target.Target(_target_dict(log_names(cpu)[0]))


def missing_features(cpu: str) -> list[str]:
    """The instruction sets that code compiled for `cpu` may use and this machine lacks."""
    return sorted(cpu_features(cpu) - cpu_features(host_cpu())) if cpu != host_cpu() else []


def _target_dict(cpu: str) -> dict[str, object]:
    name, *changes = cpu.split(",")
    return {"kind": "llvm", "mtriple": _TRIPLE, "mcpu": name, **({"mattr": changes} if changes else {})}
