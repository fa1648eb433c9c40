"""The default repair, where a network mixes samples or moves channels about: it runs to the end, and repairs."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from tvmcompress import Model, compress
from tvmcompress.importing import from_onnx

_FIRST = "a = Conv <pads = [1, 1, 1, 1]> (x, w1) r = Relu (a)"
_LAST = "q = Conv <pads = [1, 1, 1, 1]> (s, w2) r2 = Relu (q)"
_NETS = {
    "GridSample": f"""{_FIRST} g = Conv <pads = [1, 1, 1, 1]> (r, wg) t = Tanh (g) p = Transpose <perm = [0, 2, 3, 1]> (t)
        s = GridSample (r, p) {_LAST} y = Conv (r2, w3)""",
    "permuted head": f"""{_FIRST} s = Identity (r) {_LAST} o = Conv (r2, wo) h = Sigmoid (o) c = Conv (r2, w3)
        p = Transpose <perm = [0, 2, 3, 1]> (c) m = Softmax <axis = -1> (p) k = Transpose <perm = [0, 3, 1, 2]> (m)
        y = Concat <axis = 1> (h, k)""",
    "batch in an axis": f"""{_FIRST} p = Transpose <perm = [1, 0, 2, 3]> (r) m = Reshape (p, flat) e = Relu (m)
        k = Reshape (e, apart) s = Transpose <perm = [1, 0, 2, 3]> (k) {_LAST} y = Conv (r2, w3)""",
}
_SHAPES = {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (8, 16, 1, 1), "wg": (2, 16, 3, 3), "wo": (1, 16, 1, 1)}


def network(kind: str) -> Model:
    rng = np.random.default_rng(0)
    head = '<ir_version: 8, opset_import: ["" : 17]> net (float[1,3,8,8] x) => (float[1,c,8,8] y)'
    proto = onnx.parser.parse_model(head + "{" + _NETS[kind] + "}")
    used = {name for node in proto.graph.node for name in node.input}
    values = {name: rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype("float32") for name, shape in _SHAPES.items()}
    values |= {"flat": np.array([16, 64]), "apart": np.array([16, 1, 8, 8])}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(values[name], name) for name in sorted(values.keys() & used))
    return from_onnx(proto)


@pytest.mark.parametrize("kind", _NETS)
def test_repaired(kind: str) -> None:
    model, x = network(kind), np.random.default_rng(1).standard_normal((48, 3, 8, 8)).astype("float32")
    wanted = model.run(x)[0]
    errors = []
    for options in ({}, {"reconstruct": False}):
        pruned = compress(model, x, prune={"ratio": 0.3, **options}).model
        errors.append(float(np.square(pruned.run(x)[0] - wanted).mean()))
    assert errors[0] < 0.9 * errors[1]
