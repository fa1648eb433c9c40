"""Modules from elsewhere: whichever way the weights stand, passes take them, or say what is missing."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from tvmcompress.passes import Canonicalize, PruneChannels, UserError, attach_params, get_params
from tvmcompress.passes.graph.adopt_module import with_named_params
from tvmcompress.passes.graph.interpreter import run

RNG = np.random.default_rng(0)
VALUES = {
    "w1": RNG.normal(0, 1, (8, 3, 3, 3)).astype("float32"),
    "b1": RNG.normal(0, 1, (1, 8, 1, 1)).astype("float32"),
    "w2": RNG.normal(0, 1, (4, 8, 1, 1)).astype("float32"),
}
IMAGE = RNG.normal(0, 1, (1, 3, 6, 6)).astype("float32")


def network(num_input: int | None = 1, order: tuple[str, ...] = ("x", "w1", "b1", "w2")) -> tvm.IRModule:
    """Two convolutions whose weights are parameters."""
    shapes = {"x": IMAGE.shape, **{name: value.shape for name, value in VALUES.items()}}
    by_name = {name: relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items()}
    builder = relax.BlockBuilder()
    with builder.function("main", [by_name[name] for name in order]):
        with builder.dataflow():
            first = builder.emit(relax.op.nn.conv2d(by_name["x"], by_name["w1"], padding=1))
            biased = builder.emit(relax.op.nn.relu(builder.emit(relax.op.add(first, by_name["b1"]))))
            out = builder.emit_output(relax.op.nn.conv2d(biased, by_name["w2"]))
        builder.emit_func_output(out)
    mod = builder.get()
    if num_input is not None:
        mod["main"] = mod["main"].with_attr("num_input", num_input)
    return mod


def bound() -> tvm.IRModule:
    """The same with constants."""
    return relax.transform.BindParams("main", VALUES)(network(None))


WANTED = run(attach_params(network(), VALUES), [IMAGE])[0]


def check(mod: tvm.IRModule) -> None:
    assert [value.shape for value in get_params(mod).values()] == [value.shape for value in VALUES.values()]
    np.testing.assert_allclose(run(mod, [IMAGE])[0], WANTED, rtol=1e-5, atol=1e-5)


def test_constants_become_named_parameters() -> None:
    mod = with_named_params(bound())
    check(mod)
    assert list(get_params(mod)) == ["conv2d.weight", "add.weight", "conv2d1.weight"]


def test_single_numbers_and_indices_stay_constants() -> None:
    x = relax.Var("x", relax.TensorType((2, 4), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            halved = builder.emit(relax.op.multiply(x, relax.const(np.float32(0.5))))
            out = builder.emit_output(relax.op.take(halved, relax.const(np.array([-1, 0])), 1, mode="fast"))
        builder.emit_func_output(out)
    mod = with_named_params(builder.get())
    assert not get_params(mod)
    # An index that counts from the end would be read out of bounds.
    assert "R.const(-1" not in mod.script()
    value = np.arange(8, dtype="float32").reshape(2, 4)
    np.testing.assert_array_equal(run(mod, [value])[0], value[:, [3, 0]] * 0.5)


def test_values_in_the_attribute_of_tvms_importers() -> None:
    mod = network()
    mod["main"] = mod["main"].with_attr("params", [tvm.runtime.tensor(value) for value in VALUES.values()])
    check(with_named_params(mod))


def test_detached_values_in_order_and_by_name() -> None:
    tensors = [tvm.runtime.tensor(value) for value in VALUES.values()]
    check(with_named_params(network(), {"main": tensors}))
    check(with_named_params(network(), VALUES))


def test_named_weights_among_the_inputs_move_behind_them() -> None:
    mod = with_named_params(network(None, ("w1", "x", "b1", "w2")), VALUES)
    assert [var.name for var in mod["main"].params] == ["x", *VALUES]
    check(mod)


def test_passes_alone_take_constants() -> None:
    mod = tvm.transform.Sequential([Canonicalize(), relax.transform.CanonicalizeBindings(), PruneChannels(0.5)])(bound())
    assert sorted(value.shape for value in get_params(mod).values())[-1] == (4, 4, 1, 1)


def test_what_is_missing_is_said_in_one_sentence() -> None:
    with pytest.raises(UserError, match="main takes 3 weights as parameters .*'w1'.* without values; give them"):
        PruneChannels(0.5)(network())
    with pytest.raises(UserError, match="main has 3 parameters behind its inputs, and 2 values are given"):
        with_named_params(network(), list(VALUES.values())[:2])
    with pytest.raises(UserError, match="main has no parameter 'w3'"):
        with_named_params(network(), {**VALUES, "w3": IMAGE})
    with pytest.raises(UserError, match="the module has no function 'main'"):
        Canonicalize()(tvm.IRModule({}))
    n = tvm.tirx.Var("n", "int64")
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((n, 4), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(relax.op.nn.relu(x))
        builder.emit_func_output(out)
    with pytest.raises(UserError, match="the module cannot be compressed: .*a dimension that is not a constant"):
        Canonicalize()(builder.get())
