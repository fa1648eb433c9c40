"""The generated C library, compiled for this machine: what it computes, its interface, and that it stays in its arena."""

# mypy: ignore-errors

from __future__ import annotations

import ctypes
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tvmcompress.passes import LowerQDQ, UserError, attach_params
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.integer import ops
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets.aot import generate as generating
from tvmcompress.targets.aot.generate import generate
from tvmcompress.targets.aot.schedule import CORE_REGISTERS, FLOAT_REGISTERS, NEON
from tvmcompress.targets.channels_last import channels_last

HOST = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64"}
GUARD = 256


class Library:
    """A generated library in this process."""

    def __init__(self, mod, folder: Path, registers=FLOAT_REGISTERS, emit="object", prefix="net", flags=(), **options) -> None:
        self.made = generate(mod, HOST, folder, registers=registers, emit=emit, prefix=prefix, version="1.2.3", **options)
        shared = folder / "net.so"
        # -Wl,-z,defs would accept libc and libm only: nothing else may be undefined.
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-Wno-maybe-uninitialized"]
        command += [*flags, "-Wl,-z,defs", "-I", folder, "-o", shared]
        subprocess.run([*command, *self.made.sources, *self.made.objects, "-lm"], check=True)
        self.library = ctypes.CDLL(str(shared))
        self.prefix = prefix
        for name in ("input", "output"):
            getattr(self.library, f"{prefix}_{name}").restype = ctypes.c_void_p
        self.bytes = self.made.arena.plan.size

    def call(self, name, *args):
        return getattr(self.library, f"{self.prefix}_{name}")(*args)

    def instance(self):
        return Instance(self)


