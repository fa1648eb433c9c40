"""Canonicalize and FoldBatchNorm on hand-written modules."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import Canonicalize, FoldBatchNorm, attach_params, get_params, get_remarks
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.module_params import PARAMS_ATTR
from tvmcompress.passes.graph.rebuild import bindings

from .. import small_models

# TVMScript annotations are no Python annotations.
# mypy: ignore-errors


def variable_names(mod):
    return [var.name for var, _ in bindings(mod["main"])]


def random_params(mod: tvm.IRModule, seed: int = 0) -> dict[str, np.ndarray]:
    """Positive values for every parameter of `main`, so that variances are variances."""
    rng = np.random.default_rng(seed)
    main = mod["main"]
    count = int(main.attrs["num_input"])
    return {
        var.name: (rng.random([int(d) for d in var.ty.shape]) + 0.25).astype(str(var.ty.dtype))
        for var in list(main.params)[count:]
    }


def operators(mod: tvm.IRModule) -> list[str]:
    """The operators of `main` in order."""
    return [
        binding.value.op.name.removeprefix("relax.")
        for binding in mod["main"].body.blocks[0].bindings
        if isinstance(binding.value, relax.Call)
    ]


@I.ir_module
class Imported:
    """A convolution and a Gemm as the ONNX front end leaves them."""

    @R.function
    def main(
        x: R.Tensor((1, 3, 4, 4), "float32"),
        conv_weight: R.Tensor((5, 3, 3, 3), "float32"),
        conv_bias: R.Tensor((5,), "float32"),
        fc_weight: R.Tensor((7, 80), "float32"),
        fc_bias: R.Tensor((1, 7), "float32"),
        half: R.Tensor((1,), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.nn.conv2d(x, conv_weight, padding=[1, 1, 1, 1])
            b = R.reshape(conv_bias, R.shape([1, 5, 1, 1]))
            c = R.add(a, b)
            d = R.clip(c, R.prim_value(0), R.prim_value(3.4028234663852886e38))
            e = R.reshape(d, R.shape([1, 5, 4, 4]))
            f = R.multiply(half, e)
            g = R.reshape(f, R.shape([1, 80]))
            h = R.matmul(g, R.permute_dims(fc_weight))
            k = R.add(fc_bias, h)
            R.output(k)
        return k


def test_canonical_form() -> None:
    mod = attach_params(Imported, random_params(Imported))
    after = Canonicalize()(mod)
    assert operators(after) == ["nn.conv2d", "add", "nn.relu", "multiply", "reshape", "matmul", "add"]
    params = get_params(after)
    assert {name: value.shape for name, value in params.items()} == {
        "conv_weight": (5, 3, 3, 3),
        "conv_bias": (1, 5, 1, 1),
        "fc_weight": (80, 7),
        "fc_bias": (7,),
    }
    assert variable_names(after)[:4] == ["conv", "conv.bias_add", "conv.relu", "conv.multiply"]
    assert variable_names(after)[5:7] == ["fc", "fc.bias_add"]
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 4)).astype("float32")
    np.testing.assert_allclose(run(after, [x])[0], run(mod, [x])[0], rtol=1e-5)


def test_canonical_form_is_a_fixed_point() -> None:
    once = Canonicalize()(attach_params(Imported, random_params(Imported)))
    twice = Canonicalize()(once)
    tvm.ir.assert_structural_equal(once.without_attr(PARAMS_ATTR), twice.without_attr(PARAMS_ATTR))
    assert variable_names(once) == variable_names(twice)


def test_a_parameter_read_in_two_forms_keeps_both() -> None:
    @I.ir_module
    class TwoForms:
        @R.function
        def main(x: R.Tensor((1, 4), "float32"), w: R.Tensor((4, 4), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                a = R.matmul(x, w)
                b = R.matmul(a, R.permute_dims(w))
                R.output(b)
            return b

    mod = attach_params(TwoForms, random_params(TwoForms))
    after = Canonicalize()(mod)
    assert set(get_params(after)) == {"w", "w.1"}
    x = np.ones((1, 4), "float32")
    np.testing.assert_allclose(run(after, [x])[0], run(mod, [x])[0], rtol=1e-6)


def test_dequantized_weights_stay_integers() -> None:
    @I.ir_module
    class Quantized:
        @R.function
        def main(
            x: R.Tensor((1, 4), "float32"),
            w: R.Tensor((4, 2), "int8"),
            s: R.Tensor((2,), "float32"),
            z: R.Tensor((2,), "int8"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                d = R.dequantize(w, s, z, axis=1)
                y = R.matmul(x, d)
                R.output(y)
            return y

    after = Canonicalize()(attach_params(Quantized, random_params(Quantized)))
    assert operators(after) == ["dequantize", "matmul"]
    assert get_params(after)["w"].dtype == np.int8


@I.ir_module
class Normalized:
    """One normalization behind a convolution alone, one behind a convolution that is read twice."""

    @R.function
    def main(
        x: R.Tensor((1, 3, 5, 5), "float32"),
        c1_weight: R.Tensor((4, 3, 3, 3), "float32"),
        c1_bias: R.Tensor((1, 4, 1, 1), "float32"),
        g1: R.Tensor((4,), "float32"),
        b1: R.Tensor((4,), "float32"),
        m1: R.Tensor((4,), "float32"),
        v1: R.Tensor((4,), "float32"),
        c2_weight: R.Tensor((4, 4, 1, 1), "float32"),
        g2: R.Tensor((4,), "float32"),
        b2: R.Tensor((4,), "float32"),
        m2: R.Tensor((4,), "float32"),
        v2: R.Tensor((4,), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.nn.conv2d(x, c1_weight)
            b = R.add(a, c1_bias)
            c = R.nn.batch_norm(b, g1, b1, m1, v1, axis=1, epsilon=1e-3)
            d = c[0]
            e = R.nn.conv2d(d, c2_weight)
            f = R.nn.batch_norm(e, g2, b2, m2, v2, axis=1, epsilon=1e-5)
            g = f[0]
            h = R.add(g, e)
            R.output(h)
        return h


def test_fold_batch_norm() -> None:
    params = random_params(Normalized)
    mod = attach_params(Normalized, params)
    after = Canonicalize()(FoldBatchNorm()(mod))
    assert operators(after) == ["nn.conv2d", "add", "nn.conv2d", "multiply", "add", "add"]
    scale = params["g1"] / np.sqrt(params["v1"] + 1e-3)
    np.testing.assert_allclose(
        get_params(after)["c1_weight"], params["c1_weight"] * scale[:, None, None, None], rtol=1e-6
    )
    bias = (params["c1_bias"].ravel() - params["m1"]) * scale + params["b1"]
    np.testing.assert_allclose(get_params(after)["c1_bias"].ravel(), bias, rtol=1e-5)
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 5)).astype("float32")
    np.testing.assert_allclose(run(after, [x])[0], run(mod, [x])[0], rtol=1e-4, atol=1e-5)
    assert [remark.pass_name for remark in get_remarks(after)] == ["FoldBatchNorm"]
    assert "multiply and add" in get_remarks(after)[0].message


def test_shared_weight_is_not_scaled_twice() -> None:
    @I.ir_module
    class Shared:
        @R.function
        def main(
            x: R.Tensor((1, 4, 5, 5), "float32"),
            w: R.Tensor((4, 4, 1, 1), "float32"),
            g: R.Tensor((4,), "float32"),
            b: R.Tensor((4,), "float32"),
            m: R.Tensor((4,), "float32"),
            v: R.Tensor((4,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                a = R.nn.conv2d(x, w)
                n = R.nn.batch_norm(a, g, b, m, v, axis=1)
                c = n[0]
                d = R.nn.conv2d(c, w)
                R.output(d)
            return d

    mod = attach_params(Shared, random_params(Shared))
    after = FoldBatchNorm()(mod)
    x = np.random.default_rng(1).standard_normal((1, 4, 5, 5)).astype("float32")
    np.testing.assert_allclose(run(after, [x])[0], run(mod, [x])[0], rtol=1e-4)
    np.testing.assert_array_equal(get_params(after)["w"], get_params(mod)["w"])


def test_dense_normalization_folds() -> None:
    @I.ir_module
    class Dense:
        @R.function
        def main(
            x: R.Tensor((1, 3), "float32"),
            fc_weight: R.Tensor((3, 4), "float32"),
            g: R.Tensor((4,), "float32"),
            b: R.Tensor((4,), "float32"),
            m: R.Tensor((4,), "float32"),
            v: R.Tensor((4,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                a = R.matmul(x, fc_weight)
                n = R.nn.batch_norm(a, g, b, m, v, axis=1)
                c = n[0]
                R.output(c)
            return c

    mod = attach_params(Dense, random_params(Dense))
    after = Canonicalize()(FoldBatchNorm()(mod))
    assert operators(after) == ["matmul", "add"]
    assert {name: value.shape for name, value in get_params(after).items()} == {"fc_weight": (3, 4), "fc.bias": (4,)}
    x = np.random.default_rng(1).standard_normal((3, 3)).astype("float32")
    np.testing.assert_allclose(run(after, [x])[0], run(mod, [x])[0], rtol=1e-4)


def test_missing_values_are_named() -> None:
    with pytest.raises(ValueError, match="parameter conv_weight of main has no value"):
        attach_params(Imported, {})
    with pytest.raises(ValueError, match="without values; give them"):
        Canonicalize()(Imported)


def test_normalization_with_computed_statistics_is_left() -> None:
    from ..small_models import model, samples, weights

    def build(x: relax.Expr, p: dict) -> relax.Expr:
        gamma = relax.op.mean(x, [0, 2, 3])
        normal = relax.op.nn.batch_norm(x, gamma, p["b"], p["m"], p["v"], 1, training=False)
        return relax.op.nn.relu(relax.TupleGetItem(normal, 0))

    params = {**weights(b=(3,), m=(3,)), "v": np.ones(3, np.float32)}
    before = model(build, (1, 3, 4, 4), params=params)
    after = FoldBatchNorm()(before)
    inputs = [samples((1, 3, 4, 4), count=1)[0]]
    np.testing.assert_array_equal(run(after, inputs)[0], run(before, inputs)[0])
    assert any("statistics are computed" in remark.message for remark in get_remarks(after))


def test_scalars_are_inline_in_every_operator() -> None:
    def build(x: relax.Expr, w: dict[str, relax.Expr]) -> relax.Expr:
        return relax.op.divide(relax.op.power(relax.op.subtract(w["one"], x), w["two"]), w["rows"])

    mod = small_models.model(
        build,
        (3, 4),
        params={"one": np.ones((), "float32"), "two": np.full(1, 2, "float32"), "rows": np.full((3, 1), 4, "float32")},
    )
    assert set(get_params(mod)) == {"rows"}
    x = np.arange(12, dtype="float32").reshape(3, 4)
    np.testing.assert_allclose(run(mod, [x])[0], (1 - x) ** 2 / 4, rtol=1e-6)


def test_a_number_keeps_its_type() -> None:
    def build(x: relax.Expr, w: dict[str, relax.Expr]) -> relax.Expr:
        return relax.op.take(x, relax.op.add(w["first"], w["second"]), axis=1)

    numbers = {"first": np.array(1), "second": np.array(2)}
    mod = small_models.model(build, (3, 4), params=numbers)
    (call,) = (binding.value for binding in mod["main"].body.blocks[0].bindings if isinstance(binding.value, relax.Call))
    assert call.args[1].ty.dtype == "int64"


def test_layers_that_share_a_weight_share_its_transpose() -> None:
    def build(x: relax.Expr, w: dict[str, relax.Expr]) -> relax.Expr:
        for _ in range(3):
            x = relax.op.tanh(relax.op.matmul(x, relax.op.permute_dims(w["fc.weight"])))
        return x

    weight = np.random.default_rng(0).random((4, 4)).astype("float32")
    params = get_params(small_models.model(build, (3, 4), params={"fc.weight": weight}))
    assert list(params) == ["fc.weight"]
    np.testing.assert_array_equal(params["fc.weight"], weight.T)


@pytest.mark.parametrize("kind", ["max", "min"])
def test_the_extreme_of_a_stack_is_that_of_its_tensors(kind: str) -> None:
    """TVM's importer writes ONNX's Max and Min of several tensors like this."""

    def build(x: relax.Expr, y: relax.Expr, p: dict) -> relax.Expr:
        numbers = relax.const(np.full((2, 3), 0.25, np.float32))
        return getattr(relax.op, kind)(relax.op.stack([numbers, x, y], 0), [0])

    mod = small_models.model(build, (2, 3), (2, 3))
    assert small_models.operators(mod) == [f"{kind}imum"] * 2
    x, y = small_models.samples((2, 3), (2, 3), count=2)
    function = np.maximum if kind == "max" else np.minimum
    np.testing.assert_array_equal(run(mod, [x, y])[0], function(function(x, y), np.float32(0.25)))


def test_relu6_becomes_a_clip() -> None:
    mod = small_models.model(lambda x, w: relax.op.nn.relu6(x), (3, 4), params={})
    assert operators(mod) == ["clip"]
    x = np.linspace(-3, 9, 12, dtype="float32").reshape(3, 4)
    np.testing.assert_array_equal(run(mod, [x])[0], np.clip(x, 0, 6))
