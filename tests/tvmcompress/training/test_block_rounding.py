"""Rounding by blocks: AdaRound's formulas, blocks that make up the program, never worse, repeatable, resumed, refused."""

# Without PyTorch there is nothing to test here.
# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tvmcompress import Model, UserError, compress, load, load_data
from tvmcompress.data.dataset import Dataset
from tvmcompress.measuring.building import build
from tvmcompress.model import InputSpec
from tvmcompress.passes import LowerQDQ, get_remarks
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.view import GraphView
from tvmcompress.passes.quantization.quantized_layers import quantized_layers
from tvmcompress.passes.repair.repairs import make_repair
from tvmcompress.training.block_rounding import RoundBlocks
from tvmcompress.training.block_targets import FloatBlocks
from tvmcompress.training.quantized_blocks import quantized_blocks
from tvmcompress.training.soft_network import SoftNetwork

from ...passes.small_models import model as small_model
from ...passes.small_models import weights as small_weights
from ..cli.running import run as run_command

FEW = {"precision": "int4", "activation_bits": 4, "repair": []}
SHORT: dict[str, Any] = {"iterations": 30, "batch": 16}
op = relax.op


@pytest.fixture(scope="module")
def calibration(digits: Path, digits_model: Model) -> Dataset:
    return load_data(digits / "digits_calib.npz", digits_model.inputs, limit=60)


@pytest.fixture(scope="module")
def quantized(digits_model: Model, calibration: Dataset) -> Model:
    model = compress(digits_model, calibration, quantize=FEW).qdq_model
    assert model is not None
    return model


@pytest.fixture(scope="module")
def repaired(quantized: Model, digits_model: Model, calibration: Dataset) -> Model:
    return quantized.apply(RoundBlocks(digits_model.module, calibration.inputs(), iterations=120), note="rounded")


def error(model: Model, original: Model, inputs: list[np.ndarray]) -> float:
    return float(np.square(model.run(*inputs)[0] - original.run(*inputs)[0]).mean())


def same(a: Model, b: Model) -> bool:
    return all(np.array_equal(a.params[name], value) for name, value in b.params.items())


def test_blocks_make_up_the_program(quantized: Model) -> None:
    graph = GraphView(quantized.module)
    layers = quantized_layers(quantized.module)[0]
    blocks = quantized_blocks(graph, layers)
    assert len(blocks) > 1
    assert [layer.var for block in blocks for layer in block.layers] == list(layers)
    known = {*graph.params, *blocks[0].reads}
    for block in blocks:
        assert set(block.reads) <= known
        for var, value in block.program:
            assert set(relax.analysis.free_vars(value)) <= known
            known.add(var)
        assert block.targets
    assert set(graph.values) <= known


def test_soft_rounding_is_adarounds(quantized: Model, digits_model: Model) -> None:
    """Equations 22 and 23 of the paper: the stretched sigmoid, between the integers around a weight."""
    network = SoftNetwork(quantized, digits_model.params)
    grid = next(iter(quantized_layers(quantized.module)[0].values())).weight
    real = np.asarray(digits_model.params[grid.parameter.name], np.float32).transpose(grid.order)
    v = np.random.default_rng(0).normal(size=real.shape).astype(np.float32) * 3
    network.soften(grid).data.copy_(torch.from_numpy(v))
    found = network._rounded(grid).detach().numpy()
    h = np.clip(1.2 / (1 + np.exp(-v.astype(np.float64))) - 0.1, 0, 1)
    places = np.clip(real / grid.steps, grid.integers - 0.499, grid.integers + 0.499)
    floor = np.clip(np.floor(places), grid.lowest, grid.highest)
    expected = np.clip(floor + h, grid.lowest, grid.highest) * grid.steps
    # Where a weight is an integer, which one is below it is a matter of rounding.
    between = np.abs(places - np.rint(places)) > 1e-3
    assert between.mean() > 0.8
    np.testing.assert_allclose(found[between], expected[between], atol=1e-4 * float(np.abs(expected).max()))


