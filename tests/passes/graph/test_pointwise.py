"""Chains of functions of one value: which calls belong to one, and what it computes."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.module_params import get_params, input_vars, param_vars
from tvmcompress.passes.graph.pointwise import evaluate, pointwise_operands, scalar_value
from tvmcompress.passes.graph.rebuild import bindings

from ..small_models import model

op = relax.op


def test_a_chain_against_numpy() -> None:
    params = {"half": np.full((1,), 0.5, np.float32)}
    mod = model(
        lambda x, p: op.multiply(op.tanh(op.add(op.multiply(x, p["half"]), relax.const(np.float32(1)))), x),
        (2, 3),
        params=params,
    )
    main = mod["main"]
    values = dict(bindings(main))
    known = dict(zip(param_vars(main), get_params(mod).values()))
    x = np.linspace(-3, 3, 7, dtype=np.float32)
    found = evaluate(main.body.body, input_vars(main)[0], x, values.get, known)
    np.testing.assert_allclose(found, np.tanh(x * np.float32(0.5) + 1) * x, rtol=1e-6)
    with pytest.raises(ValueError, match="no function of x0 alone"):
        evaluate(relax.Var("y", relax.TensorType((2, 3), "float32")), input_vars(main)[0], x, values.get, known)


def test_operands() -> None:
    x, y = (relax.Var(name, relax.TensorType((2, 3), "float32")) for name in "xy")
    row = relax.Var("row", relax.TensorType((3,), "float32"))
    params = {row: np.ones(3, np.float32)}

    def operands(expr: relax.Expr) -> list[relax.Expr] | None:
        return pointwise_operands(relax.BlockBuilder().normalize(expr), params)

    assert operands(op.exp(x)) == [x]
    assert operands(op.add(x, y)) == [x, y]
    assert operands(op.add(x, relax.const(np.float32(2)))) == [x]
    assert operands(op.astype(x, "bool")) == [x]
    assert operands(op.astype(x, "int8")) is None
    assert operands(op.add(x, row)) is None
    assert operands(op.nn.softmax(x)) is None
    assert pointwise_operands(x, params) is None


def test_scalars() -> None:
    x = relax.Var("x", relax.TensorType((1,), "float32"))
    assert scalar_value(relax.const(np.array([[3.0]], np.float32)), {}) == 3.0
    assert scalar_value(x, {x: np.array([2.0], np.float32)}) == 2.0
    assert scalar_value(x, {}) is None
    assert scalar_value(relax.const(np.zeros(2, np.float32)), {}) is None
