"""x86-64 instruction sets: what this machine has, and the TVM targets that stand for them."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from ...passes._tvm import tvm
from ...passes.errors import UserError

# TVM would bind the calling thread, and with it the rest of the process, to one core when its thread pool starts.
os.environ.setdefault("TVM_BIND_THREADS", "0")

PORTABLE_CPU = "x86-64-v3"
"""AVX2 and FMA: every desktop and server CPU since about 2013, and what a portable build is compiled for."""

_TRIPLE = "x86_64-linux-gnu"
_CODE_FEATURES = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "lzcnt", "popcnt", "movbe", "amx")
_LEVELS = ("x86-64-v4", "x86-64-v3", "x86-64-v2", "x86-64")


@functools.cache
def host_cpu() -> str:
    """LLVM's name of the CPU of this machine, such as `znver4`.

    A virtual machine may hide instructions that the CPU of that name has: then the highest x86-64 level that is left.
    """
    name = str(tvm.target.codegen.llvm_get_system_cpu())
    flags = _kernel_flags()
    if flags is None or cpu_features(name) <= flags:
        return name
    return next((level for level in _LEVELS if cpu_features(level) <= flags), _LEVELS[-1])


@functools.cache
def cpu_features(cpu: str) -> frozenset[str]:
    """The vector and bit instruction sets that LLVM may use when compiling for `cpu`, by LLVM's names.

    Raises:
        UserError: LLVM knows no CPU of this name.
    """
    if not tvm.target.codegen.llvm_is_valid_cpu(cpu, _TRIPLE):
        raise UserError(f"LLVM knows no x86-64 CPU named {cpu}; give `native`, {PORTABLE_CPU} or a name such as znver3")
    names = map(str, tvm.target.codegen.llvm_get_cpu_features(tvm.target.Target(_target_dict(cpu))))
    # The others tune ("fast-gather") or are not for ordinary code ("pku").
    return frozenset(name for name in names if name.startswith(_CODE_FEATURES))


def _kernel_flags() -> frozenset[str] | None:
    """What /proc/cpuinfo says this machine has, by LLVM's names; None where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith("flags")), None)
    if line is None:
        return None
    renamed = {
        "pni": "sse3",
        "bmi1": "bmi",
        "abm": "lzcnt",
        "sse4_1": "sse4.1",
        "sse4_2": "sse4.2",
        "avx_vnni": "avxvnni",
    }
    flags = set()
    for flag in line.partition(":")[2].split():
        flags.add(renamed.get(flag, flag.replace("avx512_", "avx512")))
    return frozenset(flags)


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


def log_target(cpu: str = "native") -> tvm.target.Target:
    """The target as tuning logs record it: the instruction set level only, so that a log serves every such machine."""
    return tvm.target.Target(_target_dict(cpu_level(resolve_cpu(cpu))))


def available_cpus() -> int:
    """How many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def missing_features(cpu: str) -> list[str]:
    """The instruction sets that code compiled for `cpu` may use and this machine lacks."""
    return sorted(cpu_features(cpu) - cpu_features(host_cpu())) if cpu != host_cpu() else []


def _target_dict(cpu: str) -> dict[str, object]:
    return {"kind": "llvm", "mtriple": _TRIPLE, "mcpu": cpu}
