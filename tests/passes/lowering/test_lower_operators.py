"""LowerQDQ: operators of transformers, signals, volumes and decoders in integers, the compiled program equal to its
meaning, and close to the float model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tvmcompress.passes import IntegerCore, LowerQDQ, Quantize, calibrate, get_remarks
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run

from ..integer import running
from ..small_models import model, operators, samples, weights

op = relax.op
# A matrix product in front makes the quantizer's work worth while and gives tensors of other scales.
PARAMS = weights(
    w__weight=(6, 6),
    w__bias=(6,),
    u__weight=(6, 8),
    left__weight=(5, 4),
    batch__weight=(2, 6, 3),
    gamma=(6,),
    beta=(6,),
    channels__gamma=(4,),
    channels__beta=(4,),
    slope=(4,),
    row=(1, 4, 1),
    table=(9, 6),
    c1__weight=(6, 4, 3),
    c1__bias=(1, 6, 1),
    g1__weight=(8, 2, 3),
    t1__weight=(4, 3, 4),
    t1__bias=(1, 3, 1),
    k__weight=(6, 4, 3, 3),
    t__weight=(4, 3, 3, 3),
    t__bias=(1, 3, 1, 1),
    grouped__weight=(4, 2, 2, 2),
    even__weight=(4, 3, 2, 2),
    v__weight=(6, 2, 3, 3, 3),
    v__bias=(1, 6, 1, 1, 1),
    vg__weight=(4, 1, 2, 3, 3),
)
TOKENS, SIGNAL, IMAGE, VOLUME = (1, 4, 6), (1, 4, 12), (1, 4, 5, 6), (1, 2, 4, 5, 6)


def _dense(x: relax.Expr, p: dict) -> relax.Expr:
    return op.add(op.matmul(x, p["w.weight"]), p["w.bias"])


def _conv(x: relax.Expr, p: dict) -> relax.Expr:
    return op.nn.relu(op.nn.conv2d(x, p["k.weight"], padding=1))


def _attention(x: relax.Expr, p: dict, mask: Callable[[relax.Expr], relax.Expr] = lambda s: s) -> relax.Expr:
    y = _dense(x, p)
    scores = op.multiply(op.matmul(y, op.permute_dims(x, [0, 2, 1])), relax.const(0.4))
    return op.matmul(op.nn.softmax(mask(scores), -1), y)


def _transposed(x: relax.Expr, weight: relax.Expr, **options: object) -> relax.Expr:
    make = op.nn.conv1d_transpose if len(x.ty.shape) == 3 else op.nn.conv2d_transpose
    return make(x, weight, **options)


_KEPT = np.tril(np.ones((4, 4), bool))
_LOW = np.where(_KEPT, 0, -1e9).astype(np.float32)
Case = tuple[tuple[int, ...], Callable[..., relax.Expr], set[str]]
CASES: dict[str, Case] = {
    "attention": (TOKENS, _attention, {"qdense", "qmatmul", "qsoftmax"}),
    "causal": (
        TOKENS,
        lambda x, p: _attention(x, p, lambda s: op.where(relax.const(_KEPT), s, relax.const(np.float32(-np.inf)))),
        {"qmaskedsoftmax"},
    ),
    "masked fill": (
        TOKENS,
        lambda x, p: _attention(x, p, lambda s: op.where(relax.const(~_KEPT), relax.const(np.float32(-1e4)), s)),
        {"qmaskedsoftmax"},
    ),
    "added mask": (
        TOKENS,
        lambda x, p: _attention(x, p, lambda s: op.add(s, relax.const(_LOW))),
        {"qmaskedsoftmax"},
    ),
    "constant first": (TOKENS, lambda x, p: op.matmul(p["left.weight"], _dense(x, p)), {"qmatmul"}),
    "rank 3 weights": (
        TOKENS,
        lambda x, p: op.matmul(op.broadcast_to(_dense(x, p), (2, 4, 6)), p["batch.weight"]),
        {"qmatmul"},
    ),
    "einsum": (
        TOKENS,
        lambda x, p: op.einsum([op.reshape(_dense(x, p), (1, 4, 2, 3)), op.reshape(x, (1, 4, 2, 3))], "bqhd,bkhd->bhqk"),
        {"qmatmul"},
    ),
    "layer norm": (
        TOKENS,
        lambda x, p: op.nn.layer_norm(_dense(x, p), p["gamma"], p["beta"], [-1]),
        {"qnormalize"},
    ),
    "rms norm": (TOKENS, lambda x, p: op.nn.rms_norm(_dense(x, p), p["gamma"], [-1], 1e-5), {"qnormalize"}),
    "group norm": (
        IMAGE,
        lambda x, p: op.nn.relu(op.nn.group_norm(x, p["channels.gamma"], p["channels.beta"], 2, 1, [2, 3])),
        {"qnormalize"},
    ),
    "instance norm": (
        IMAGE,
        lambda x, p: _conv(op.nn.instance_norm(x, p["channels.gamma"], p["channels.beta"], 1, [2, 3]), p),
        {"qnormalize", "qconv2d"},
    ),
    "log softmax": (TOKENS, lambda x, p: op.nn.log_softmax(_dense(x, p), -1), {"qlogsoftmax"}),
    "softmax of another axis": (TOKENS, lambda x, p: op.nn.softmax(_dense(x, p), 1), {"qsoftmax"}),
    "log softmax of another axis": (TOKENS, lambda x, p: op.nn.log_softmax(_dense(x, p), 1), {"qlogsoftmax"}),
    "quotient": (
        TOKENS,
        lambda x, p: op.divide(_dense(x, p), op.add(op.abs(x), relax.const(1.0))),
        {"qdense", "qlut", "qdivide"},
    ),
    "quotient by a constant": (
        TOKENS,
        lambda x, p: op.divide(_dense(x, p), relax.const(np.linspace(1, 3, 6, dtype=np.float32))),
        {"qdivide"},
    ),
    "maximum": (TOKENS, lambda x, p: op.maximum(_dense(x, p), x), {"maximum"}),
    "minimum with a constant": (TOKENS, lambda x, p: op.minimum(_dense(x, p), p["row"]), {"minimum"}),
    "choice": (TOKENS, lambda x, p: op.where(op.greater(x, relax.const(0.1)), _dense(x, p), relax.const(0.3)), {"where"}),
    "pointwise choice": (
        TOKENS,
        lambda x, p: op.where(op.greater(_dense(x, p), relax.const(0.0)), _dense(x, p), relax.const(-0.2)),
        {"where"},
    ),
    "sum": (TOKENS, lambda x, p: op.sum(_dense(x, p), [-1], keepdims=True), {"qmean"}),
    "largest": (TOKENS, lambda x, p: op.max(_dense(x, p), [1]), {"max"}),
    "smallest": (TOKENS, lambda x, p: op.min(_dense(x, p), [-1], keepdims=True), {"min"}),
    "mean of everything": (TOKENS, lambda x, p: op.mean(_dense(x, p), None, keepdims=True), {"qmean"}),
    "take": (TOKENS, lambda x, p: op.take(_dense(x, p), relax.const(np.array([2, 0, 3])), 1), {"take"}),
    "stack": (TOKENS, lambda x, p: op.stack([x, _dense(x, p)], 1), {"stack"}),
    "tile": (TOKENS, lambda x, p: op.tile(op.repeat(_dense(x, p), 2, 1), (1, 1, 2)), {"repeat", "tile"}),
    "rectifier with slopes": (IMAGE, lambda x, p: op.nn.prelu(_conv(op.nn.prelu(x, p["slope"]), p), p["gamma"]), {"qprelu"}),
    "reflected": (IMAGE, lambda x, p: _conv(op.nn.pad(x, [0, 0, 0, 0, 1, 2, 1, 1], "reflect"), p), {"nn.pad", "qconv2d"}),
    "replicated": (IMAGE, lambda x, p: _conv(op.nn.pad(x, [0, 0, 0, 0, 1, 0, 2, 1], "replicate"), p), {"nn.pad"}),
    "signal": (
        SIGNAL,
        lambda x, p: op.nn.relu(op.add(op.nn.conv1d(x, p["c1.weight"], padding=(2, 1), strides=2), p["c1.bias"])),
        {"qconv2d"},
    ),
    "grouped signal": (SIGNAL, lambda x, p: op.nn.conv1d(x, p["g1.weight"], groups=2, dilation=2), {"qconv2d"}),
    "pooled signal": (
        SIGNAL,
        lambda x, p: op.nn.avg_pool1d(op.nn.max_pool1d(op.nn.conv1d(x, p["c1.weight"]), 3, 2, 1), 2, 1),
        {"qmaxpool", "qavgpool"},
    ),
    "transposed signal": (
        SIGNAL,
        lambda x, p: op.add(_transposed(x, p["t1.weight"], strides=3, padding=(2, 1), output_padding=1), p["t1.bias"]),
        {"qconv2d"},
    ),
    "transposed": (
        IMAGE,
        lambda x, p: op.nn.relu(
            op.add(_transposed(x, p["t.weight"], strides=2, padding=1, output_padding=1), p["t.bias"])
        ),
        {"qconv2d"},
    ),
    "transposed, even": (IMAGE, lambda x, p: _transposed(x, p["even.weight"], strides=2), {"qconv2d"}),
    "transposed, grouped": (
        IMAGE,
        lambda x, p: _transposed(x, p["grouped.weight"], strides=(2, 1), groups=2, dilation=2, padding=(1, 0)),
        {"qconv2d"},
    ),
    "transposed, stride beyond the kernel": (
        IMAGE,
        lambda x, p: _transposed(x, p["even.weight"], strides=3, output_padding=2),
        {"qconv2d"},
    ),
    "volume": (
        VOLUME,
        lambda x, p: op.nn.max_pool3d(
            op.nn.relu(op.add(op.nn.conv3d(x, p["v.weight"], padding=1), p["v.bias"])), (2, 2, 3), (2, 1, 2), (1, 0, 1)
        ),
        {"qconv2d", "qmaxpool"},
    ),
    "grouped volume": (
        VOLUME,
        lambda x, p: op.mean(op.nn.conv3d(x, p["vg.weight"], groups=2, strides=(1, 2, 2), dilation=(2, 1, 1)), [2, 3, 4]),
        {"qconv2d", "qmean"},
    ),
}
# One operator may stand before it with a scale of its own.
MOVES = """
permute_dims reshape strided_slice concat take max min maximum minimum where stack tile repeat nn.pad broadcast_to
not_equal qpad qlut
"""


def case_module(name: str, params: dict[str, np.ndarray]) -> tvm.IRModule:
    """The float model of a case; a convolution stands behind what has no weights, since something must be quantized."""
    shape, build, _ = CASES[name]
    mod = model(build, shape, params=params)
    if any(entry.startswith(("nn.conv", "matmul")) for entry in operators(mod)):
        return mod
    return model(lambda x, p: _conv(build(x, p), p), shape, params=params)


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    shape, _, expected = CASES[name]
    mod = case_module(name, PARAMS)
    lowered = LowerQDQ()(Quantize(calibrate(mod, [samples(shape)]))(mod))
    assert get_remarks(lowered) == []
    core = set(operators(IntegerCore()(lowered)))
    assert expected <= core
    assert all(entry.startswith("q") or entry in MOVES.split() for entry in core)
    inputs = samples(shape, count=3, seed=5)
    singles = [inputs[0][k : k + 1] for k in range(3)]
    for single in singles:
        [real], [found] = run(mod, [single]), run(lowered, [single])
        noise, power = float(np.square(found - real).mean()), float(np.square(real).mean())
        # Tensors of 8 bits one after the other, a softmax with 1/256 among them.
        assert noise <= power / 10**2.2, 10 * np.log10(power / noise)
    np.testing.assert_array_equal(running.compiled(lowered, singles[:1])[0], run(lowered, singles[:1])[0])


@pytest.mark.parametrize("name", ["attention", "layer norm", "quotient", "transposed", "rectifier with slopes"])
def test_single_rounding(name: str) -> None:
    shape, build, _ = CASES[name]
    mod = model(build, shape, params=PARAMS)
    qdq = Quantize(calibrate(mod, [samples(shape)]))(mod)
    single, double = LowerQDQ("single")(qdq), LowerQDQ()(qdq)
    inputs = samples(shape, count=1, seed=5)
    found = run(single, inputs)[0]
    np.testing.assert_array_equal(running.compiled(single, inputs)[0], found)
    real = run(mod, inputs)[0]
    # A step here and there: no nearer to the float model and no farther than the other rounding.
    errors = [np.abs(result - real).mean() for result in (found, run(double, inputs)[0])]
    assert errors[0] <= 1.5 * errors[1] + 1e-3


def test_lookup() -> None:
    """An embedding keeps the scale of its table; its indices are the program's input."""
    from tvmcompress.passes import Canonicalize, attach_params

    tokens = relax.Var("tokens", relax.TensorType((1, 5), "int64"))
    params = {name: PARAMS[name] for name in ("table", "w.weight", "w.bias")}
    variables = {name: relax.Var(name, relax.TensorType(value.shape, "float32")) for name, value in params.items()}
    builder = relax.BlockBuilder()
    with builder.function("main", [tokens, *variables.values()], attrs={"num_input": 1}):
        with builder.dataflow():
            rows = op.take(variables["table"], tokens, 0)
            out = builder.emit_output(builder.normalize(_dense(rows, variables)))
        builder.emit_func_output(out)
    mod = Canonicalize()(attach_params(builder.get(), params))
    batches = [[np.random.default_rng(seed).integers(0, 9, (1, 5))] for seed in range(8)]
    lowered = LowerQDQ()(Quantize(calibrate(mod, batches))(mod))
    assert get_remarks(lowered) == []
    assert operators(lowered) == ["take", "qdense", "dequantize"]
    real, found = run(mod, batches[0])[0], run(lowered, batches[0])[0]
    assert np.abs(found - real).max() <= np.abs(real).max() / 40
    np.testing.assert_array_equal(running.compiled(lowered, batches[0])[0], found)
