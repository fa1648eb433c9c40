"""Candidates that share work are compiled to the same object files as on their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from tvm.tirx.build import codegen_build

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.integer import ops
from tvmcompress.targets import get_target
from tvmcompress.targets.aot.lower import lower
from tvmcompress.targets.kernels.compiler_options import act_late, without_options
from tvmcompress.targets.kernels.decisions import Decisions
from tvmcompress.targets.kernels.use_kernels import Site
from tvmcompress.targets.object_code import code_alone, object_code, object_of_source
from tvmcompress.targets.trials.compile import Compiler
from tvmcompress.targets.trials.site import SiteTrials
from tvmcompress.targets.trials.trial import Trial
from tvmcompress.targets.trials.tunable import TunableTarget


def convolution(core: str) -> tuple[TunableTarget, Site]:
    """A 3x3 convolution of 8 to 8 channels."""
    random = np.random.default_rng(0)
    values = {
        "weight": random.integers(-127, 128, (8, 3, 3, 8)).astype("int8"),
        "bias": random.integers(-999, 999, 8).astype("int32"),
        "multiplier": random.integers(1 << 30, (1 << 31) - 1, 8).astype("int32"),
        "shift": np.full(8, -9, "int32"),
    }
    x = relax.Var("x", relax.TensorType((1, 6, 8, 8), "int8"))
    parameters = [relax.Var(name, relax.TensorType(value.shape, value.dtype.name)) for name, value in values.items()]
    builder = relax.BlockBuilder()
    with builder.function("main", [x, *parameters], attrs={"num_input": 1}):
        with builder.dataflow():
            y = builder.emit_output(ops.qconv2d(x, *parameters, padding=(1, 1, 1, 1), input_zero_point=3, output_zero_point=0))
        builder.emit_func_output(y)
    target = get_target(core)
    assert isinstance(target, TunableTarget)
    (site,) = target.survey(attach_params(builder.get(), values))
    return target, site


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m55", "cortex-a76"])
def test_objects_of_neighbours_are_those_of_each_alone(core: str) -> None:
    target, site = convolution(core)
    tvm_target = target.emulator().tvm
    space = site.choice.space
    # All options of one plan, and another one.
    first = without_options(space[0])
    points: list[Decisions] = [*(point for point in space if without_options(point) == first), space[-1]]
    assert without_options(space[-1]) != first
    trials, compiler = SiteTrials(site), Compiler(tvm_target)
    shared = [trials.trial(point) for point in points]
    made = [compiler.compile("candidate", trial)[0] for trial in shared if trial is not None]
    assert len(made) == len(points)
    for trial, content in zip(shared, made):
        assert content == alone(trial, tvm_target)
    if core.startswith("cortex-m"):
        functions = {id(trial.func) for trial in shared if trial is not None}
        assert len(functions) == 2 < len(points)
        assert all(act_late(trial.options) for trial in shared if trial is not None)
        # Options do something.
        assert len(set(made)) > 2


def alone(trial: Trial | None, tvm_target: dict[str, object]) -> bytes:
    """A candidate compiled with nothing shared: TVM's code generator knows the options from the start, as in libraries."""
    return object_of_source(code_alone(generated(trial, tvm_target).inspect_source("ll")))


def generated(trial: Trial | None, tvm_target: dict[str, object]) -> tvm.runtime.Module:
    """The module that TVM's code generator makes of a candidate."""
    assert trial is not None
    assert trial.func is not None
    lowered = lower({"candidate": trial.func}, tvm.target.Target(tvm_target))
    options = {"cl-opt": trial.options.split()} if trial.options else {}
    return codegen_build(lowered.module, tvm.target.Target({**tvm_target, **options}))


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m55", "cortex-a76"])
def test_what_is_left_out_beside_code_changes_none_of_it(core: str, tmp_path: Path) -> None:
    target, site = convolution(core)
    emulator = target.emulator()
    module = generated(SiteTrials(site).trial(site.choice.default), emulator.tvm)
    source = module.inspect_source("ll")
    shorter = code_alone(source)
    assert "!dbg" in source
    assert "!dbg" not in shorter
    assert "fp16.conv" in source
    assert "fp16.conv" not in shorter
    whole, alone = object_code(module), object_of_source(shorter)
    assert len(alone) < len(whole)
    listings = []
    for name, content in (("whole.o", whole), ("alone.o", alone)):
        (tmp_path / name).write_bytes(content)
        command = [f"{emulator.prefix}objdump", "-d", "-r", "-j", ".text", tmp_path / name]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        listings.append(listed.split("section .text:")[1])
    assert listings[0] == listings[1]
    assert "candidate" in listings[0]


def test_conversions_of_half_floats_stay_where_there_are_some() -> None:
    conversion = 'define weak i16 @__truncsfhf2(float %a) #1 section ".text.tvm.fp16.conv" {\nentry:\n  ret i16 0\n}\n'
    uses = "define void @f(ptr %x) {\n  %y = load half, ptr %x\n  ret void\n}\n"
    assert code_alone(uses + conversion) == uses + conversion
    assert code_alone(uses.replace("half", "float") + conversion) == uses.replace("half", "float")
