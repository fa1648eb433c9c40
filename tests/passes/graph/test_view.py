"""The view of `main` by variable."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.view import GraphView


@pytest.fixture
def view() -> GraphView:
    shapes = {"x": (2, 3), "w": (3, 3), "b": (3,)}
    x, w, b = (relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items())
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w, b], attrs={"num_input": 1}):
        with builder.dataflow():
            product = builder.emit(relax.op.matmul(x, w), "product")
            added = builder.emit(relax.op.add(product, b), "added")
            doubled = builder.emit(relax.op.add(added, added), "doubled")
            scaled = builder.emit(relax.op.multiply(doubled, b), "scaled")
            result = builder.emit_output(scaled, "result")
        builder.emit_func_output(result)
    return GraphView(attach_params(builder.get(), {"w": np.eye(3, dtype="float32"), "b": np.ones(3, "float32")}))


def test_what_is_bound_and_read(view: GraphView) -> None:
    names = {var.name: var for var in [*view.main.params, *view.values]}
    assert [var.name for var in view.values] == ["product", "added", "doubled", "scaled", "result"]
    assert {var.name: value.shape for var, value in view.params.items()} == {"w": (3, 3), "b": (3,)}
    assert view.call(names["product"]).op.name == "relax.matmul"
    # An input, another name, and no variable at all.
    assert [view.call(expr) for expr in (names["x"], names["result"], relax.const(1.0))] == [None] * 3
    # `added` is read twice by one call, `b` by two; `result` is what main returns.
    alone = {name: view.is_alone(var) for name, var in names.items()}
    assert {name for name, found in alone.items() if not found} == {"added", "b"}
    assert not view.is_alone(relax.const(1.0))


def test_the_sole_reader(view: GraphView) -> None:
    names = {var.name: var for var in [*view.main.params, *view.values]}
    found = {name: view.sole_reader(var) for name, var in names.items()}
    readers = {name: reader[0].name for name, reader in found.items() if reader}
    assert readers == {"x": "product", "w": "product", "product": "added", "doubled": "scaled"}
    assert found["doubled"][1].op.name == "relax.multiply"


def test_without_values_of_parameters(view: GraphView) -> None:
    bare = GraphView(view.mod.without_attr("tvmcompress.params"))
    assert len(bare.values) == 5
    with pytest.raises(ValueError, match="no parameter values"):
        bare.params  # noqa: B018
