"""Tuning kernels under the emulators: what is found is right, kept, taken by builds, and not tried again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tvmcompress.errors import UserError
from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.targets import get_target
from tvmcompress.targets.aot.lower import lower
from tvmcompress.targets.kernels import versions
from tvmcompress.targets.kernels.compiler_options import without_options
from tvmcompress.targets.kernels.decisions import point_key
from tvmcompress.targets.kernels.records import KernelRecord, append_all, workload_module
from tvmcompress.targets.trials.image import measure
from tvmcompress.targets.trials.site import SiteTrials
from tvmcompress.targets.trials.tunable import TunableTarget
from tvmcompress.targets.tuning_log import RECORDS, TuningLog
from tvmcompress.tuning.progress import TuningProgress
from tvmcompress.tuning.tune import tune

CORES = [
    pytest.param(name, marks=pytest.mark.skipif(bool(get_target(name).missing_tools()), reason=f"needs the tools of {name}"))
    for name in ("cortex-m4", "cortex-m55", "cortex-a76")
]


def network() -> tvm.IRModule:
    """A 3x3 convolution, a depthwise one, a sum with a pointwise one, and a fully connected layer."""
    random = np.random.default_rng(0)
    params: dict[str, np.ndarray] = {}

    def layer(name: str, weight: tuple[int, ...], outputs: int) -> list[relax.Var]:
        values = {
            "weight": random.integers(-127, 128, weight).astype("int8"),
            "bias": random.integers(-999, 999, outputs).astype("int32"),
            "multiplier": random.integers(1 << 30, (1 << 31) - 1, outputs).astype("int32"),
            "shift": np.full(outputs, -9, "int32"),
        }
        params.update({f"{name}_{key}": value for key, value in values.items()})
        return [relax.Var(f"{name}_{k}", relax.TensorType(v.shape, v.dtype.name)) for k, v in values.items()]

    x = relax.Var("x", relax.TensorType((1, 12, 8, 4), "int8"))
    first, second = layer("first", (16, 3, 3, 4), 16), layer("second", (1, 3, 3, 16), 16)
    third, last = layer("third", (16, 1, 1, 16), 16), layer("last", (10, 12 * 8 * 16), 10)
    builder = relax.BlockBuilder()
    with builder.function("main", [x, *first, *second, *third, *last], attrs={"num_input": 1}):
        with builder.dataflow():
            a = builder.emit(ops.qconv2d(x, *first, padding=(1, 1, 1, 1), input_zero_point=3, output_zero_point=-128))
            b = builder.emit(ops.qdepthwise(a, *second, padding=(1, 1, 1, 1), input_zero_point=-128, output_zero_point=4))
            made = builder.emit(ops.qconv2d(b, *third, input_zero_point=4, output_zero_point=7))
            scales = ops.add_parameters(0.1, 0.07, 0.2)
            added = ops.qadd(made, b, input1_zero_point=7, input2_zero_point=4, output_zero_point=-4, **scales)
            c = builder.emit(added)
            flat = builder.emit(relax.op.reshape(c, (1, 12 * 8 * 16)))
            y = builder.emit_output(ops.qdense(flat, *last, input_zero_point=-4, output_zero_point=0))
        builder.emit_func_output(y)
    return attach_params(builder.get(), params)


@pytest.mark.parametrize("core", CORES)
def test_a_model_is_tuned_once_and_stays_right(core: str, tmp_path: Path) -> None:
    mod, log = network(), tmp_path / "log"
    seen: list[TuningProgress] = []
    result = tune(mod, core, 20, log, on_progress=seen.append)
    assert result.unit == "instructions"
    assert 0 < result.trials <= 20
    assert seen[-1].total_trial == result.trials
    assert all(task.outcomes.keys() == {"ok"} for task in result.tasks if task.trials)
    assert all(task.best_cost <= task.default_cost for task in result.tasks if task.best_cost and task.default_cost)
    assert result.model_best is not None
    assert result.model_default is not None
    assert result.model_best <= 1.001 * result.model_default
    x = np.random.default_rng(1).integers(-128, 128, (2, 12, 8, 4)).astype("int8")
    expected = np.concatenate([run(mod, [sample[None]])[0] for sample in x])
    target = get_target(core)
    tuned = target.build(mod, tmp_path / "tuned", tuning_log=log)
    np.testing.assert_array_equal(tuned.run([x])[0], expected)
    assert tuned.measure().instructions == result.model_best
    untuned = target.build(mod, tmp_path / "untuned", tuning_log=False)
    assert untuned.measure().instructions == result.model_default
    if core.startswith("cortex-m"):  # flash is counted there alone
        assert (tuned.measure().flash_bytes or 0) <= (untuned.measure().flash_bytes or 0)
    # What the log knows is not tried again.
    records = (log / RECORDS).read_text().splitlines()
    assert len(records) == result.trials
    again = tune(mod, core, 4, log)
    assert len((log / RECORDS).read_text().splitlines()) == result.trials + again.trials
    assert len(set((log / RECORDS).read_text().splitlines())) == result.trials + again.trials


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m55", "cortex-a76"])
def test_candidates_are_lowered_to_what_builds_lower_them_to(core: str) -> None:
    target = get_target(core)
    assert isinstance(target, TunableTarget)
    random, compiled_for = np.random.default_rng(3), tvm.target.Target(target.emulator().tvm)
    for site in target.survey(network()):
        maker, groups = SiteTrials(site), {point_key(without_options(point)): point for point in site.choice.space}
        for key in random.permutation(sorted(groups))[:4]:
            trial = maker.trial(groups[key])
            assert trial is not None
            assert trial.func is not None
            quickly, usually = (lower({"kernel": trial.func}, compiled_for, tidy=tidy) for tidy in (True, False))
            assert quickly.workspaces == usually.workspaces
            tvm.ir.assert_structural_equal(quickly.module, usually.module)


@pytest.mark.parametrize("core", CORES)
def test_points_drawn_from_the_spaces_are_right(core: str) -> None:
    target = get_target(core)
    assert isinstance(target, TunableTarget)
    random = np.random.default_rng(2)
    trials = []
    for site in target.survey(network()):
        maker, space = SiteTrials(site), site.choice.space
        drawn = random.choice(len(space), min(6, len(space)), replace=False)
        trials += [partial(maker.trial, space[int(index)]) for index in drawn]
    outcomes = measure(trials, target.emulator())
    assert len(trials) > 8
    assert {outcome.status for outcome in outcomes} == {"ok"}


@pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")
def test_a_core_that_is_compiled_for_alike_shares_the_log(tmp_path: Path) -> None:
    mod, log = network(), tmp_path / "log"
    m4, m7 = get_target("cortex-m4"), get_target("cortex-m7")
    assert isinstance(m4, TunableTarget)
    choice = m4.survey(mod)[0].choice
    key, target = workload_module(choice.workload, "cortex-m4"), tvm.target.Target(m4.emulator().tvm)
    records = [KernelRecord(choice.default, 1000, 90, default=True), KernelRecord(choice.space[-1], 1, 90)]
    append_all(TuningLog(log), key, records, target)
    for made in (m4, m7):
        made.build(mod, tmp_path / made.description.name, tuning_log=log)
    m7.build(mod, tmp_path / "untuned", tuning_log=False)
    assert _kernels(tmp_path / "cortex-m7") == _kernels(tmp_path / "cortex-m4") != _kernels(tmp_path / "untuned")


def _kernels(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("model_kernels*.o"))]


@pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")
def test_logs_that_do_not_fit_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mod, log = network(), tmp_path / "log"
    result = tune(mod, "cortex-m4", 16, log)
    target = get_target("cortex-m4")

    def instructions(name: str) -> int | None:
        return target.build(mod, tmp_path / name, tuning_log=log).measure().instructions

    # A line that was being written when the power went.
    content = (log / RECORDS).read_bytes()
    (log / RECORDS).write_bytes(content[:-20])
    assert instructions("truncated") is not None
    (log / RECORDS).write_bytes(content)
    # Another core's records, and those of kernels that have changed since.
    other = get_target("cortex-m33")
    foreign = other.build(mod, tmp_path / "foreign", tuning_log=log).measure()
    assert foreign.instructions == other.build(mod, tmp_path / "m33", tuning_log=False).measure().instructions
    monkeypatch.setitem(versions.VERSIONS, "dsp", 99)
    assert instructions("stale") == result.model_default


def test_what_has_nothing_to_tune_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not get_target("cortex-m3").missing_tools():
        with monkeypatch.context() as without:
            without.setattr(type(get_target("cortex-m3")), "kernel_passes", lambda self, *args, **options: [])
            with pytest.raises(UserError, match="cortex-m3 has no kernels of its own"):
                tune(network(), "cortex-m3", 1, tmp_path)
    x = relax.Var("x", relax.TensorType((1, 4), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            y = builder.emit_output(relax.op.nn.relu(x))
        builder.emit_func_output(y)
    if not get_target("cortex-m4").missing_tools():
        with pytest.raises(UserError, match="quantize it first"):
            tune(builder.get(), "cortex-m4", 1, tmp_path)
