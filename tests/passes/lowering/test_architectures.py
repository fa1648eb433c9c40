"""Architectures from PyTorch in integers: nothing stays in float, and little is lost."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.importing import from_onnx
from tvmcompress.passes import IntegerCore, LowerQDQ, Quantize, calibrate, get_remarks
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import Interpreter, run
from tvmcompress.passes.graph.rebuild import bindings

pytest.importorskip("torch")

from .. import torch_zoo as zoo
from ..integer import running

ARCHITECTURES = {architecture.name: architecture for architecture in zoo.ARCHITECTURES}
# Operators in float, by architecture; none is where nothing is said. These join outputs of boxes and of scores, whose ranges
# lie so far apart that each keeps a scale of its own: quantization leaves the join, and what moves its values, in float.
FLOAT: dict[str, set[str]] = {"FeaturePyramid": {"concat"}, "Yolo": {"concat", "reshape"}}
# Calibrated and measured on the same samples, so that rounding alone is seen and no values beyond a range.
SAMPLES = range(4)
# In dB. Rounding a tensor to 8 bits leaves noise of some -35 to -45 dB, which adds up over the tensors in series: a
# hundred of them come to 20 dB more at worst. The noisiest here are transformers with 60 and more.
LEAST_SNR = 24.0
# In dB. Integer arithmetic rounds inside of operators too: multipliers, probabilities of softmax, resampling.
MOST_LOST_TO_ARITHMETIC = 5.0


def lowered(name: str) -> tuple[tvm.IRModule, tvm.IRModule, tvm.IRModule]:
    """The float model, the quantized one in float arithmetic, and the integer one."""
    architecture = ARCHITECTURES[name]
    mod = from_onnx(zoo.export(zoo.instantiate(architecture.build), architecture.sample())).module
    qdq = Quantize(calibrate(mod, [architecture.sample(seed) for seed in SAMPLES]))(mod)
    return mod, qdq, LowerQDQ()(qdq)


def float_operators(mod: tvm.IRModule) -> set[str]:
    """Operators, without prefix, that compute a float tensor."""
    found = set()
    for var, value in bindings(mod["main"]):
        if isinstance(value, relax.Call) and value.op.name not in ("relax.dequantize", "relax.quantize"):
            types = var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]
            if any(str(ty.dtype).startswith("float") for ty in types):
                found.add(value.op.name.removeprefix("relax."))
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(name: str) -> None:
    mod, qdq, integer = lowered(name)
    assert float_operators(integer) == FLOAT.get(name, set())
    named = {r.message.split(" stays")[0] for r in get_remarks(integer) if r.pass_name == "LowerQDQ"}
    assert named == FLOAT.get(name, set())
    # What is left of floats are the ends.
    assert name in FLOAT or not float_operators(IntegerCore()(integer))
    power = noise = rounding = 0.0
    interpreters = [Interpreter(module) for module in (mod, qdq, integer)]
    for seed in SAMPLES:
        sample = ARCHITECTURES[name].sample(seed)
        for real, simulated, found in zip(*(interpreter(sample) for interpreter in interpreters)):
            power += float(np.square(real.astype(np.float64)).sum())
            noise += float(np.square(real - found.astype(np.float64)).sum())
            rounding += float(np.square(real - simulated.astype(np.float64)).sum())
    snr, simulated_snr = (10 * np.log10(power / value) for value in (noise, rounding))
    assert snr >= LEAST_SNR
    assert snr >= simulated_snr - MOST_LOST_TO_ARITHMETIC


@pytest.mark.parametrize("name", ["VisionTransformer", "UNet", "Bert", "volumes"])
def test_the_compiled_program_equals_its_reference(name: str) -> None:
    _, _, integer = lowered(name)
    sample = ARCHITECTURES[name].sample(50)
    for by_code, by_reference in zip(running.compiled(integer, sample), run(integer, sample)):
        np.testing.assert_array_equal(by_code, by_reference)
