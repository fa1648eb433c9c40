"""DecodeWeights: stored weights become plain ones, nothing else changes."""

from __future__ import annotations

import numpy as np

from tvmcompress.passes import Quantize, get_params
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.decode_weights import DecodeWeights
from tvmcompress.passes.graph.interpreter import run

from ..small_models import model, operators, samples, weights

SHAPE = (1, 3, 6, 6)
_PARAMS = weights(c__weight=(4, 3, 3, 3))


def test_float16_becomes_float32_unless_it_is_to_stay() -> None:
    mod = model(lambda x, p: relax.op.nn.conv2d(x, p["c.weight"]), SHAPE, params=_PARAMS)
    halved = Quantize({}, precision="float16")(mod)
    decoded = DecodeWeights()(halved)
    assert operators(decoded) == ["nn.conv2d"]
    np.testing.assert_array_equal(get_params(decoded)["c.weight"], _PARAMS["c.weight"].astype(np.float16).astype(np.float32))
    (x,) = samples(SHAPE)
    np.testing.assert_array_equal(run(decoded, [x])[0], run(halved, [x])[0])
    assert operators(DecodeWeights(["int4"])(halved)) == ["astype", "nn.conv2d"]
