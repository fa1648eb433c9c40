"""The instruction sets of a machine, read from what the kernel says of it."""

from __future__ import annotations

import pytest

from tvmcompress.errors import UserError
from tvmcompress.targets.x86 import host
from tvmcompress.targets.x86.kernels.intrinsics import MADD4, MADD8, MADD16, VNNI8, VNNI16, Dot, best_dot

_COMMON = "fpu sse sse2 ht syscall nx pdpe1gb rdtscp lm pni pclmulqdq ssse3 cx16 sse4_1 sse4_2 movbe popcnt aes rdrand"
_AVX2 = f"{_COMMON} xsave avx f16c fma lahf_lm abm fsgsbase bmi1 avx2 smep bmi2 erms rdseed adx smap clflushopt xsaveopt"
_AMD = f"{_AVX2} mmxext sse4a misalignsse sha_ni clzero"
_SKYLAKE_X = f"{_AVX2} avx512f avx512dq clwb avx512cd avx512bw avx512vl pku ospke"
_ICELAKE = (
    f"{_SKYLAKE_X} avx512ifma sha_ni avx512vbmi umip avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg "
    "avx512_vpopcntdq rdpid"
)
_SAPPHIRE = f"{_ICELAKE} avx_vnni avx512_bf16 avx512_fp16 cldemote movdiri movdir64b serialize amx_bf16 amx_tile amx_int8"
_ZEN4 = f"{_AMD} {_ICELAKE.removeprefix(_AVX2)} avx512_bf16"

# LLVM's name, the part of the line "flags" in /proc/cpuinfo that names instruction sets, the product for 64 channels.
CPUS: dict[str, tuple[str, str, Dot]] = {
    "Atom x6425E (Elkhart Lake)": ("tremont", f"{_COMMON} xsave sha_ni rdseed gfni clwb movdiri movdir64b", MADD4),
    "N100 (Alder Lake-N)": ("gracemont", f"{_AVX2} sha_ni avx_vnni gfni vaes vpclmulqdq clwb serialize", VNNI8),
    "Core i5-12500 (Alder Lake)": ("alderlake", f"{_AVX2} sha_ni avx_vnni gfni vaes vpclmulqdq clwb serialize", VNNI8),
    "Core i7-6700 (Skylake)": ("skylake", _AVX2, MADD8),
    "Xeon Gold 6148 (Skylake server)": ("skylake-avx512", _SKYLAKE_X, MADD16),
    "Xeon Gold 6248 (Cascade Lake)": ("cascadelake", f"{_SKYLAKE_X} avx512_vnni", VNNI16),
    "Xeon Gold 6338 (Ice Lake server)": ("icelake-server", f"{_ICELAKE} pconfig wbnoinvd", VNNI16),
    "Xeon Gold 6430 (Sapphire Rapids)": ("sapphirerapids", _SAPPHIRE, VNNI16),
    "Xeon Gold 6548 (Emerald Rapids)": ("emeraldrapids", _SAPPHIRE, VNNI16),
    "Xeon 6972P (Granite Rapids)": ("graniterapids", f"{_SAPPHIRE} amx_fp16", VNNI16),
    "EPYC 7742 (Zen 2)": ("znver2", f"{_AMD} clwb rdpid wbnoinvd", MADD8),
    "Ryzen 9 5950X (Zen 3)": ("znver3", f"{_AMD} vaes vpclmulqdq pku clwb rdpid", MADD8),
    "Ryzen 9 7950X (Zen 4)": ("znver4", _ZEN4, VNNI16),
    "EPYC 9655 (Zen 5)": ("znver5", f"{_ZEN4} avx_vnni avx512_vp2intersect movdiri movdir64b", VNNI16),
}


@pytest.mark.parametrize("cpu", CPUS)
def test_all_that_the_machine_has_is_used(cpu: str) -> None:
    name, flags, dot = CPUS[cpu]
    offered = host.kernel_features(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t:\n")
    assert offered is not None
    found = host.supported_cpu(name, offered)
    assert found == name
    assert host.cpu_features(found) == host.cpu_features(name)
    assert best_dot(host.cpu_features(found), 64) == dot


@pytest.mark.parametrize(
    ("name", "hidden", "dot"),
    [
        ("sapphirerapids", "amx_bf16 amx_tile amx_int8", VNNI16),
        ("sapphirerapids", "avx512_fp16", VNNI16),
        ("icelake-server", "avx512_vnni", MADD16),
        (
            "znver4",
            "avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni avx512ifma avx512vbmi avx512_vbmi2 "
            "avx512_bitalg avx512_vpopcntdq avx512_bf16",
            MADD8,
        ),
    ],
)
def test_what_a_virtual_machine_hides_alone_is_left_out(name: str, hidden: str, dot: Dot) -> None:
    flags = next(flags for llvm, flags, _ in CPUS.values() if llvm == name)
    gone = set(hidden.split())
    offered = host.kernel_features("flags : " + " ".join(flag for flag in flags.split() if flag not in gone))
    assert offered is not None
    found = host.supported_cpu(name, offered)
    assert host.cpu_features(found) == host.cpu_features(name) & offered
    assert host.cpu_features(name) - offered
    assert best_dot(host.cpu_features(found), 64) == dot
    target = host.tvm_target(found)
    assert str(target.attrs["mcpu"]) == name
    assert set(map(str, target.attrs["mattr"])) == {f"-{feature}" for feature in host.cpu_features(name) - offered}


def test_tiles_that_the_claimed_model_has_not_are_used() -> None:
    offered = host.kernel_features(f"flags : {_SAPPHIRE}")
    assert offered is not None
    found = host.supported_cpu("rocketlake", offered)
    assert found == "rocketlake,+amx-int8,+amx-tile"
    assert host.cpu_features(found) - host.cpu_features("rocketlake") == {"amx-int8", "amx-tile"}
    assert host.supported_cpu("rocketlake", offered - {"amx-int8"}) == "rocketlake"


def test_no_flags_no_answer() -> None:
    assert host.kernel_features("processor : 0\n") is None


@pytest.mark.parametrize("cpu", ["znver3,avx512f", "znver3,-avx5", "znver3,", "nonesuch", "znver3,-avx512f;x"])
def test_what_llvm_does_not_know_is_refused(cpu: str) -> None:
    with pytest.raises(UserError):
        host.cpu_features(cpu)


def test_instruction_sets_may_be_left_out_by_hand() -> None:
    assert host.cpu_features("emeraldrapids,-avx512vnni") == host.cpu_features("emeraldrapids") - {"avx512vnni"}
    assert "avx512f" in host.missing_features("emeraldrapids") or "avx512f" in host.cpu_features(host.host_cpu())
