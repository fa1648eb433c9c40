"""What the pages show works: commands are parsed by the command line, marked blocks run as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import PAGES, ROOT, Block, all_blocks, parse
from tests.tvmcompress.cli.running import run
from tvmcompress import Recipe

BLOCKS = all_blocks()
SHOWN = [
    (block.page, command)
    for block in BLOCKS
    for command in block.commands
    # The page made from the command line shows usages, not commands.
    if command.startswith("tvmcompress ") and block.page != "docs/command-line.md"
]
RUN = [block for block in BLOCKS if block.needs is not None and not block.page.startswith("examples/")]


@pytest.mark.parametrize("page", sorted({page for page, _ in SHOWN}))
def test_commands_have_the_options_that_are_shown(page: str) -> None:
    for where, command in SHOWN:
        if where == page:
            parse(command)


def test_commands_within_sentences_have_the_options_that_are_shown() -> None:
    wrong = []
    for page in PAGES:
        for command in re.findall(r"`(tvmcompress [^`]*)`", page.read_text()):
            if "..." in command or command.split()[1].isupper():
                continue
            try:
                parse(command)
            except Exception as error:
                # A command is named without its arguments; what is shown of it must be right.
                if "missing" not in str(error).lower() and "Missing" not in type(error).__name__:
                    wrong.append(f"{page.name}: {command}: {error}")
    assert not wrong


@pytest.mark.parametrize("page", sorted({block.page for block in RUN}))
def test_marked_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a page one after the other, in one folder."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    for block in RUN:
        if block.page != page:
            continue
        block.skip_unless_it_can_run()
        if block.language == "python":
            exec(compile(block.text, block.page, "exec"), {})
            continue
        for command in block.commands:
            # Emulators have tests of their own; here they would take most of the time.
            ran = run(*shlex.split(re.sub(r" --target cortex-\w+", "", command))[1:])
            assert ran.code == 0, (command, ran.err)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "toml" and "[[steps]]" in b.text], ids=lambda b: b.page)
def test_recipes_can_be_read(block: Block, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(block.text)
    assert Recipe.load(tmp_path / "recipe.toml").steps


def test_the_site_is_built_without_anything_from_elsewhere(tmp_path: Path) -> None:
    """Strict: every link leads somewhere. Offline: no script, style, font or picture of another server."""
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*?src=[\"']?(https?:)?//", text)
        loaded += re.findall(r"<link[^>]*?rel=[\"']?(?:stylesheet|preconnect|icon)[^>]*?href=[\"']?(https?:)//", text)
        assert not loaded, page
    assert "docs/" not in re.findall(r'href="([^"#]*)"', (tmp_path / "index.html").read_text())
    assert {path.stem for path in (tmp_path / "stories").glob("*.html")} == {
        "index",
        *(path.parent.name for path in (ROOT / "examples").glob("*/README.md")),
    }


def test_every_result_is_listed() -> None:
    listed = (ROOT / "benchmarks" / "README.md").read_text()
    for page in (ROOT / "benchmarks").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in listed, f"benchmarks/README.md does not list {page.name}"
    for script in re.findall(r"`python (benchmarks/\w+\.py)", listed):
        assert (ROOT / script).exists()


def test_every_story_is_listed() -> None:
    listed = (ROOT / "examples" / "README.md").read_text()
    for page in (ROOT / "examples").glob("*/README.md"):
        assert f"({page.parent.name}/README.md)" in listed
