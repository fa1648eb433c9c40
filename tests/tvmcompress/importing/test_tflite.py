"""Importing TFLite files: the bytes of LiteRT's own reference kernels, and what is done with a file afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tests.tvmcompress.cli.running import refused, run
from tvmcompress import UserError
from tvmcompress.importing.tflite import load_tflite
from tvmcompress.passes.integer.requantize import multiply

pytest.importorskip("tflite")
pytest.importorskip("ai_edge_litert")

from tvmcompress.importing.tflite.rounding import exact_multipliers

from .tflite_files import File, litert, schema

MODELS = ["ic_resnet8", "kws_dscnn", "vww_mobilenetv1_025_96", "ad_autoencoder"]


def reference(path: Path, samples: np.ndarray) -> np.ndarray:
    """What LiteRT's reference kernels compute, sample by sample."""
    content = path.read_bytes()
    return np.concatenate([litert(content, sample[None])[0] for sample in samples])


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return path


@pytest.mark.shared
@pytest.mark.parametrize("name", MODELS)
def test_official_models_bit_for_bit(shared: Path, name: str) -> None:
    """LiteRT's reference kernel of fully connected layers rounds once; convolutions, sums and pools twice."""
    path = shared / "models" / f"{name}_int8.tflite"
    model = load_tflite(path)
    spec = model.inputs[0]
    samples = np.random.default_rng(0).integers(-128, 128, (20, *spec.shape[1:])).astype("int8")
    np.testing.assert_array_equal(model.run(samples)[0], reference(path, samples))


@pytest.mark.shared
def test_rounding_twice_changes_fully_connected_layers_only(shared: Path) -> None:
    path = shared / "models" / "ad_autoencoder_int8.tflite"
    samples = np.random.default_rng(0).integers(-128, 128, (5, 640)).astype("int8")
    once, twice = (load_tflite(path, dense_rounding=r).run(samples)[0] for r in ("single", "double"))
    differences = np.abs(once.astype(int) - twice.astype(int))
    assert 0 < differences.max() <= 4


@pytest.mark.shared
def test_described_in_float_terms(shared: Path) -> None:
    model = tvmcompress.load(shared / "models" / "ic_resnet8_int8.tflite")
    assert (model.inputs[0].dtype, model.inputs[0].layout, model.inputs[0].shape) == ("int8", "NHWC", (1, 32, 32, 3))
    assert "TFLite" in model.provenance[0]


CASES = [
    "add_const", "fc_batch_rows", "fc_keep_dims_then_add", "fc_rank4_input", "fc_tie", "fc_unnamed_tensors", "int4_fc",
    "logistic_op", "mean_hw", "quantize_requant", "relu_op",
]  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("name", CASES)
def test_cases_bit_for_bit(shared: Path, name: str) -> None:
    path = shared / "cases" / "tflite" / f"{name}.tflite"
    model = tvmcompress.load(path)
    rng = np.random.default_rng(0)
    for _ in range(20):
        inputs = [rng.integers(-128, 128, spec.shape).astype(spec.dtype) for spec in model.inputs]
        for found, wanted in zip(model.run(*inputs), litert(path.read_bytes(), *inputs), strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("x", "w", "out"), [(0.05, 0.01, 0.5), (0.1, 0.02, 0.1), (0.5, 0.5, 0.5), (0.0078125, 0.03, 0.07)])
def test_multipliers_round_as_double_precision(x: float, w: float, out: float) -> None:
    """Round scales put sums on ties, or a float32's error beside them."""
    factor = float(np.float32(x)) * float(np.float32(w)) / float(np.float32(out))
    reach = min(int(200 / factor), 2**24)
    sums = np.arange(-reach, reach + 1)
    (multiplier,), (shift,) = exact_multipliers([factor], (np.array([-reach]), np.array([reach])), (-255, 255))
    product = sums * factor
    wanted = np.sign(product) * np.floor(np.abs(product) + 0.5)
    inside = np.abs(wanted) <= 127
    np.testing.assert_array_equal(multiply(sums, multiplier, shift, "single")[inside], wanted[inside])


