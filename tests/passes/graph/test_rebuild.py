"""Rebuilding main: parameters, names, dropped bindings."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import attach_params, detach_params, get_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import DROP, Rebuilder, bindings, rebuild, users
from tvmcompress.passes.graph.remarks import Remark, add_remarks, get_remarks


@I.ir_module
class Small:
    @R.function
    def main(x: R.Tensor((1, 4), "float32"), w: R.Tensor((4, 3), "float32"), unused: R.Tensor((9,), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.matmul(x, w)
            b = R.nn.relu(a)
            R.output(b)
        return b


PARAMS = {"w": np.arange(12, dtype="float32").reshape(4, 3) - 5, "unused": np.zeros(9, "float32")}


def test_identity_keeps_everything_but_what_nobody_reads() -> None:
    mod = attach_params(Small, PARAMS).with_attr("mine", 7)
    after = rebuild(mod, lambda build, var, value: None)
    assert list(get_params(after)) == ["w"]
    assert [var.name for var, _ in bindings(after["main"])][:2] == ["a", "b"]
    assert after.attrs["mine"] == 7
    assert int(after["main"].attrs["num_input"]) == 1
    assert relax.analysis.check_well_formed(after)
    x = np.ones((1, 4), "float32")
    np.testing.assert_array_equal(run(after, [x])[0], run(mod, [x])[0])


def test_shapes_follow_a_smaller_parameter() -> None:
    def narrow(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if var.name != "a":
            return None
        return relax.op.matmul(build.get(value.args[0]), build.param("w", build.old_params["w"][:, :2]))

    after = rebuild(attach_params(Small, PARAMS), narrow)
    assert [int(dim) for dim in after["main"].ret_ty.shape] == [1, 2]
    assert get_params(after)["w"].shape == (4, 2)


def test_dropped_binding() -> None:
    def drop(build: Rebuilder, var: relax.Var, value: relax.Expr) -> object:
        if var.name == "a":
            return DROP
        return relax.op.nn.relu(build.inputs[0]) if var.name == "b" else None

    after = rebuild(attach_params(Small, PARAMS), drop)
    assert get_params(after) == {}
    assert [int(dim) for dim in after["main"].ret_ty.shape] == [1, 4]


def test_one_name_means_one_value() -> None:
    def twice(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if var.name != "a":
            return None
        first = relax.op.matmul(build.get(value.args[0]), build.param("w", build.old_params["w"]))
        return relax.op.add(build.emit(first), relax.op.matmul(build.inputs[0], build.param("w", PARAMS["w"] * 2)))

    with pytest.raises(ValueError, match="parameter w is given two different values"):
        rebuild(attach_params(Small, PARAMS), twice)


def test_params_round_trip_with_scalars() -> None:
    @I.ir_module
    class Scalar:
        @R.function
        def main(x: R.Tensor((2,), "float32"), s: R.Tensor((), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                a = R.add(x, s)
                R.output(a)
            return a

    bare, params = detach_params(attach_params(Scalar, {"s": np.float32(3).reshape(())}))
    assert params["s"].shape == ()
    assert bare.attrs is None or "tvmcompress.params" not in bare.attrs


def test_wrong_shape_or_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"parameter w is \(4, 3\) float32, its value \(3, 4\)"):
        attach_params(Small, {**PARAMS, "w": PARAMS["w"].T})
    with pytest.raises(ValueError, match="its value .* float64"):
        attach_params(Small, {**PARAMS, "w": PARAMS["w"].astype("float64")})


def test_control_flow_is_refused() -> None:
    @I.ir_module
    class Branch:
        @R.function
        def main(x: R.Tensor((2,), "float32"), c: R.Tensor((), "bool")):
            if c:
                y = R.add(x, x)
            else:
                y = R.multiply(x, x)
            return y

    with pytest.raises(ValueError, match="straight-line"):
        list(bindings(Branch["main"]))


def test_users() -> None:
    readers = users(Small["main"])
    by_name = {var.name: [reader.name for reader in found] for var, found in readers.items()}
    assert by_name == {"x": ["a"], "w": ["a"], "a": ["b"], "b": ["b"]}


def test_remarks_survive_passes_and_do_not_repeat() -> None:
    remark = Remark("Test", "conv1", "left alone")
    mod = add_remarks(add_remarks(Small, [remark]), [remark, Remark("Test", "conv2", "too")])
    mod = tvm.transform.Sequential([relax.transform.CanonicalizeBindings()])(mod)
    assert get_remarks(mod) == [remark, Remark("Test", "conv2", "too")]
