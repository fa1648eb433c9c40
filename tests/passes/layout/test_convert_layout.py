"""NCHW to NHWC: the same values, and permutations only at the ends."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import ConvertLayout, Quantize, calibrate, get_params
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run

from ..small_models import model, operators, samples, weights

op = relax.op
SHAPE = (1, 4, 6, 8)


def _conv(x: relax.Expr, p: dict, name: str = "c", **options: object) -> relax.Expr:
    return op.add(op.nn.conv2d(x, p[f"{name}.weight"], padding=1, **options), p[f"{name}.bias"])


_PARAMS = weights(c__weight=(4, 4, 3, 3), c__bias=(1, 4, 1, 1), d__weight=(192, 5), e__weight=(96, 5))
CASES = {
    "conv": lambda x, p: _conv(x, p),
    "strided": lambda x, p: _conv(x, p, strides=2),
    "chain": lambda x, p: _conv(op.nn.relu(_conv(x, p)), p),
    "residual": lambda x, p: op.nn.relu(op.add(_conv(x, p), x)),
    "pool": lambda x, p: op.nn.max_pool2d(_conv(x, p), (2, 2), (2, 2)),
    "average": lambda x, p: op.nn.avg_pool2d(_conv(x, p), (3, 2), (1, 2), (1, 0, 1, 0)),
    "mean": lambda x, p: op.mean(_conv(x, p), [2, 3], keepdims=True),
    "mean of channels": lambda x, p: op.mean(_conv(x, p), [1], keepdims=True),
    "mean without axes": lambda x, p: op.mean(_conv(x, p), [2, 3], keepdims=False),
    "mean along a row": lambda x, p: op.mean(_conv(x, p), [3], keepdims=False),
    "concat": lambda x, p: op.concat([_conv(x, p), x, _conv(x, p)], 1),
    "concat of rows": lambda x, p: op.concat([_conv(x, p), x], 2),
    "split": lambda x, p: relax.TupleGetItem(op.split(_conv(x, p), 2, 1), 1),
    "slice": lambda x, p: op.strided_slice(_conv(x, p), [1, 3], [1, 0], [4, 8], [1, 3]),
    "pad": lambda x, p: op.nn.pad(_conv(x, p), (0, 0, 1, 0, 2, 3, 0, 1)),
    "resize": lambda x, p: op.image.resize2d(_conv(x, p), (12, 16), layout="NCHW", method="nearest_neighbor"),
    "softmax": lambda x, p: op.nn.softmax(_conv(x, p), 1),
    "shuffle": lambda x, p: op.reshape(
        op.permute_dims(op.reshape(_conv(x, p), (1, 2, 2, 6, 8)), [0, 2, 1, 3, 4]), (1, 4, 6, 8)
    ),
    "channels last": lambda x, p: op.permute_dims(_conv(x, p), [0, 2, 3, 1]),
    "rotate": lambda x, p: op.permute_dims(_conv(x, p), [0, 1, 3, 2]),
    "flatten": lambda x, p: op.reshape(_conv(x, p), (1, 192)),
    "dense": lambda x, p: op.matmul(op.nn.relu(op.reshape(_conv(x, p), (1, 192))), p["d.weight"]),
    "last axis": lambda x, p: op.add(_conv(x, p), relax.const(np.arange(8, dtype=np.float32))),
    "scale": lambda x, p: op.multiply(_conv(x, p), p["c.bias"]),
}


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_same_values(name: str, quantized: bool) -> None:
    mod = model(CASES[name], SHAPE, params=_PARAMS)
    inputs = samples(SHAPE, count=3)
    if quantized:
        mod = Quantize(calibrate(mod, [inputs]))(mod)
    converted = ConvertLayout()(mod)
    for expected, found in zip(run(mod, inputs), run(converted, inputs)):
        # Sums are taken in another order, which may tip a rounding.
        step = np.abs(expected).max() / 100 if quantized else 1e-5
        np.testing.assert_allclose(found, expected, atol=step)
    # No image is turned round between two convolutions.
    assert operators(converted).count("permute_dims") <= (4 if name in ("shuffle", "rotate", "last axis") else 3)


def test_permutations_stand_at_the_ends_only() -> None:
    mod = model(CASES["chain"], SHAPE, params=_PARAMS)
    names = [name.removeprefix("nn.") for name in operators(ConvertLayout()(mod))]
    assert names == ["permute_dims", "conv2d", "add", "relu", "conv2d", "add", "permute_dims"]


def test_integers_are_permuted_not_floats() -> None:
    mod = model(CASES["conv"], SHAPE, params=_PARAMS)
    converted = ConvertLayout()(Quantize(calibrate(mod, [samples(SHAPE)]))(mod))
    names = operators(converted)
    assert names[:3] == ["quantize", "permute_dims", "dequantize"]
    assert names[-3:] == ["quantize", "permute_dims", "dequantize"]


def test_rows_of_the_weight_move_instead_of_the_flattened_image() -> None:
    mod = model(CASES["dense"], SHAPE, params=_PARAMS)
    converted = ConvertLayout()(mod)
    assert operators(converted).count("permute_dims") == 1
    expected = _PARAMS["d.weight"].reshape(4, 6, 8, 5).transpose(1, 2, 0, 3).reshape(192, 5)
    np.testing.assert_array_equal(get_params(converted)["d.weight"], expected)
    np.testing.assert_array_equal(get_params(converted)["c.weight"], _PARAMS["c.weight"].transpose(0, 2, 3, 1))


def test_a_parameter_with_two_readers_keeps_both_values() -> None:
    """A bias that is added to an image and, reshaped, used elsewhere."""

    def build(x: relax.Expr, p: dict) -> relax.Expr:
        image = _conv(x, p)
        return relax.Tuple([image, op.multiply(x, p["c.bias"])])

    mod = model(build, SHAPE, params=_PARAMS)
    inputs = samples(SHAPE, count=2)
    for expected, found in zip(run(mod, inputs), run(ConvertLayout()(mod), inputs)):
        np.testing.assert_allclose(found, expected, atol=1e-5)
