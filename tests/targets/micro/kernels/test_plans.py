"""Which kernel, and which of its forms, a layer of a size gets."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tvmcompress.targets.kernels.decisions import by_default
from tvmcompress.targets.micro.kernels import dense, legalize
from tvmcompress.targets.micro.kernels.epilogue import Epilogue
from tvmcompress.targets.micro.kernels.formula import Formula
from tvmcompress.targets.micro.kernels.helium_conv import HeliumKernel
from tvmcompress.targets.micro.kernels.helium_conv_shape import HeliumConvolution, HeliumPlan
from tvmcompress.targets.micro.kernels.helium_depthwise import HeliumDepthwise
from tvmcompress.targets.micro.kernels.helium_epilogue import HeliumEpilogue
from tvmcompress.targets.micro.kernels.panel import Convolution, PanelConvolution
from tvmcompress.targets.micro.kernels.plans import plan_convolution


@pytest.mark.parametrize(
    ("height", "width", "strides", "source"),
    [(8, 4, (4, 1), "direct"), (4, 8, (4, 1), "image"), (4, 8, (1, 4), "image"), (5, 8, (4, 1), "direct")],
)
def test_only_pixels_of_the_input_are_read_where_they_lie(
    height: int, width: int, strides: tuple[int, int], source: str
) -> None:
    """Padding behind the last row or column is none of them."""
    out = (2, 4) if strides[0] > 1 else (4, 3)
    plan = plan_convolution(Convolution(height, width, 8, *out, 8, (1, 1), strides, 0, 0, 0, Epilogue("double", 0)))
    assert plan is not None
    assert plan.source == source


@pytest.mark.parametrize(("inputs", "unpacked"), [(4, True), (124, True), (128, True), (132, False), (512, False)])
def test_small_inputs_of_dense_layers_are_unpacked_once(inputs: int, unpacked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layers: list[Any] = []
    monkeypatch.setattr(legalize.dense, "dense", layers.append)
    monkeypatch.setattr(legalize, "epilogue_of", lambda call: Epilogue("double", 0))
    monkeypatch.setattr(legalize, "Kernel", lambda *args: args)
    scale = np.full(3, 1 << 30, np.int32), np.full(3, -4, np.int32)
    call, values = SimpleNamespace(args=[None, None]), (np.ones((3, inputs), np.int8), np.zeros(3, np.int32), *scale)
    legalize._fully_connected(call, *values, Formula(), by_default)
    assert [layer.unpacked for layer in layers] == [unpacked]


@pytest.mark.parametrize(("kernel", "stride", "rows", "expected"), [(3, 1, 1, 3), (3, 2, 4, 9), (5, 1, 2, 6)])
def test_a_band_holds_the_rows_that_it_is_made_of(kernel: int, stride: int, rows: int, expected: int) -> None:
    sizes = (16, 16, 16, 16 // stride, 16 // stride, 16, (kernel, kernel), (stride, stride), kernel // 2, kernel // 2, 0)
    layer = HeliumDepthwise(*sizes, HeliumEpilogue("double", 0), (), rows)
    assert (layer.band.rows, layer.band.step) == (expected, rows * stride)


@pytest.mark.parametrize(("channels", "staged"), [(16, True), (64, True), (80, False)])
def test_pixels_are_staged_while_two_fit_the_stack(channels: int, staged: bool) -> None:
    sizes = (4, 4, channels, 4, 4, channels, (1, 1), (1, 1), 0, 0, 0)
    kernel = HeliumKernel(HeliumConvolution(*sizes, HeliumEpilogue("double", 0)), HeliumPlan("direct", 4, 1, 8))
    assert kernel.chunks == 1
    assert kernel.staged == staged
    assert kernel.inplace == staged


@pytest.mark.parametrize(("channels", "words"), [(8, 2 * 2), (16, 4 * 2)])
def test_a_panel_takes_no_more_of_the_stack_than_its_words(channels: int, words: int) -> None:
    conv = Convolution(4, 4, channels, 4, 4, 8, (1, 1), (1, 1), 0, 0, 0, Epilogue("double", 0))
    plan = plan_convolution(conv)
    assert plan is not None
    assert (plan.source, plan.pixels) == ("direct", 2)
    text = PanelConvolution(conv, plan).function().script()
    assert re.findall(r"panel = T\.alloc_buffer\(\((\d+),\)", text) == [str(2 + 2 * words)]


@pytest.mark.parametrize("inputs", [8, 128, 4096])
def test_small_inputs_of_dense_layers_are_unpacked_on_the_stack(inputs: int) -> None:
    layer = dense.Dense(inputs, 4, Epilogue("double", 0), 2, 2, inputs < 4096, False, False)
    assert dict(dense.dense(layer).attrs["tvmcompress.workspaces"]) == {"": 0}
    wide = dense.Dense(1024, 4, Epilogue("double", 0), 2, 2, True, False, False)
    assert dict(dense.dense(wide).attrs["tvmcompress.workspaces"]) == {"unpacked": 2 * 1024 + 4 * 2}