class Instance:
    """One arena between guards."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.memory = np.full(library.bytes + 2 * GUARD + 64, 0x5A, np.uint8)
        self.start = -self.memory.ctypes.data % 64 + GUARD
        self.handle = (ctypes.c_void_p * 1)()
        where = ctypes.c_void_p(self.memory.ctypes.data + self.start)
        assert library.call("init", self.handle, where, ctypes.c_size_t(library.bytes)) == 0

    def set(self, index, value):
        place = self.library.call("input", self.handle, index)
        ctypes.memmove(place, np.ascontiguousarray(value).ctypes.data, value.nbytes)

    def run(self):
        assert self.library.call("run", self.handle) == 0

    def get(self, index, spec):
        value = np.empty(spec.shape, spec.dtype)
        ctypes.memmove(value.ctypes.data, self.library.call("output", self.handle, index), value.nbytes)
        return value

    def intact(self):
        end = self.start + self.library.bytes
        return (self.memory[: self.start] == 0x5A).all() and (self.memory[end:] == 0x5A).all()


def infer(library: Library, *inputs):
    instance = library.instance()
    for index, value in enumerate(inputs):
        instance.set(index, value)
    instance.run()
    assert instance.intact()
    return [instance.get(index, spec) for index, spec in enumerate(library.made.outputs)]


@pytest.mark.parametrize(
    "registers",
    [CORE_REGISTERS, FLOAT_REGISTERS, NEON, replace(NEON, lanes=1)],
    ids=["core", "fpu", "vector", "rounds"],
)
def test_float_outputs_do_not_depend_on_the_tile(float_net, samples, tmp_path, registers) -> None:
    library = Library(float_net, tmp_path, registers)
    for sample in samples:
        (want,) = run(float_net, [sample[None]])
        np.testing.assert_allclose(infer(library, sample[None])[0], want, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("emit", ["object", "c"])
@pytest.mark.parametrize("registers", [FLOAT_REGISTERS, NEON], ids=["fpu", "vector"])
def test_integer_outputs_equal_the_reference(integer_net, samples, tmp_path, registers, emit) -> None:
    library = Library(integer_net, tmp_path, registers, emit)
    spec = library.made.inputs[0]
    assert (spec.dtype, spec.layout, spec.shape) == ("int8", "NHWC", (1, 13, 11, 3))
    core = IntegerCore()(integer_net)
    for sample in samples:
        x = spec.quantize(sample[None])
        np.testing.assert_array_equal(infer(library, x)[0], run(core, [x])[0])


STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wcast-align", "-Wstrict-prototypes", "-Werror")
UNDEFINED = ("-fsanitize=undefined", "-fno-sanitize-recover=undefined", "-static-libubsan")


class Strict:
    """A generated library in C source, as a program that stops where C99 leaves the behaviour undefined."""

    def __init__(self, mod, folder: Path) -> None:
        self.made = generate(mod, HOST, folder, registers=NEON, emit="c", prefix="net")
        self.program = folder / "run"
        main = folder / "main.c"
        main.write_text(_MAIN)
        command = ["cc", *STRICT, *UNDEFINED, "-O1", "-I", folder, main, *self.made.sources, "-o", self.program, "-lm"]
        subprocess.run(command, check=True)

    def run(self, x):
        done = subprocess.run([self.program], input=x.tobytes(), capture_output=True)
        assert done.returncode == 0, done.stderr
        return np.frombuffer(done.stdout, self.made.outputs[0].dtype).reshape(self.made.outputs[0].shape)


@pytest.mark.parametrize("precision", ["float", "integer"])
def test_c_source_is_strict_c99_and_does_nothing_undefined(precision, request, samples, tmp_path) -> None:
    net = request.getfixturevalue(f"{precision}_net")
    strict = Strict(net, tmp_path)
    assert strict.made.objects == ()
    sources = [*strict.made.sources, *tmp_path.glob("*.h")]
    assert not [path.name for path in sources if re.search(r"tvm/|dlpack|TVM_|__attribute__\(\(v", path.read_text())]
    core = IntegerCore()(net) if precision == "integer" else channels_last(net)
    for sample in samples:
        x = strict.made.inputs[0].quantize(sample[None])
        np.testing.assert_allclose(strict.run(x), run(core, [x])[0], rtol=0 if precision == "integer" else 1e-4)


@pytest.mark.parametrize("rounding", ["double", "single"])
def test_integer_operators_of_transformers_do_nothing_undefined(rounding, attention_qdq, tmp_path) -> None:
    lowered = LowerQDQ(rounding)(attention_qdq)
    strict, core = Strict(lowered, tmp_path), IntegerCore()(lowered)
    shape = strict.made.inputs[0].shape
    # Of one value the variance is zero; where integers are at their ends, sums are largest.
    ends = np.random.default_rng(0).choice(np.array([-128, 127], np.int8), shape)
    wide = np.random.default_rng(1).integers(-128, 128, shape).astype(np.int8)
    for x in (np.full(shape, -128, np.int8), np.full(shape, 127, np.int8), ends, wide):
        np.testing.assert_array_equal(strict.run(x), run(core, [x])[0])


@pytest.mark.parametrize(
    "names",
    [
        ("0.image", "1.softmax", "2"),
        ("input:0", "model/conv2d/Conv2D/ReadVariableOp:0", "model/conv2d/Conv2D/ReadVariableOp:1"),
        ("*/ int evil(void); /*", "a\n#error b", "int"),
        ('"); }', "\u202e\u2066 ??/", "\\"),
        ("a/b", "a:b", "a_b"),
        ("lv", "gv", "\U0010ffff\0x"),
    ],
)
def test_names_stay_names_in_c(names, tmp_path) -> None:
    x = relax.Var(names[0], relax.TensorType((1, 8), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            shares = builder.emit(relax.op.nn.softmax(x), names[1])
            out = builder.emit_output(relax.op.nn.log_softmax(shares), names[2])
        builder.emit_func_output(out)
    mod = attach_params(builder.get(), {})
    value = np.linspace(-2, 2, 8, dtype=np.float32)[None]
    strict = Strict(mod, tmp_path)
    np.testing.assert_allclose(strict.run(value), run(mod, [value])[0], rtol=1e-5)
    # Reports have the names as they are.
    assert next(bindings(mod["main"]))[0].name == strict.made.program.steps[0].layer


_MAIN = """
#include <stdio.h>
#include "net.h"
static union { uint64_t aligned[NET_ARENA_BYTES / 8 + 1]; } memory;
int main(void) {
  net_t model;
  if (net_init(&model, memory.aligned, sizeof memory)) return 1;
  if (fread(net_input(&model, 0), 1, NET_INPUT0_BYTES, stdin) != NET_INPUT0_BYTES || net_run(&model)) return 2;
  return fwrite(net_output(&model, 0), 1, NET_OUTPUT0_BYTES, stdout) != NET_OUTPUT0_BYTES;
}
"""


def test_what_is_emitted_is_checked(float_net, tmp_path) -> None:
    with pytest.raises(UserError, match="emit must be object or c, not 'rust'"):
        generate(float_net, HOST, tmp_path, registers=NEON, emit="rust")


def test_large_constants_come_from_a_binary_file(float_net, samples, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(generating, "LARGEST_TEXT", 100)
    library = Library(float_net, tmp_path)
    assert [path.suffix for path in library.made.sources] == [".c", ".S"]
    assert (tmp_path / "net_constants.bin").stat().st_size >= library.made.constant_bytes
    (want,) = run(float_net, [samples[:1]])
    np.testing.assert_allclose(infer(library, samples[:1])[0], want, rtol=2e-5, atol=1e-6)


def test_two_instances_do_not_disturb_each_other(float_net, samples, tmp_path) -> None:
    library = Library(float_net, tmp_path)
    one, other = library.instance(), library.instance()
    one.set(0, samples[:1])
    other.set(0, samples[1:2])
    one.run()
    other.run()
    spec = library.made.outputs[0]
    np.testing.assert_array_equal(one.get(0, spec), infer(library, samples[:1])[0])
    np.testing.assert_array_equal(other.get(0, spec), infer(library, samples[1:2])[0])


def test_a_second_inference_gives_the_same(float_net, samples, tmp_path) -> None:
    library = Library(float_net, tmp_path)
    instance = library.instance()
    results = []
    for _ in range(2):
        instance.set(0, samples[:1])
        instance.run()
        results.append(instance.get(0, library.made.outputs[0]))
    np.testing.assert_array_equal(*results)


def test_an_arena_that_is_too_small_or_not_aligned_is_refused(float_net, tmp_path) -> None:
    library = Library(float_net, tmp_path)
    memory = np.zeros(library.bytes + 128, np.uint8)
    aligned = memory.ctypes.data + -memory.ctypes.data % 64
    handle = (ctypes.c_void_p * 1)()
    for place, size in ((aligned, library.bytes - 1), (aligned + 4, library.bytes + 8), (None, library.bytes)):
        assert library.call("init", handle, ctypes.c_void_p(place), ctypes.c_size_t(size)) == -1
    assert library.call("input", library.instance().handle, 1) is None


def test_the_header_says_what_there_is(integer_net, tmp_path) -> None:
    library = Library(integer_net, tmp_path)
    header = (tmp_path / "net.h").read_text()
    assert f"#define NET_ARENA_BYTES {library.bytes}" in header
    assert '#define NET_VERSION "1.2.3"' in header
    assert "#define NET_INPUT0_BYTES 429" in header
    program = tmp_path / "check.cpp"
    program.write_text('#include "net.h"\nint main() { return net_inputs[0].scale > 0 && net_inputs[0].rank == 4 ? 0 : 1; }\n')
    made = tmp_path / "check"
    subprocess.run(["c++", "-Wall", "-Werror", "-I", tmp_path, program, tmp_path / "net.so", "-o", made], check=True)
    assert subprocess.run([made], env={"LD_LIBRARY_PATH": str(tmp_path)}).returncode == 0


def test_equal_layers_share_code_and_views_copy_nothing(tmp_path) -> None:
    x = relax.Var("x", relax.TensorType((1, 8, 6, 6), "float32"))
    weights = [relax.Var(f"w{i}", relax.TensorType((8, 8, 3, 3), "float32")) for i in range(4)]
    builder = relax.BlockBuilder()
    with builder.function("main", [x, *weights], attrs={"num_input": 1}):
        with builder.dataflow():
            value = x
            for weight in weights:
                value = builder.emit(relax.op.nn.relu(relax.op.nn.conv2d(value, weight, padding=[1, 1, 1, 1])))
            out = builder.emit_output(relax.op.reshape(value, (1, 288)))
        builder.emit_func_output(out)
    random = np.random.default_rng(0)
    values = {w.name: (random.normal(size=(8, 8, 3, 3)) / 9).astype("float32") for w in weights}
    mod = attach_params(builder.get(), values)
    library = Library(mod, tmp_path)
    program = library.made.program
    assert len([step for step in program.steps if "conv" in step.function]) == 4
    assert len([name for name in program.functions if "conv" in name]) == 1
    sample = random.normal(size=(1, 8, 6, 6)).astype("float32")
    np.testing.assert_allclose(infer(library, sample)[0], run(mod, [sample])[0], rtol=1e-4, atol=1e-5)


def test_a_residual_addition_takes_the_place_of_its_shortcut(tmp_path) -> None:
    x = relax.Var("x", relax.TensorType((1, 4, 16, 16), "float32"))
    weights = [relax.Var(f"w{i}", relax.TensorType((4, 4, 3, 3), "float32")) for i in range(3)]

    def conv(value, weight):
        return relax.op.nn.conv2d(value, weight, padding=[1, 1, 1, 1])

    builder = relax.BlockBuilder()
    with builder.function("main", [x, *weights], attrs={"num_input": 1}):
        with builder.dataflow():
            shortcut = builder.emit(relax.op.nn.relu(conv(x, weights[0])))
            value = builder.emit(relax.op.nn.relu(conv(shortcut, weights[1])))
            out = builder.emit_output(relax.op.nn.relu(relax.op.add(conv(value, weights[2]), shortcut)))
        builder.emit_func_output(out)
    random = np.random.default_rng(0)
    mod = attach_params(builder.get(), {w.name: random.normal(size=(4, 4, 3, 3)).astype("float32") for w in weights})
    library = Library(mod, tmp_path)
    (step,) = [step for step in library.made.program.steps if step.inplace]
    arena = library.made.arena
    assert arena.offset(step.inplace) == arena.offset(step.results[0])
    # Two tensors and the padded rows of a convolution; a third tensor would not fit.
    assert 2 * 4096 < library.bytes < 3 * 4096
    sample = random.normal(size=(1, 4, 16, 16)).astype("float32")
    np.testing.assert_allclose(infer(library, sample)[0], run(mod, [sample])[0], rtol=1e-4, atol=1e-4)


def test_chains_of_integer_operators_do_not_multiply(tmp_path) -> None:
    """Inlined into one another, three sums are more than TVM's simplifier comes to an end with."""
    variables = [relax.Var(name, relax.TensorType((1, 3, 4, 8), "int8")) for name in "abcd"]
    points = {"input1_zero_point": 3, "input2_zero_point": -7, "output_zero_point": 5, **ops.add_parameters(0.1, 0.07, 0.12)}
    builder = relax.BlockBuilder()
    with builder.function("main", variables, attrs={"num_input": 4}):
        with builder.dataflow():
            total = builder.emit(ops.qadd(variables[0], variables[1], **points))
            total = builder.emit(ops.qadd(total, variables[2], **points))
            out = builder.emit_output(ops.qadd(total, variables[3], **points))
        builder.emit_func_output(out)
    mod = attach_params(builder.get(), {})
    library = Library(mod, tmp_path)
    inputs = list(np.random.default_rng(0).integers(-128, 128, (4, 1, 3, 4, 8)).astype("int8"))
    np.testing.assert_array_equal(infer(library, *inputs)[0], run(mod, inputs)[0])


@pytest.mark.parametrize("prefix", ["Net", "1net", "ne-t", "", "net\n", "../net", "m", "example"])
def test_a_prefix_that_cannot_start_a_name_is_refused(float_net, tmp_path, prefix) -> None:
    with pytest.raises(UserError, match="cannot start C names|the name of something else"):
        generate(float_net, HOST, tmp_path, registers=NEON, prefix=prefix)
