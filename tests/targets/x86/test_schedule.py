"""The schedule template: every point computes the same, the defaults are sensible, and logs decide where they know."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import LowerQDQ, Quantize, attach_params, calibrate
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.module_params import param_vars, static_shape
from tvmcompress.targets import get_target
from tvmcompress.targets.kernels.records import KernelRecord, append, final_decisions, read, workload_module, workload_of
from tvmcompress.targets.tuning_log import TuningLog, packaged_log_directory
from tvmcompress.targets.x86 import host
from tvmcompress.targets.x86.compile import compile_module
from tvmcompress.targets.x86.layer import VECTOR
from tvmcompress.targets.x86.lower import lower, prim_funcs, workload
from tvmcompress.targets.x86.space import default_tile, lane_options
from tvmcompress.targets.x86.tuning import X86Tuning
from tvmcompress.tuning.logs import verify


@I.ir_module
class Wide:
    """Weights larger than the first-level cache, so that the order of the outer loops is a choice."""

    @R.function
    def main(
        x: R.Tensor((1, 96, 3, 6), "float32"),
        w: R.Tensor((96, 96, 3, 3), "float32"),
        b: R.Tensor((1, 96, 1, 1), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.nn.relu(R.add(R.nn.conv2d(x, w, padding=[1, 1, 1, 1]), b))
            R.output(y)
        return y


@I.ir_module
class Residual:
    """Two convolutions, one depthwise, an addition and a classifier, to be quantized."""

    @R.function
    def main(
        x: R.Tensor((1, 3, 8, 8), "float32"),
        w0: R.Tensor((16, 3, 3, 3), "float32"),
        b0: R.Tensor((1, 16, 1, 1), "float32"),
        w1: R.Tensor((16, 1, 3, 3), "float32"),
        b1: R.Tensor((1, 16, 1, 1), "float32"),
        w2: R.Tensor((16, 16, 1, 1), "float32"),
        b2: R.Tensor((1, 16, 1, 1), "float32"),
        w3: R.Tensor((16, 5), "float32"),
        b3: R.Tensor((5,), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.nn.relu(R.add(R.nn.conv2d(x, w0, padding=[1, 1, 1, 1]), b0))
            b = R.nn.relu(R.add(R.nn.conv2d(a, w1, padding=[1, 1, 1, 1], groups=16), b1))
            c = R.nn.relu(R.add(R.add(R.nn.conv2d(b, w2), b2), a))
            d = R.mean(c, axis=[2, 3])
            e = R.nn.softmax(R.add(R.matmul(d, w3), b3), axis=1)
            R.output(e)
        return e


def filled(mod, seed=0):
    random = np.random.default_rng(seed)
    values = {}
    for var in param_vars(mod["main"]):
        shape = static_shape(var)
        values[var.name] = (random.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1))).astype("float32")
    return attach_params(mod, values)


def quantized(seed=0):
    mod = filled(Residual, seed)
    samples = np.random.default_rng(seed + 1).normal(size=(16, 3, 8, 8)).astype("float32")
    passes = [Quantize(calibrate(mod, [[samples]])), LowerQDQ()]
    return tvm.transform.Sequential(passes)(mod), samples


def varied(index):
    """Decides with the points of each space in turn, from a place of its own on."""

    def decide(choice):
        return choice.space[index % len(choice.space)]

    return decide


def test_every_decision_is_taken_and_computes_the_same() -> None:
    mod = filled(Wide)
    x = np.random.default_rng(1).normal(size=(1, 96, 3, 6)).astype("float32")
    (expected,) = run(mod, [x])
    tuning = X86Tuning()
    found = [tuning.choice(workload(func)) for func in prim_funcs(lower(mod)).values()]
    choice = max((choice for choice in found if choice), key=lambda choice: len(choice.space))
    values = {name: {point[name] for point in choice.space} for name in choice.default}
    assert values["order"] == {"rows", "channels"}
    assert values["border"] == {"whole", "band"}
    assert values["taps"] == {"loop", "unrolled", "inner"}
    assert values["rows"] == {1, 3}
    for name, options in values.items():
        for value in options:
            fitting = [point for point in choice.space if point[name] == value]
            middle = fitting[len(fitting) // 2]

            def decide(other, point=middle):
                return point if point in other.space else None

            compiled = compile_module(mod, decide=decide)
            assert len(compiled.schedules.tuned) == 1
            got = relax.VirtualMachine(compiled.executable, tvm.cpu())["main"](tvm.runtime.tensor(x)).numpy()
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_weights_are_laid_out_at_compile_time() -> None:
    lowered = lower(filled(Wide))
    calls = [binding.value for block in lowered["main"].body.blocks for binding in block.bindings]
    names = [call.args[0].name_hint for call in calls if isinstance(call, relax.Call)]
    assert sum("transpose" in name for name in names) == 2  # the input to NHWC, the output back
    assert len(names) == 3


@pytest.mark.parametrize(
    ("channels", "options"),
    [(64, [8, 16, 32, 64]), (24, [8, 24]), (10, [1, 2, 5, 10]), (13, [1, 13]), (1, [1]), (128, [8, 16, 32, 64])],
)
def test_tiles_take_whole_vectors_where_they_can(channels, options) -> None:
    assert lane_options(channels) == options


def test_a_single_position_takes_more_channels() -> None:
    assert lane_options(640, 16, 1) == [16, 32, 64, 80, 128]
    assert default_tile(lane_options(640, 16, 1), 1, 16) == (128, 1)
    assert default_tile(lane_options(128, 8, 1), 1, VECTOR) == (64, 1)  # eight sums, and weights from memory


@pytest.mark.parametrize("streamed", [False, True])
def test_weights_of_the_second_cache_are_used_for_several_positions(streamed) -> None:
    # Seven positions of two vectors lack one register, which takes less time than to read weights for each of seven.
    assert default_tile(lane_options(512, 16), 7, VECTOR, streamed=streamed) == ((16, 7) if streamed else (64, 1))
    assert default_tile(lane_options(512, 16), 14, VECTOR, streamed=streamed) == (32, 2)
    # Where a missing register costs too much, vectors may be halves of what is packed together.
    halves = [8, *lane_options(512, 16)]
    assert default_tile(halves, 7, VECTOR, streamed=True, lacks=False) == (8, 7)
    assert default_tile(halves, 14, VECTOR, streamed=True, lacks=False) == (32, 2)


@pytest.mark.parametrize(("cpu", "tile"), [("x86-64-v3", (8, 7)), ("x86-64-v4", (32, 7))])
def test_streamed_weights_of_a_kernel_with_taps_leave_sums_in_registers(cpu, tile) -> None:
    mod = convolution((64, 14, 14), (128, 64, 3, 3), strides=[2, 2])
    (default,) = window_defaults(mod, cpu)
    assert (default["channels"], default["positions"]) == tile
    x = np.random.default_rng(1).normal(size=(1, 64, 14, 14)).astype("float32")
    mod = filled(mod)
    got = relax.VirtualMachine(compile_module(mod).executable, tvm.cpu())["main"](tvm.runtime.tensor(x)).numpy()
    np.testing.assert_allclose(got, run(mod, [x])[0], rtol=1e-4, atol=1e-4)


def test_positions_a_page_apart_are_few() -> None:
    def positions(channels: int) -> int:
        x, weight = relax.Var("x", relax.TensorType((1, channels, 14, 14), "float32")), np.ones((32, channels, 1, 1), "float32")
        builder, w = relax.BlockBuilder(), relax.Var("w", relax.TensorType(weight.shape, "float32"))
        with builder.function("main", [x, w], attrs={"num_input": 1}):
            with builder.dataflow():
                out = builder.emit_output(builder.emit(relax.op.nn.conv2d(x, w)))
            builder.emit_func_output(out)
        tuning = X86Tuning("x86-64-v4")
        functions = prim_funcs(tuning.lower(attach_params(builder.get(), {"w": weight})))
        (product,) = [workload(func) for name, func in functions.items() if "conv2d" in name]
        return tuning.choice(product).default["positions"]

    assert positions(512) == 14
    assert positions(1024) == 7


@pytest.mark.parametrize("width", [1, 2, 5, 7, 10, 32, 56])
@pytest.mark.parametrize("channels", [8, 16, 48, 64])
def test_default_tiles_fit_the_registers(width, channels) -> None:
    lanes, positions = default_tile(lane_options(channels), width, VECTOR)
    assert width % positions == channels % lanes == 0
    assert lanes // VECTOR * positions + (lanes // VECTOR if positions > 1 else 0) + 1 <= 16
    if width > 1 and channels > 8:
        assert lanes // VECTOR * positions >= 4


@pytest.mark.parametrize("width", [1, 7, 14, 28, 56, 112])
@pytest.mark.parametrize("channels", [16, 48, 64, 96])
def test_tiles_leave_requantization_a_register_for_every_sum(width, channels) -> None:
    lanes, positions = default_tile(lane_options(channels, 16), width, 16, requantized=True)
    assert width % positions == channels % lanes == lanes % 16 == 0
    assert lanes // 16 * positions <= 14
    if width > 1:
        assert lanes // 16 * positions >= 7
        assert lanes <= 32
    else:
        assert lanes == max(lane_options(channels, 16))


def test_integer_tiles_of_wide_registers_by_formula() -> None:
    mod, _ = quantized()
    tuning = X86Tuning("x86-64-v4")
    found = {name: tuning.choice(workload(func)) for name, func in prim_funcs(tuning.lower(mod)).items()}
    defaults = {name: choice.default for name, choice in found.items() if choice and "q" in name and "mean" not in name}
    first, depthwise, pointwise, dense = (defaults[name] for name in sorted(defaults, key=len))
    # Rows of the first layer are shared by kernels; those of 1x1 are not, and of a dense layer there is one.
    assert [layer["border"] for layer in (first, depthwise, pointwise, dense)] == ["whole", "none", "band", "whole"]
    assert [layer["positions"] for layer in (first, depthwise, pointwise, dense)] == [8, 4, 8, 1]


@pytest.mark.parametrize(("channels", "together"), [(10, 10), (4, 4), (24, 8), (50, 10)])
def test_channels_of_float_windows_are_taken_together(channels, together) -> None:
    mod = convolution((channels, 12, 12), (channels, 1, 3, 3), groups=channels)
    assert [default["channels"] for default in window_defaults(mod, "x86-64-v3")] == [together]


@pytest.mark.parametrize(
    ("channels", "stride", "together", "border"), [(32, 1, 16, "whole"), (32, 2, 16, "band"), (24, 1, 8, "whole")]
)
def test_windows_take_whole_registers_of_512_bits(channels, stride, together, border) -> None:
    mod = convolution((channels, 12, 12), (channels, 1, 3, 3), groups=channels, strides=[stride, stride])
    (wide,), (narrow,) = (window_defaults(mod, level) for level in ("x86-64-v4", "x86-64-v3"))
    assert (wide["channels"], wide["border"]) == (together, border)
    assert (narrow["channels"], narrow["border"]) == (8, border)


@pytest.mark.parametrize(
    ("channels", "rows", "columns", "stride", "expected"),
    [
        (32, 12, 12, 1, (4, 2, "whole")),
        (32, 12, 12, 2, (3, 2, "band")),
        (32, 13, 16, 1, (8, 1, "whole")),  # rows that no two share
        (32, 10, 10, 1, (5, 1, "whole")),  # pairs of columns would leave the multipliers waiting
        (32, 14, 14, 1, (2, 2, "whole")),
        (10, 12, 12, 1, (4, 1, "whole")),  # two registers a position
        (4, 12, 16, 1, (8, 1, "whole")),
        (32, 3, 3, 1, (3, 3, "band")),
    ],
)
def test_windows_in_registers_of_256_bits(channels, rows, columns, stride, expected) -> None:
    mod = convolution((channels, rows, columns), (channels, 1, 3, 3), groups=channels, strides=[stride, stride])
    (default,) = window_defaults(mod, "x86-64-v3")
    assert tuple(default[name] for name in ("positions", "rows", "border")) == expected
    # A tile's sums, 256 bits each, and the weights of a tap: LLVM spills more than these.
    assert -(-default["channels"] // 8) * default["positions"] * default["rows"] <= 9


@pytest.mark.parametrize(("cpu", "registers", "tiles"), [("x86-64-v3", 2, 4), ("x86-64-v4", 4, 4)])
def test_minimal_filtering_of_floats_prefers_more_tiles_to_more_registers_of_weights(cpu, registers, tiles) -> None:
    mod = convolution((64, 8, 8), (64, 64, 3, 3))
    (default,) = (default for default in window_defaults(mod, cpu) if "tile_rows" in default)
    assert (default["channels"], default["positions"]) == (registers * (8 if cpu == "x86-64-v3" else 16), tiles)


def convolution(size, kernel, **attrs):
    """A float convolution of (channels, rows, columns) with a border of one."""
    x, weight = (
        relax.Var("x", relax.TensorType((1, *size), "float32")),
        relax.Var("weight", relax.TensorType(kernel, "float32")),
    )
    builder = relax.BlockBuilder()
    with builder.function("main", [x, weight], attrs={"num_input": 1}):
        with builder.dataflow():
            result = builder.emit_output(relax.op.nn.conv2d(x, weight, padding=[1, 1, 1, 1], **attrs))
        builder.emit_func_output(result)
    return builder.get()


def window_defaults(mod, cpu):
    """What formulas take for the functions of a module that have channels."""
    tuning = X86Tuning(cpu)
    choices = [tuning.choice(workload(func)) for func in prim_funcs(tuning.lower(filled(mod))).values()]
    return [choice.default for choice in choices if choice and "channels" in choice.default]


def test_a_build_reads_the_log(tmp_path) -> None:
    tuning, mod = X86Tuning(), filled(Wide)
    choices = [tuning.choice(workload(func)) for func in prim_funcs(tuning.lower(mod)).values()]
    choice = max((choice for choice in choices if choice), key=lambda choice: len(choice.space))

    def build(name, decisions=choice.space[-1], **others):
        log = TuningLog(tmp_path / f"{name}-log")
        for cpu, taken in (others or {tuning.core: decisions}).items():
            key = workload_module(choice.workload, cpu)
            append(log, key, KernelRecord(choice.default, 2e-6), tuning.log_target)
            append(log, key, KernelRecord(taken, 1e-6), tuning.log_target)
        return get_target("x86").build(mod, tmp_path / name, tuning_log=[log])

    tuned, plain = build("tuned"), get_target("x86").build(mod, tmp_path / "plain", tuning_log=False)
    assert len(tuned.tuned) == 1
    assert plain.tuned == ()
    # What was measured of another CPU, and what the template does not offer.
    assert build("foreign", **{"x86-64-v9": choice.space[-1]}).tuned == ()
    assert build("unknown", decisions={"channels": 5}).tuned == ()
    # What holds for the level, where the log knows nothing of this CPU that can be had.
    level = {host.cpu_level(host.host_cpu()): choice.space[-1]}
    assert len(build("level", **level).tuned) == 1
    assert len(build("stale", **{tuning.core: {"channels": 5}}, **level).tuned) == 1
    x = np.random.default_rng(1).normal(size=(1, 96, 3, 6)).astype("float32")
    np.testing.assert_allclose(tuned.run([x])[0], plain.run([x])[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cpu", ["portable", "native"])
def test_integer_model_equals_the_reference(tmp_path, cpu) -> None:
    mod, samples = quantized()
    built = get_target("x86").build(mod, tmp_path / "int8", tuning_log=False, cpu=cpu)
    assert (built.inputs[0].dtype, built.inputs[0].layout, built.outputs[0].dtype) == ("int8", "NHWC", "int8")
    assert sum("x86_q" in name for name in built.untuned) == 4
    (expected,) = run(mod, [samples])
    np.testing.assert_array_equal(built.run_float([samples])[0], expected)


def test_outputs_that_fill_no_vector_are_scheduled() -> None:
    mod, _ = quantized()
    summary = compile_module(mod).schedules
    assert any("strided_slice" in name for name in summary.default)
    assert not any("slice" in name or "conv" in name for name in summary.unscheduled)


def test_integer_model_with_every_schedule(tmp_path) -> None:
    mod, samples = quantized()
    (expected,) = run(mod, [samples])
    for index in (1, 5, 9):
        compiled = compile_module(mod, decide=varied(37 * index))
        assert len(compiled.schedules.tuned) >= 4
        compiled.executable.export_library(str(tmp_path / f"{index}.so"))
    plain = get_target("x86").build(mod, tmp_path / "plain", tuning_log=False)
    integers = plain.inputs[0].quantize(samples)
    for index in (1, 5, 9):
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / f"{index}.so")), tvm.cpu())
        for number in range(4):
            got = machine["main"](tvm.runtime.tensor(integers[number : number + 1])).numpy()
            np.testing.assert_array_equal(plain.outputs[0].dequantize(got), expected[number : number + 1])


DECISIONS = ["channels", "positions", "rows", "order", "border", "epilogue", "taps", "unroll"]
WINOGRAD = ["tile_rows", "channels", "positions", "unroll"]


def test_the_shipped_log_is_of_todays_templates() -> None:
    log = TuningLog(packaged_log_directory("x86"))
    assert verify(log) == []
    for mod in log.modules():
        workload, records = workload_of(mod), read([log], mod)
        assert workload["core"] in ("x86-64-v3", "x86-64-v4", "znver3", "znver4", "znver5")
        decided = {"winograd": WINOGRAD, "elementwise": ["lanes"]}.get(workload["kernel"], DECISIONS)
        assert all(set(record.decisions) == set(decided) for record in records)
        # The formula's decisions come first; what is shipped beats them.
        assert final_decisions([log], mod, records[0].decisions) != records[0].decisions
