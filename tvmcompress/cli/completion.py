"""What the shell completes: targets, model files, layers. It must be quick, so TVM is loaded for layers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SUFFIXES = (".onnx", ".tflite", ".pt2", ".tvmc")


def targets(incomplete: str) -> list[tuple[str, str]]:
    """Targets with what they are, read from their descriptions."""
    import tomllib
    from importlib.util import find_spec

    spec = find_spec("tvmcompress.targets")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    found = []
    for place in sorted(path for root in places for path in (Path(root) / "descriptions").glob("*.toml")):
        described = tomllib.loads(place.read_text(encoding="utf-8"))
        if described["name"].startswith(incomplete):
            found.append((described["name"], described["title"]))
    return found


def models(incomplete: str) -> list[str]:
    """Files that hold models, and folders on the way to some."""
    given = Path(incomplete)
    folder = given if incomplete.endswith("/") or not incomplete else given.parent
    start = "" if incomplete.endswith("/") or not incomplete else given.name
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    found = []
    for path in entries:
        hidden = path.name.startswith(".") and not start.startswith(".")
        if hidden or not path.name.startswith(start):
            continue
        if path.is_dir():
            found.append(f"{path}/")
        elif path.suffix in SUFFIXES:
            found.append(str(path))
    return found


def layers(ctx: Any, incomplete: str) -> list[str]:
    """Layers of the model that stands on the command line before."""
    words = [ctx.params.get("model"), *(ctx.params.get("models") or ()), *ctx.args]
    given = next((word for word in words if word and str(word).endswith(SUFFIXES) and Path(word).is_file()), None)
    if given is None:
        return []
    from ..errors import UserError
    from ..importing import load
    from ..passes.graph.analysis import layers as of
    from .quiet import quiet

    try:
        with quiet():
            names = [layer.name for layer in of(load(Path(given)).module)]
    except UserError:
        return []
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