def small_network(float_ends: bool = False, dtype: str = "int8") -> bytes:
    """Convolution, depthwise convolution, a residual sum, a mean and a fully connected layer."""
    rng, file, real = np.random.default_rng(3), File(named=True), dtype == "float32"
    unit = 1 / 256 if dtype == "int16" else 1.0

    def tensor(shape: list[int], scale: float = 0.05, zero: int = 0) -> int:
        return file.tensor(shape, dtype, *(() if real else (scale * unit, 0 if dtype == "int16" else zero)))

    def layer(x: int, shape: list[int], axis: int) -> list[int]:
        values, offsets = rng.normal(0, 0.3, shape), rng.normal(0, 0.5, shape[axis])
        if real:
            parts = (values, offsets)
            return [file.tensor(v.shape, "float32", data=v.astype(np.float32)) for v in parts]
        scales = np.full(shape[axis], 0.01)
        kind = "int64" if dtype == "int16" else "int32"
        x_scale = file.tensors[x].quantization.scale[0]
        stored = np.rint(offsets / (0.01 * x_scale)).astype(kind)
        weight = np.clip(np.rint(values / 0.01), -127, 127).astype(np.int8)
        return [
            file.tensor(shape, "int8", scales, data=weight, axis=axis),
            file.tensor(stored.shape, kind, scales * x_scale, data=stored),
        ]

    image = [1, 8, 8, 3]
    if float_ends:
        given = file.input(image, "float32")
        x = tensor(image, 0.02, 3)
        file.operator("QUANTIZE", [given], [x])
    else:
        x = file.input(image, dtype, *(() if real else (0.02 * unit, 0)))
    first, second, total = (tensor([1, 8, 8, 16], 0.04, -10) for _ in range(3))
    pooled, scores = tensor([1, 16], 0.03, 5), tensor([1, 4], 0.05, 1)
    step = {"padding": 0, "strideH": 1, "strideW": 1}
    file.operator("CONV_2D", [x, *layer(x, [16, 3, 3, 3], 0)], [first], "Conv2DOptions", fusedActivationFunction=1, **step)
    file.operator(
        "DEPTHWISE_CONV_2D",
        [first, *layer(first, [1, 3, 3, 16], 3)],
        [second],
        "DepthwiseConv2DOptions",
        depthMultiplier=1,
        **step,
    )
    file.operator("ADD", [first, second], [total], "AddOptions", potScaleInt16=False)
    file.operator("MEAN", [total, file.constant([1, 2])], [pooled], "ReducerOptions", keepDims=False)
    file.operator("FULLY_CONNECTED", [pooled, *layer(pooled, [4, 16], 0)], [scores], "FullyConnectedOptions")
    if float_ends:
        real_scores = file.tensor([1, 4], "float32")
        file.operator("DEQUANTIZE", [scores], [real_scores])
        scores = real_scores
    return file.bytes(scores)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (count, 8, 8, 3)).astype(np.float32)


def test_float_file_is_compressed_like_onnx(tmp_path: Path) -> None:
    path = saved(tmp_path, small_network(dtype="float32"))
    model, samples = tvmcompress.load(path), images(32)
    assert (model.inputs[0].shape, model.inputs[0].layout) == ((1, 8, 8, 3), "NHWC")
    np.testing.assert_allclose(model.run(samples)[0], reference(path, samples), rtol=1e-4, atol=1e-5)
    result = tvmcompress.compress(path, samples, prune=0.25, quantize="int8")
    assert result.surgery is not None
    assert result.surgery.macs_after < result.surgery.macs_before
    found, wanted = result.model.run(samples)[0], result.float_model.run(samples)[0]
    assert np.corrcoef(found.astype(np.float64).ravel(), wanted.ravel())[0, 1] > 0.99
    assert list(model.params) == ["t6", "t7", "t8", "t9", "t11", "t12"]


def test_float_file_needs_no_permutation_inside(tmp_path: Path) -> None:
    model = tvmcompress.load(saved(tmp_path, small_network(dtype="float32")))
    assert model.module.script().count("R.permute_dims(") == 1  # of the input


@pytest.mark.parametrize("target", ["x86", "cortex-m4"])
def test_float_ends_are_kept_and_stripped_when_built(tmp_path: Path, target: str) -> None:
    path = saved(tmp_path, small_network(float_ends=True))
    model, samples = tvmcompress.load(path), images(20)
    assert (model.inputs[0].dtype, model.inputs[0].shape) == ("float32", (1, 8, 8, 3))
    np.testing.assert_array_equal(model.run(samples)[0], reference(path, samples))
    built = tvmcompress.build(model, target, tmp_path / "out")
    assert built.inputs[0].dtype == "int8"


