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
        ('name = "a"\ntitle = "A"\nfamily = "avr"\ncore = "a"\ntvm = {}', "faulty at 'family'"),
        ('name = "a"\ntitle = "A"\nfamily = "x86"\ncore = "a"\ntvm = {}\nspeed = 3', "faulty at 'speed'"),
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