def test_it_comes_closer_to_the_float_model(quantized: Model, repaired: Model, digits_model: Model, digits: Path) -> None:
    inputs = [value[:200] for value in load_data(digits / "digits_test.npz", digits_model.inputs).inputs()]
    assert error(repaired, digits_model, inputs) < 0.9 * error(quantized, digits_model, inputs)
    assert {name: value.dtype for name, value in repaired.params.items()} == {n: v.dtype for n, v in quantized.params.items()}


def test_targets_compute_it(repaired: Model, calibration: Dataset, tmp_path: Path) -> None:
    lowered = repaired.apply(LowerQDQ())
    inputs = calibration.read(0, 8)
    np.testing.assert_array_equal(build(lowered, "x86", tmp_path).run_float(inputs)[0], lowered.run(*inputs)[0])


def test_the_same_seed_gives_the_same_integers_and_a_stopped_run_goes_on(
    quantized: Model, digits_model: Model, calibration: Dataset, tmp_path: Path
) -> None:
    def made(stop: int | None = None, **options: Any) -> RoundBlocks:
        def tell(done: int, total: int, name: str) -> None:
            if done == stop:
                raise KeyboardInterrupt

        return RoundBlocks(digits_model.module, calibration.inputs(), **SHORT, on_progress=tell, **options)

    whole = quantized.apply(made(), note="rounded")
    with pytest.raises(KeyboardInterrupt):
        made(stop=40, checkpoint=tmp_path).transform_module(quantized.module, None)
    told: list[int] = []
    rest = RoundBlocks(
        digits_model.module, calibration.inputs(), **SHORT, checkpoint=tmp_path, on_progress=lambda done, *_: told.append(done)
    )
    resumed = quantized.apply(rest, note="rounded")
    assert told[0] == 31  # the first block is done
    assert same(resumed, whole)
    assert not same(whole, quantized.apply(made(seed=1), note="rounded"))


def test_a_block_that_is_no_better_keeps_its_rounding(quantized: Model, digits_model: Model, calibration: Dataset) -> None:
    wild = RoundBlocks(digits_model.module, calibration.inputs(), iterations=2, batch=2, learning_rate=1e3, step_rate=0.9)
    assert same(quantized.apply(wild, note="rounded"), quantized)


def test_errors_may_count_by_squared_gradients(quantized: Model, digits_model: Model, calibration: Dataset) -> None:
    plain, weighted = (
        quantized.apply(RoundBlocks(digits_model.module, calibration.inputs(), **SHORT, fisher=fisher), note="rounded")
        for fisher in (False, True)
    )
    inputs = calibration.inputs()
    assert not same(weighted, quantized)
    assert not same(weighted, plain)
    assert error(weighted, digits_model, inputs) < 2 * error(quantized, digits_model, inputs)


def test_squared_gradients_are_those_of_the_loss(quantized: Model, digits_model: Model, calibration: Dataset) -> None:
    """By the formula, for the logits: of sum_c e_c sqrt(p_c) log p_c, p held fixed in the root."""
    inputs = [torch.from_numpy(value[:8]) for value in calibration.inputs()]
    graph = GraphView(quantized.module)
    last = quantized_blocks(graph, quantized_layers(quantized.module)[0])[-1]
    targets = FloatBlocks(digits_model.module, inputs, graph, fisher=True, seed=5).targets(last)
    (logits,), (found,) = targets.wanted.values(), targets.weights.values()
    signs = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(5)) * 2.0 - 1.0
    p = logits.softmax(-1)
    expected = (signs * p.sqrt() - p * (signs * p.sqrt()).sum(-1, keepdim=True)).square()
    torch.testing.assert_close(found, expected / expected.mean(), rtol=1e-3, atol=1e-4)


def two_heads(x: relax.Expr, p: dict[str, relax.Var]) -> relax.Expr:
    first = op.nn.relu(op.nn.conv2d(x, p["first"], padding=1))
    head = op.matmul(op.mean(first, [2, 3]), p["head"])
    second = op.nn.relu(op.nn.conv2d(first, p["second"], padding=1))
    third = op.nn.relu(op.nn.conv2d(second, p["third"], padding=1))
    joined = op.add(first, op.nn.conv2d(third, p["fourth"], padding=1))
    return relax.Tuple([head, op.matmul(op.mean(joined, [2, 3]), p["tail"])])