def test_int16_activations(tmp_path: Path) -> None:
    path = saved(tmp_path, small_network(dtype="int16"))
    model = tvmcompress.load(path)
    samples = np.random.default_rng(0).integers(-20000, 20000, (10, 8, 8, 3)).astype(np.int16)
    np.testing.assert_array_equal(model.run(samples)[0], reference(path, samples))


def test_half_precision_weights_become_single(tmp_path: Path) -> None:
    rng, file = np.random.default_rng(0), File()
    weight, bias = rng.normal(0, 1, (4, 6)).astype(np.float16), rng.normal(0, 1, 4).astype(np.float16)
    x, out = file.input([1, 6], "float32"), file.tensor([1, 4], "float32")
    wide = []
    for value in (weight, bias):
        stored, real = file.tensor(value.shape, "float16", data=value), file.tensor(value.shape, "float32")
        file.operator("DEQUANTIZE", [stored], [real])
        wide.append(real)
    file.operator("FULLY_CONNECTED", [x, *wide], [out], "FullyConnectedOptions")
    path, sample = saved(tmp_path, file.bytes(out)), rng.normal(0, 1, (1, 6)).astype(np.float32)
    model = tvmcompress.load(path)
    assert {value.dtype.name for value in model.params.values()} == {"float32"}
    np.testing.assert_allclose(model.run(sample)[0], reference(path, sample), rtol=1e-5)


