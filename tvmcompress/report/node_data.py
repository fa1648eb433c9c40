"""Figures of layers as node data of Model Explorer: load model.onnx there, then one of these files on top.

Each file holds one figure, as Model Explorer's "custom node data" of a single graph: values by the names of output tensors,
which model.onnx has from the layers, and a gradient of colors.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..measuring.record import BuildRecord
from .record import ModelRecord

_MUCH = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#d55e00"}]
_LITTLE = [{"stop": 0, "bgColor": "#d55e00"}, {"stop": 1, "bgColor": "#ffffff"}]
_EXACT_DB = 120.0
"""What stands for an infinite ratio: the format has finite numbers alone."""


def node_data(model: ModelRecord, builds: tuple[BuildRecord, ...] = ()) -> dict[str, dict[str, Any]]:
    """The content of each file by its name, without the suffix: macs, bytes, snr_db, instructions-TARGET.

    Args:
        model: Whose layers are shown.
        builds: Of that model.
    """
    found = {
        "macs": _data({layer.name: layer.macs for layer in model.figures if layer.macs}, _MUCH),
        "bytes": _data({layer.name: layer.param_bytes for layer in model.figures if layer.param_bytes}, _MUCH),
        "snr_db": _data({n.name: _EXACT_DB if math.isinf(n.snr_db) else n.snr_db for n in model.layers}, _LITTLE),
    }
    for build in builds:
        if build.measurement is not None:
            found[f"instructions-{build.target}"] = _data(build.measurement.layers, _MUCH)
    return {name: data for name, data in found.items() if data["results"]}


def save_node_data(model: ModelRecord, builds: tuple[BuildRecord, ...], folder: Path) -> None:
    """Write the files into a folder, which is made."""
    folder.mkdir()
    for name, data in node_data(model, builds).items():
        (folder / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _data(values: dict[str, Any], gradient: list[dict[str, Any]]) -> dict[str, Any]:
    return {"results": {name: {"value": value} for name, value in values.items()}, "gradient": gradient}