def test_what_every_layer_gives_is_restored() -> None:
    """Also an output that leaves the network in the middle, which no later block reads."""
    square = dict.fromkeys(("second", "third", "fourth"), (8, 8, 3, 3))
    mod = small_model(two_heads, (1, 3, 8, 8), params=small_weights(first=(8, 3, 3, 3), head=(8, 4), tail=(8, 4), **square))
    model = Model(mod, (InputSpec(name="x0", shape=(1, 3, 8, 8), dtype="float32"),))
    inputs = np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32)
    quantized = compress(model, inputs, quantize={"precision": "int4", "repair": []}).qdq_model
    assert quantized is not None
    graph, layers = GraphView(quantized.module), quantized_layers(quantized.module)[0]
    blocks = quantized_blocks(graph, layers)
    for block in blocks:
        order = list(graph.values)
        inside = [order.index(var) for var in block.reads if var in graph.values]
        assert inside == sorted(inside)
        for layer in block.layers:
            reached = {layer.var}
            for var, value in block.program:
                if not reached.isdisjoint(relax.analysis.free_vars(value)):
                    reached.add(var)
            assert reached & set(block.targets.values()), layer.var.name


def sequence_first(x: relax.Expr, p: dict[str, relax.Var]) -> relax.Expr:
    rows = op.permute_dims(op.matmul(x, p["into"]), [1, 0, 2])
    for name in ("a", "b"):
        rows = op.add(rows, op.nn.relu(op.matmul(rows, p[name])))
    return op.matmul(op.permute_dims(rows, [1, 0, 2]), p["out"])


def test_samples_that_stand_side_by_side_between_blocks_are_declined() -> None:
    params = small_weights(into=(6, 8), a=(8, 8), b=(8, 8), out=(8, 4))
    mod = small_model(sequence_first, (1, 5, 6), params=params)
    model = Model(mod, (InputSpec(name="x0", shape=(1, 5, 6), dtype="float32"),))
    inputs = np.random.default_rng(0).normal(size=(12, 5, 6)).astype(np.float32)
    quantized = compress(model, inputs, quantize=FEW).qdq_model
    assert quantized is not None
    repaired = quantized.apply(RoundBlocks(mod, [inputs], **SHORT), note="rounded")
    assert same(repaired, quantized)
    assert any("mixed with each other" in remark.message for remark in get_remarks(repaired.module))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": 1.0}, "drop is a probability below 1"),
        ({"iterations": 0}, "needs iterations"),
        ({"learning_rate": -1.0}, "needs iterations"),
        ({"colour": 1}, "does not take the options colour"),
    ],
)
def test_options_out_of_range_are_refused(
    digits_model: Model, calibration: Dataset, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_repair("brecq", digits_model.module, calibration.inputs(), options)


def test_one_sample_is_too_few(quantized: Model, digits_model: Model, calibration: Dataset) -> None:
    with pytest.raises(UserError, match="two samples at least"):
        RoundBlocks(digits_model.module, calibration.read(0, 1)).transform_module(quantized.module, None)


def test_a_run_of_the_command_line_goes_on(digits: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[quantize]\nprecision = "int4"\nrepair = ["brecq"]\nrepair_options = { brecq = { iterations = 5 } }\n')
    common = ["compress", digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--calib-samples", 40]
    asked = ["--recipe", recipe, "--checkpoint", tmp_path / "run", "--no-onnx", "--no-html", "--json"]
    first, again = (run_command(*common, *asked, "-o", tmp_path / name) for name in ("first", "again"))
    assert first.code == 0, first.err
    assert (tmp_path / "run" / "brecq" / "finetune.pt").exists()
    assert again.code == 0, again.err
    assert same(load(tmp_path / "first" / "model.tvmc"), load(tmp_path / "again" / "model.tvmc"))


def test_as_a_repair_of_a_recipe(digits_model: Model, calibration: Dataset, tmp_path: Path) -> None:
    options = {**FEW, "repair": ["brecq"], "repair_options": {"brecq": {"iterations": 10}}}
    result = compress(digits_model, calibration, quantize=options, checkpoint=tmp_path)
    assert any("learned block by block" in note for note in result.model.provenance)
    assert (tmp_path / "brecq").is_dir()
