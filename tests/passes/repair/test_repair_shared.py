"""Repairs on trained networks: the float result stays, and four bits are enough for the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tvmcompress.passes import EqualizeLayers
from tvmcompress.passes.graph.interpreter import run

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("name", ["ic_resnet8_fp32", "kws_dscnn_fp32", "vww_mobilenetv1_025_96_fp32", "cifar_resnet20_fp32"])
def test_equalized_networks_compute_the_same(shared: Path, name: str) -> None:
    model = tvmcompress.load(shared / "models" / f"{name}.onnx")
    x = np.random.default_rng(0).random((4, *model.inputs[0].shape[1:])).astype(np.float32)
    before, after = run(model.module, [x])[0], run(EqualizeLayers()(model.module), [x])[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * max(np.abs(before).max(), 1.0))


def test_four_bits_for_the_weights_of_a_keyword_model(shared: Path) -> None:
    """Repaired by default, int4 weights answer as the float model does; without repair they do not."""
    model = tvmcompress.load(shared / "models" / "kws_dscnn_fp32.onnx")
    file = np.load(shared / "data" / "kws01_dev500.npz")
    x, order = file["x_float"].transpose(0, 3, 1, 2).astype(np.float32), np.random.default_rng(0).permutation(500)
    wanted = model.run(x[order[200:]])[0]
    noise = {}
    for repair in (None, ()):
        made = tvmcompress.compress(model, x[order[:200]], quantize={"precision": "int4", "repair": repair}).model
        got = made.run(x[order[200:]])[0]
        noise[repair] = float(np.square(got - wanted).sum())
        if repair is None:
            assert (got.argmax(-1) == wanted.argmax(-1)).mean() > 0.97
    assert noise[None] < 0.3 * noise[()]
