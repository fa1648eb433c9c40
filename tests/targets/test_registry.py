"""Descriptions of targets: those that come with the package, and faulty ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmcompress.passes import UserError
from tvmcompress.targets import get_target, list_targets, read_description


def test_every_description_is_complete() -> None:
    found = {description.name: description for description in list_targets()}
    assert {"x86", "cortex-a72", "cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33"} <= set(found)
    for name, description in found.items():
        assert get_target(name).description == description
        if description.family == "cortex-m":
            assert description.emulator_machine
            assert description.flash_bytes > 0
            assert description.ram_bytes > 0
            # A float ABI of the compiler other than LLVM's fails at link only.
            hard = description.tvm.get("mfloat-abi") == "hard"
            assert hard == any("float-abi=hard" in flag for flag in description.compiler_flags)
        if description.family == "cortex-a":
            assert description.emulator_cpu


def test_an_unknown_target_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="no target 'cortex-m44'; did you mean cortex-m4?"):
        get_target("cortex-m44")
    with pytest.raises(UserError, match="choose one of .*cortex-a72.*x86"):
        get_target("zzz")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "not valid TOML"),
        ('name = "a"', "faulty at 'title'"),
        ('name = "a"\ntitle = "A"\nfamily = "avr"\ncore = "a"\ntvm = {kind = "llvm"}', "faulty at 'family'"),
        ('name = "a"\ntitle = "A"\nfamily = "x86"\ncore = "a"\ntvm = {kind = "llvm"}\nspeed = 3', "faulty at 'speed'"),
    ],
)
def test_a_faulty_description_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_description(path)


def test_a_missing_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        get_target(tmp_path / "none.toml")


def test_names_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "./mine", "../descriptions/x86", str(tmp_path / "mine"), "cortex-m4/", "", "x86\0"):
        with pytest.raises(UserError, match="there is no target"):
            get_target(name)


_M4 = (Path(get_target.__code__.co_filename).parent / "descriptions" / "cortex-m4.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "cortex-m4"', 'name = "../../x"', "'name'"),
        ('name = "cortex-m4"', 'name = ".hidden"', "'name'"),
        ('name = "cortex-m4"', 'name = "a\\nb"', "'name'"),
        ('name = "cortex-m4"', 'name = "report.json"', "no name for a target"),
        ("ram_bytes = 262144", "ram_bytes = 0", "'ram_bytes': a board has some"),
        ("ram_bytes = 262144", "ram_bytes = -1", "'ram_bytes'"),
        ("ram_bytes = 262144", 'ram_bytes = "64K"', "'ram_bytes'"),
        ("ram_bytes = 262144", "ram_bytes = 1e6", "'ram_bytes'"),
        ("flash_bytes = 1048576", "flash_bytes = 99999999999", "'flash_bytes'"),
        ("flash_origin = 0x08000000", "flash_origin = 0xffffffff", "reach beyond 4 GB"),
        ("clock_mhz = 120", "clock_mhz = 0", "'clock_mhz'"),
        ("channel_multiple = 4", "channel_multiple = 0", "'channel_multiple'"),
        ('core = "cortex-m4"', 'core = "cortex-m9"', "there is no cortex-m9"),
        ("helium = false", "helium = true", "'helium': a cortex-m4 has none"),
        ("dsp = true", "dsp = false", "'dsp': a cortex-m4 always has"),
        ('"-mfloat-abi=hard", ', "", "goes with mfloat-abi"),
        ("fpu = true", "fpu = false", "goes with mfloat-abi"),
        ('mcpu = "cortex-m4"', 'mcpu = "cortex-m55"', "that a cortex-m4 lacks"),
        ('mcpu = "cortex-m4"', 'mcpu = "pentium"', "that a cortex-m4 lacks, or is none"),
        ("thumbv7em-none-eabihf", "x86_64-linux-gnu", "mtriple"),
        ('kind = "llvm"', 'kind = "nothing"', "TVM knows no such target"),
        ('"-mcpu=cortex-m4"', '"-fplugin=evil.so"', "'compiler_flags.0'"),
        ('"-mcpu=cortex-m4"', '"-mcpu=x;rm"', "'compiler_flags.0'"),
        ('"-mcpu=cortex-m4"', '"-o/etc/passwd"', "'compiler_flags.0'"),
        ("mps2-an386", "none", "there is no none"),
        ("mps2-an386", "mps2-an385", "lacks instructions"),
    ],
)
def test_what_no_board_can_be_is_refused_before_anything_runs(old: str, new: str, words: str, tmp_path: Path) -> None:
    assert old in _M4
    path = tmp_path / "mine.toml"
    path.write_text(_M4.replace(old, new))
    with pytest.raises(UserError, match=words):
        get_target(path)


def test_a_cortex_a_is_checked_too(tmp_path: Path) -> None:
    text = (Path(get_target.__code__.co_filename).parent / "descriptions" / "cortex-a72.toml").read_text()
    path = tmp_path / "mine.toml"
    for old, new, words in (
        ('core = "cortex-a72"', 'core = "cortex-m4"', "there is no cortex-m4"),
        ('emulator_cpu = "cortex-a72"', 'emulator_cpu = "cortex-a99"', "there is no cortex-a99"),
        ("aarch64-linux-gnu", "thumbv7m-none-eabi", "'tvm'"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=words):
            get_target(path)


@pytest.mark.parametrize("data", [b"\xff", b"[" * 100000, b"a = 1\na = 2"])
def test_a_file_that_is_no_toml(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(data)
    with pytest.raises(UserError, match="not valid TOML"):
        read_description(path)
