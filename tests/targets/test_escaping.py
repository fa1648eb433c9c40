"""Whatever a name holds, it stays text: in C, in CMake and in paths."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2 import Template

from tvmcompress.targets.escaping import comment, file_name, file_names, identifiers, string

NAMES = [
    "model/conv2d/Conv2D/ReadVariableOp:0", "*/ int evil(void); /*", "a\nb", "a\\", "??/", '"; system("x"); "', "${X}", "$(rm)",
    "\u202e\u2066x", "1 2", "", "int", "..", "../../x", "-o", "\x00", "\x7f\u0085\u2028", "\U0010ffff", "a_b", "a/b", "_a_b_",
]  # fmt: skip

# In C source, and compared with the bytes that they should be. No identifier ends with an underscore.
_PROGRAM = Template(r"""
#include <string.h>
{% for text in texts %}
/* {{ comment(text) }} */ static const char s{{ loop.index0 }}_[] = "{{ string(text) }}"; /* {{ comment(text) }} */
static const unsigned char b{{ loop.index0 }}_[] = { {% for byte in text.encode() %}{{ byte }}, {% endfor %}0 };
{%- endfor %}
{% for name in identifiers(texts).values() %}int {{ name }} = 0;
{% endfor %}
int main(void) {
{%- for text in texts %}
  if (sizeof s{{ loop.index0 }}_ != sizeof b{{ loop.index0 }}_ || memcmp(s{{ loop.index0 }}_, b{{ loop.index0 }}_, sizeof s{{ loop.index0 }}_)) return 1;
{%- endfor %}
  return 0;
}
""")  # noqa: E501


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=200), min_size=10, max_size=60, unique=True))
@example(NAMES)
@example(["b0", "s1", "", "3", "4", "5", "6", "7", "8", "9"])
@example(["", "0", "1", "2", "3", "00", "000", "sin", "log2", "fmaxf", "memcpy", "printf"])
def test_names_stay_text_in_c(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("c")
    source = _PROGRAM.render(texts=texts, comment=comment, string=string, identifiers=identifiers)
    (folder / "names.c").write_text(source, encoding="ascii")
    command = [
        "gcc",
        "-std=c99",
        "-pedantic",
        "-Wall",
        "-Wextra",
        "-Wno-overlength-strings",
        "-Werror",
        "names.c",
        "-o",
        "names",
    ]
    subprocess.run(command, cwd=folder, check=True)
    subprocess.run([folder / "names"], check=True)


@pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")
def test_comments_stay_comments_in_cmake(tmp_path: Path) -> None:
    lines = "".join(f"# for {comment(name)} and so on\n" for name in [*NAMES, "]]", "[[x", "#[[", 'message(FATAL_ERROR "x")'])
    (tmp_path / "names.cmake").write_text(lines)
    done = subprocess.run(["cmake", "-P", tmp_path / "names.cmake"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@given(st.lists(st.text()))
@example(NAMES)
def test_identifiers_are_no_two_the_same(names: list[str]) -> None:
    found = identifiers(names)
    assert set(found) == set(names)
    assert len(set(found.values())) == len(found)
    assert all(name.isascii() and name.isidentifier() and name[0] != "_" for name in found.values())


@given(st.lists(st.text()))
@example(NAMES)
def test_file_names_stay_in_their_folder(names: list[str]) -> None:
    found = file_names(names)
    assert len({name.lower() for name in found.values()}) == len(set(names))
    for name in found.values():
        assert name == os.path.basename(name)
        assert name[:1] not in (".", "-", "")
        assert len(name) < 120
        assert not set(name) & set("\0\n /\\$;:*?\"'<>|()[]{}&!~`#%=,")


def test_plain_names_stay_as_they_are() -> None:
    assert identifiers(["conv1", "res1.weight"]) == {"conv1": "conv1", "res1.weight": "res1_weight"}
    assert file_name("cortex-m4") == "cortex-m4"
    assert file_name("resnet8_int8.v2") == "resnet8_int8.v2"
    assert comment("block1/conv (3x3)") == "block1/conv (3x3)"
    assert string("image:0") == "image:0"
