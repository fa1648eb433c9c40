"""What MkDocs is told beside mkdocs.yml: the pages that stand elsewhere, and links that lead out of docs/.

The stories (README.md of the folders of examples/) and the results (benchmarks/*.md) become pages of the site, in the order
of their names, so that each is written once. In the repository links between files are relative and may lead anywhere; on
the site those to pages lead to the pages, pictures come along, and what is no page becomes its path.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]*)(#[^)\s]*)?\)")


def pages_elsewhere() -> dict[str, str]:
    """Paths in the repository of what becomes a page or a picture, and where on the site."""
    pages = {"examples/README.md": "stories/index.md", "benchmarks/README.md": "results/index.md"}
    for path in sorted((ROOT / "examples").glob("*/README.md")):
        pages[f"examples/{path.parent.name}/README.md"] = f"stories/{path.parent.name}.md"
    for path in sorted((ROOT / "benchmarks").iterdir()):
        if path.suffix in (".md", ".png", ".svg") and path.name != "README.md":
            pages[f"benchmarks/{path.name}"] = f"results/{path.name}"
    return {where: page for where, page in pages.items() if (ROOT / where).exists()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """In the navigation a folder that ends with `/` stands for its pages; pages that it leaves out come behind the tasks."""
    named = set(re.findall(r"[\w/-]+\.md", str(config.nav)))
    tasks = next(entry["By task"] for entry in config.nav or [] if isinstance(entry, dict) and "By task" in entry)
    here = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
    tasks.extend(page for page in here if page not in named)
    for entry in config.nav or []:
        if isinstance(entry, dict):
            for title, target in entry.items():
                if isinstance(target, str) and target.endswith("/"):
                    found = [page for page in pages_elsewhere().values() if page.startswith(target) and page.endswith(".md")]
                    entry[title] = sorted(found, key=lambda page: (not page.endswith("/index.md"), page))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand elsewhere."""
    for where, page in pages_elsewhere().items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / where)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    site = pages_elsewhere()
    on_site = page.file.src_uri
    in_repository = next((where for where, target in site.items() if target == on_site), f"docs/{on_site}")

    def link(match: re.Match[str]) -> str:
        picture, text, target, anchor = match.groups()
        if not target:
            return match.group(0)
        path = os.path.normpath(os.path.join(os.path.dirname(in_repository), target))
        if (ROOT / path).is_dir() and (ROOT / path / "README.md").exists():
            path += "/README.md"
        place = site.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if place is not None:
            return f"{picture}[{text}]({os.path.relpath(place, os.path.dirname(on_site) or '.')}{anchor or ''})"
        if not (ROOT / path).exists():
            return match.group(0)  # which MkDocs then complains of
        return f"`{path}`" if os.path.basename(path) in text.strip("`") or text.strip("`") == path else f"{text} (`{path}`)"

    outside = re.split(r"(```.*?```)", markdown, flags=re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in outside)
