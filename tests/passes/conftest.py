"""A small builder of networks, for tests that need many of them."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import PruneChannels, attach_params, detach_params, get_surgery, zero_channels
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.module_params import input_vars

nn = relax.op.nn


class Net:
    """Builds a module with random parameter values, layer by layer; every method returns the new variable."""

    def __init__(self, *input_shapes, seed=0):
        self._builder = relax.BlockBuilder()
        self._bindings = []
        self._rng = np.random.default_rng(seed)
        self._count = 0
        self.params = {}
        self._param_vars = []
        self.inputs = [
            relax.Var(f"input{index}", relax.TensorType(shape, "float32")) for index, shape in enumerate(input_shapes)
        ]

    @property
    def x(self):
        return self.inputs[0]

    def name(self, kind):
        self._count += 1
        return f"{kind}{self._count}"

    def param(self, name, shape, low=None):
        """A parameter: normal, scaled to keep the size of activations; uniform in [low, low + 1) where low is given."""
        fan_in = max(int(np.prod(shape[1:])), 1)
        value = self._rng.normal(size=shape) / np.sqrt(fan_in) if low is None else self._rng.random(shape) + low
        var = relax.Var(name, relax.TensorType(shape, "float32"))
        self.params[name] = value.astype("float32")
        self._param_vars.append(var)
        return var

    def emit(self, expr, name="t"):
        normal = self._builder.normalize(expr)
        var = relax.DataflowVar(name if name != "t" else self.name("t"), normal.ty)
        self._bindings.append(relax.VarBinding(var, normal))
        return var

    @staticmethod
    def shape(x):
        return tuple(int(dim) for dim in x.ty.shape)

    def conv(self, x, out, kernel=3, stride=1, groups=1, bias=True, name=None, padding=None):
        """conv2d, NCHW, with a bias behind it."""
        name = name or self.name("conv")
        weight = self.param(f"{name}.weight", (out, self.shape(x)[1] // groups, kernel, kernel))
        padding = kernel // 2 if padding is None else padding
        y = self.emit(nn.conv2d(x, weight, strides=stride, padding=padding, groups=groups), name)
        if not bias:
            return y
        return self.emit(relax.op.add(y, self.param(f"{name}.bias", (1, out, 1, 1))), f"{name}.add")

    def depthwise(self, x, multiplier=1, **options):
        channels = self.shape(x)[1]
        return self.conv(x, channels * multiplier, groups=channels, **options)

    def dense(self, x, out, name=None):
        """matmul and a bias over the last axis."""
        name = name or self.name("fc")
        y = self.emit(relax.op.matmul(x, self.param(f"{name}.weight", (self.shape(x)[-1], out))), name)
        return self.emit(relax.op.add(y, self.param(f"{name}.bias", (out,))), f"{name}.add")

    def batch_norm(self, x, axis=1):
        name, size = self.name("bn"), self.shape(x)[axis]
        gamma, beta = self.param(f"{name}.gamma", (size,), 0.5), self.param(f"{name}.beta", (size,))
        mean, variance = self.param(f"{name}.mean", (size,)), self.param(f"{name}.var", (size,), 0.5)
        y = self.emit(nn.batch_norm(x, gamma, beta, mean, variance, axis, training=False), name)
        return self.emit(relax.TupleGetItem(y, 0), f"{name}.out")

    def layer_norm(self, x):
        """Over the last axis."""
        name, size = self.name("ln"), self.shape(x)[-1]
        gamma, beta = self.param(f"{name}.gamma", (size,), 0.5), self.param(f"{name}.beta", (size,))
        return self.emit(nn.layer_norm(x, gamma, beta, -1), name)

    def silu(self, x):
        return self.mul(x, self.emit(relax.op.sigmoid(x)))

    def hard_swish(self, x):
        gate = self.emit(relax.op.clip(self.add(x, relax.const(np.float32(3))), 0, 6))
        return self.mul(x, self.emit(relax.op.divide(gate, relax.const(np.float32(6)))))

    def relu(self, x):
        return self.emit(nn.relu(x))

    def add(self, x, y):
        return self.emit(relax.op.add(x, y))

    def mul(self, x, y):
        return self.emit(relax.op.multiply(x, y))

    def concat(self, *tensors, axis=1):
        return self.emit(relax.op.concat(list(tensors), axis))

    def split(self, x, sections, axis=1):
        parts = self.emit(relax.op.split(x, sections, axis))
        return [self.emit(relax.TupleGetItem(parts, index)) for index in range(len(parts.ty.fields))]

    def reshape(self, x, *shape):
        return self.emit(relax.op.reshape(x, shape))

    def permute(self, x, *axes):
        return self.emit(relax.op.permute_dims(x, list(axes)))

    def shuffle(self, x, groups):
        n, c, h, w = self.shape(x)
        y = self.permute(self.reshape(x, n, groups, c // groups, h, w), 0, 2, 1, 3, 4)
        return self.reshape(y, n, c, h, w)

    def mean(self, x, axes=(2, 3), keepdims=True):
        return self.emit(relax.op.mean(x, list(axes), keepdims))

    def head(self, x, classes=5):
        """Global average pool and a classifier."""
        return self.dense(self.mean(x, keepdims=False), classes, name="classifier")

    def finish(self, *outputs):
        """The module with its parameters attached."""
        result = outputs[0] if len(outputs) == 1 else relax.Tuple(list(outputs))
        normal = self._builder.normalize(result)
        out = relax.Var("result", normal.ty)
        blocks = [relax.DataflowBlock([*self._bindings, relax.VarBinding(out, normal)])]
        attrs = tvm.ir.make_node("ir.DictAttrs", num_input=len(self.inputs), global_symbol="main")
        params = [*self.inputs, *self._param_vars]
        func = relax.Function(params, relax.SeqExpr(blocks, out), normal.ty, True, attrs)
        mod = relax.transform.Normalize()(tvm.IRModule({"main": func}))
        assert relax.analysis.check_well_formed(mod)
        return attach_params(mod, self.params)


@pytest.fixture(scope="session")
def net():
    """The network builder."""
    return Net


def _assert_exact(mod, ratio, seed=0, tolerance=1e-5, on_vm=False, must_change=True):
    """Prune `ratio` of every group at random; the result must equal the original with the same channels zeroed."""
    rng = np.random.default_rng(seed)
    pruned = PruneChannels(ratio, importance=lambda group, params: rng.random(group.size))(mod)
    report = get_surgery(pruned)
    assert report is not None, "nothing could be pruned"
    shapes = [tuple(int(dim) for dim in var.ty.shape) for var in input_vars(mod["main"])]
    inputs = [rng.normal(size=shape).astype("float32") for shape in shapes]
    expected = run(zero_channels(mod, report), inputs)
    if must_change:
        original = run(mod, inputs)
        assert any(np.abs(value - other).max() > 1e-4 for value, other in zip(expected, original)), "no change"
    outputs = run_on_vm(pruned, inputs) if on_vm else run(pruned, inputs)
    for value, other in zip(outputs, expected):
        np.testing.assert_allclose(value, other, rtol=tolerance, atol=tolerance * max(np.abs(other).max(), 1.0))
    assert relax.analysis.check_well_formed(pruned)
    assert report.params_after < report.params_before
    return pruned


def run_on_vm(mod, inputs):
    """Compile and run a module."""
    bare, params = detach_params(mod)
    # Without LLVM's optimizations, which would take most of the time.
    target = tvm.target.Target({"kind": "llvm", "opt-level": 0})
    machine = relax.VirtualMachine(tvm.compile(bare, target=target), tvm.cpu())
    result = machine["main"](*(tvm.runtime.tensor(value) for value in [*inputs, *params.values()]))
    return [result.numpy()] if isinstance(result, tvm.runtime.Tensor) else [field.numpy() for field in result]


@pytest.fixture(scope="session")
def assert_exact():
    """Checks that pruning equals zeroing."""
    return _assert_exact