def test_sparse_weights_are_read_with_their_zeros(tmp_path: Path) -> None:
    """Rows stored as segments of the columns that are not zero."""
    rng, file = np.random.default_rng(0), File()
    dense = rng.normal(0, 1, (4, 6)).astype(np.float32) * (rng.random((4, 6)) < 0.4)
    rows, columns = np.nonzero(dense)
    segments = schema.Int32VectorT()
    segments.values = np.searchsorted(rows, np.arange(5)).astype(np.int32)
    indices = schema.Uint8VectorT()
    indices.values = columns.astype(np.uint8)
    outer, inner = schema.DimensionMetadataT(), schema.DimensionMetadataT()
    outer.format, outer.denseSize = 0, 4
    inner.format, inner.arraySegmentsType, inner.arraySegments = 1, schema.SparseIndexVector.Int32Vector, segments
    inner.arrayIndicesType, inner.arrayIndices = schema.SparseIndexVector.Uint8Vector, indices
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder, sparsity.dimMetadata = [0, 1], [outer, inner]
    x, out = file.input([1, 6], "float32"), file.tensor([1, 4], "float32")
    stored = file.tensor([4, 6], "float32", data=dense[rows, columns], sparsity=sparsity)
    whole = file.tensor([4, 6], "float32")
    file.operator("DENSIFY", [stored], [whole], "DensifyOptions")
    file.operator("FULLY_CONNECTED", [x, whole, -1], [out], "FullyConnectedOptions")
    path, sample = saved(tmp_path, file.bytes(out)), rng.normal(0, 1, (1, 6)).astype(np.float32)
    np.testing.assert_allclose(tvmcompress.load(path).run(sample)[0], sample @ dense.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(reference(path, sample), sample @ dense.T, rtol=1e-5, atol=1e-6)


def test_dynamic_range_weights_are_imported_as_real_numbers(tmp_path: Path) -> None:
    rng, file = np.random.default_rng(0), File()
    values = rng.integers(-127, 128, (4, 6)).astype(np.int8)
    x, out = file.input([1, 6], "float32"), file.tensor([1, 4], "float32")
    weight = file.tensor([4, 6], "int8", 0.02, data=values)
    file.operator("FULLY_CONNECTED", [x, weight, -1], [out], "FullyConnectedOptions")
    model = tvmcompress.load(saved(tmp_path, file.bytes(out)))
    sample = rng.normal(0, 1, (1, 6)).astype(np.float32)
    np.testing.assert_allclose(model.run(sample)[0], sample @ (values.T * np.float32(0.02)), rtol=1e-5, atol=1e-6)
    assert "weights are imported as real numbers" in str(tvmcompress.passes.get_remarks(model.module))


def test_tensors_without_names(tmp_path: Path) -> None:
    file = File(named=False)
    x, out = file.input([1, 4], "int8", 0.1), file.tensor([1, 4], "int8", 0.1, 0)
    file.operator("RELU", [x], [out])
    assert tvmcompress.load(saved(tmp_path, file.bytes(out))).inputs[0].name == "tensor0"


def test_refusals_say_what_and_why(tmp_path: Path) -> None:
    file = File()
    x, out = file.input([1, 4], "uint8", 0.1), file.tensor([1, 4], "uint8", 0.1)
    file.operator("RELU", [x], [out])
    with pytest.raises(UserError, match="RELU number 0, making 't1'.*it computes in uint8"):
        tvmcompress.load(saved(tmp_path, file.bytes(out)))
    file = File()
    x, out = file.input([1, 4], "float32"), file.tensor([1, 4], "float32")
    file.operator("RANK", [x], [out])
    with pytest.raises(UserError, match="RANK number 0, making 't1', of model.tflite cannot be imported"):
        tvmcompress.load(saved(tmp_path, file.bytes(out)))
    file = File()
    x = file.input([1, 4], "float32")
    with pytest.raises(UserError, match="'t1' is read before it is computed"):
        tvmcompress.load(saved(tmp_path, file.bytes(file.tensor([1, 4], "float32"))))


def test_not_tflite(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"not a model at all")
    with pytest.raises(UserError, match="is not a TFLite file"):
        tvmcompress.load(path)


@pytest.mark.parametrize("shape", [[1, 8] * 200, [1, -553647630]])
def test_shapes_that_cannot_be(shape: list[int], tmp_path: Path) -> None:
    file = File()
    x, out = file.input([1, 4], "float32"), file.tensor(shape, "float32")
    file.operator("RELU", [x], [out])
    with pytest.raises(UserError, match=r"model\.tflite is damaged: the shape of its tensor 1 cannot be"):
        tvmcompress.load(saved(tmp_path, file.bytes(out)))


def test_truncated(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    with pytest.raises(UserError, match="not a whole TFLite file|subgraphs"):
        tvmcompress.load(path)


def test_rounding_of_fully_connected_layers_is_chosen_in_python_and_on_the_command_line(tmp_path: Path) -> None:
    """Ties: an input of 0.05 and a weight of 0.01 onto 0.5 give halves."""
    file = File()
    x, out = file.input([1, 2], "int8", 0.05), file.tensor([1, 1], "int8", 0.5)
    weight = file.tensor([1, 2], "int8", 0.01, data=np.array([[100, 25]], np.int8))
    file.operator("FULLY_CONNECTED", [x, weight, -1], [out], "FullyConnectedOptions")
    path = saved(tmp_path, file.bytes(out))
    pairs = np.stack(np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)), -1).reshape(-1, 2).astype(np.int8)
    once, twice = (tvmcompress.load(path, dense_rounding=r).run(pairs)[0] for r in ("single", "double"))
    assert (once != twice).any()
    np.testing.assert_array_equal(once[::97], reference(path, pairs[::97]))
    (tmp_path / "recipe.toml").write_text('dense_rounding = "double"\n')
    made = tvmcompress.compress(path, recipe=tmp_path / "recipe.toml", target="cortex-m4")
    np.testing.assert_array_equal(made.model.run(pairs)[0], twice)
    made.recipe.save(tmp_path / "written.toml")
    assert tvmcompress.Recipe.load(tmp_path / "written.toml") == made.recipe
    assert run("inspect", path, "--dense-rounding", "double", "--json").code == 0
    (tmp_path / "other.onnx").write_bytes(b"")
    assert "is no TFLite file" in refused("inspect", tmp_path / "other.onnx", "--dense-rounding", "double")


@pytest.mark.parametrize("kind", ["BILINEAR", "NEAREST_NEIGHBOR"])
def test_resize_to_one_row_with_aligned_corners(tmp_path: Path, kind: str) -> None:
    file = File()
    x, y = file.input([1, 5, 7, 3], "float32"), file.tensor([1, 1, 4, 3], "float32")
    options = "ResizeBilinearOptions" if kind == "BILINEAR" else "ResizeNearestNeighborOptions"
    file.operator(f"RESIZE_{kind}", [x, file.constant([1, 4])], [y], options, alignCorners=True)
    path, sample = saved(tmp_path, file.bytes(y)), np.random.default_rng(0).normal(size=(1, 5, 7, 3)).astype(np.float32)
    model = tvmcompress.load(path)
    np.testing.assert_allclose(model.run(sample)[0], reference(path, sample), rtol=1e-5)
    built = tvmcompress.build(model, "x86", tmp_path / "out", tuning_log=False)
    np.testing.assert_allclose(built.run([sample])[0], reference(path, sample), rtol=1e-5)
