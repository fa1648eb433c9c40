"""Numerical schemes as ONNX: ONNX Runtime decides as our integers do."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import tvmcompress
from tvmcompress.importing import from_onnx
from tvmcompress.passes import LowerQDQ

from .test_onnx_models import checked, digits, first_outputs

_ACTIVATIONS = {"uint8": TensorProto.UINT8, "int4": TensorProto.INT8, "int16x8": TensorProto.INT16}


@pytest.mark.parametrize("precision", ["uint8", "int4", "int16x8", "float16"])
def test_same_decisions(precision: str) -> None:
    model, calibration, images = digits()
    table = {"precision": precision, "group_size": 8 if precision == "int4" else 0}
    result = tvmcompress.compress(model, [calibration], quantize=table)
    assert result.qdq_model is not None
    proto = checked(result.qdq_model)
    theirs = first_outputs(proto, images[:200])
    ours = result.model.run(images[:200])[0]
    flips = int((theirs.argmax(1) != ours.argmax(1)).sum())
    assert flips <= 1  # float and integer requantization may round a tie apart
    # Sums in another order put a few values on the other side of a half, which is a step of the output.
    apart = np.abs(theirs - result.qdq_model.run(images[:200])[0])
    assert (apart > 2 / 256).mean() <= 0.002
    assert apart.max() <= 0.04
    if precision in _ACTIVATIONS:
        zeros = [node.input[2] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
        types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
        assert {types[name] for name in zeros} == {_ACTIVATIONS[precision]}
    else:
        assert _bytes(proto) < 0.56 * _bytes(checked(model))


def _bytes(proto: onnx.ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer)


@pytest.mark.parametrize("precision", ["uint8", "int4", "int16x8"])
def test_what_comes_back_computes_the_same(precision: str) -> None:
    model, calibration, images = digits()
    result = tvmcompress.compress(model, [calibration], quantize=precision)
    assert result.qdq_model is not None
    again = from_onnx(checked(result.qdq_model)).apply(LowerQDQ())
    np.testing.assert_array_equal(again.run(images[:60])[0], result.model.run(images[:60])[0])
