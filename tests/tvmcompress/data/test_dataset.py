"""Data: every kind of source gives the same samples, and what does not fit is refused with one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress import InputSpec, Preprocessing, UserError, load_data
from tvmcompress.data.dataset import Dataset
from tvmcompress.data.files import read_path

IMAGE = InputSpec(name="image", shape=(1, 3, 4, 5), layout="NCHW")
COUNT = 7


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((COUNT, 3, 4, 5)).astype(np.float32)


@pytest.fixture
def labels() -> np.ndarray:
    return np.arange(COUNT) % 3


def refused(source: Any, *patterns: str, inputs: tuple[InputSpec, ...] = (IMAGE,), **options: Any) -> None:
    with pytest.raises(UserError) as caught:
        load_data(source, inputs, **options).inputs()
    sentence = str(caught.value)
    assert "\n" not in sentence
    for pattern in patterns:
        assert re.search(pattern, sentence), sentence


class TestSources:
    @pytest.mark.parametrize("kind", ["npz", "npy", "folder of samples", "folder of batches", "array", "mapping",
                                      "tuple", "samples", "batches", "pairs"])  # fmt: skip
    def test_same_samples_from_every_source(
        self, kind: str, images: np.ndarray, labels: np.ndarray, tmp_path: Path
    ) -> None:
        source: Any = tmp_path
        labelled = True
        if kind == "npz":
            source = tmp_path / "data.npz"
            np.savez(source, x=images, y=labels)
        elif kind == "npy":
            source, labelled = tmp_path / "data.npy", False
            np.save(source, images)
        elif kind == "folder of samples":
            for index, image in enumerate(images):
                np.save(tmp_path / f"{index:03}.npy", image)
            np.save(tmp_path / "y.npy", labels)
        elif kind == "folder of batches":
            np.save(tmp_path / "a.npy", images[:3])
            np.save(tmp_path / "b.npy", images[3:])
            np.save(tmp_path / "labels.npy", labels)
        else:
            source = {
                "array": images,
                "mapping": {"image": images, "y": labels},
                "tuple": (images, labels),
                "samples": list(images),
                "batches": (batch for batch in (images[:4], images[4:])),
                "pairs": [(images[:4], labels[:4]), (images[4:], labels[4:])],
            }[kind]
            labelled = kind not in ("array", "samples", "batches")
        data = load_data(source, [IMAGE])
        assert len(data) == COUNT
        np.testing.assert_array_equal(data.inputs()[0], images)
        if labelled:
            np.testing.assert_array_equal(data.labels, labels)
        else:
            assert data.labels is None

    @pytest.mark.parametrize("key", ["image", "x", "x_float", "x_uint8", "data", "anything"])
    def test_names_in_an_npz(self, key: str, images: np.ndarray, tmp_path: Path) -> None:
        np.savez(tmp_path / "data.npz", **{key: images})
        np.testing.assert_array_equal(load_data(tmp_path / "data.npz", [IMAGE]).inputs()[0], images)

    def test_key_says_which(self, images: np.ndarray, labels: np.ndarray, tmp_path: Path) -> None:
        np.savez(tmp_path / "data.npz", x=images, other=images + 1, y=labels, mine=labels[::-1])
        data = load_data(tmp_path / "data.npz", [IMAGE], key="other", label_key="mine")
        np.testing.assert_array_equal(data.inputs()[0], images + 1)
        np.testing.assert_array_equal(data.labels, labels[::-1])

    def test_several_inputs_go_by_name(self, images: np.ndarray) -> None:
        size = InputSpec(name="size", shape=(1, 2), dtype="int64")
        sizes = np.arange(2 * COUNT).reshape(COUNT, 2)
        data = load_data({"size": sizes, "image": images}, [IMAGE, size])
        assert [value.dtype.name for value in data.inputs()] == ["float32", "int64"]
        np.testing.assert_array_equal(data.inputs()[1], sizes)

    def test_folder_is_read_when_needed(self, images: np.ndarray, tmp_path: Path) -> None:
        for index, image in enumerate(images):
            np.save(tmp_path / f"{index}.npy", image)
        data = load_data(tmp_path, [IMAGE])
        (tmp_path / "6.npy").write_bytes(b"")  # mapped already: only reading it again would fail
        np.testing.assert_array_equal(data.between(2, 4).inputs()[0], images[2:4])

    def test_limit_stops_an_endless_source(self, images: np.ndarray) -> None:
        def endless() -> Iterator[np.ndarray]:
            while True:
                yield images[0]

        assert len(load_data(endless(), [IMAGE], limit=5)) == 5


class TestConversion:
    def test_channels_last_is_seen_from_the_shape(self, images: np.ndarray) -> None:
        last = images.transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(load_data(last, [IMAGE]).inputs()[0], images)

    def test_layout_decides_where_the_shape_does_not(self) -> None:
        cube = InputSpec(name="x", shape=(1, 3, 3, 3))
        values = np.random.default_rng(0).standard_normal((2, 3, 3, 3)).astype(np.float32)
        np.testing.assert_array_equal(load_data(values, [cube]).inputs()[0], values)
        swapped = load_data(values, [cube], layout="NHWC").inputs()[0]
        np.testing.assert_array_equal(swapped, values.transpose(0, 3, 1, 2))

    @pytest.mark.parametrize("shape", [(4, 8, 8), (4, 1, 8, 8), (4, 8, 8, 1), (4, 64 // 8, 8)])
    def test_axes_of_one_may_be_missing(self, shape: tuple[int, ...]) -> None:
        spec = InputSpec(name="x", shape=(1, 1, 8, 8))
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        np.testing.assert_array_equal(load_data(values, [spec]).inputs()[0], values.reshape(4, 1, 8, 8))

    def test_preprocessing(self) -> None:
        raw = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 5, 3), dtype=np.uint8)
        steps = Preprocessing(scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
        got = load_data(raw, [IMAGE], preprocessing=steps).inputs()[0]
        wanted = (raw / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.6, 0.7])
        np.testing.assert_allclose(got, wanted.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)
        described = IMAGE.model_copy(update={"preprocessing": steps})
        np.testing.assert_array_equal(load_data(raw, [described]).inputs()[0], got)

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float64", "float16", "bool"])
    def test_numbers_become_the_dtype_of_the_model(self, dtype: str) -> None:
        values = np.ones((2, 3, 4, 5), dtype)
        got = load_data(values, [IMAGE]).inputs()[0]
        assert got.dtype == np.float32
        assert (got == 1).all()

    @given(count=st.integers(1, 40), size=st.integers(1, 50), batch=st.sampled_from([1, 2, 4]))
    @settings(max_examples=30, deadline=None)
    def test_batches_are_all_samples_in_order(self, count: int, size: int, batch: int) -> None:
        spec = InputSpec(name="x", shape=(batch, 2))
        values = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
        if count < batch:
            refused(values, "fewer samples", inputs=(spec,))
            return
        data = load_data((values, np.arange(count)), [spec])
        pieces = list(data.labelled_batches(size))
        assert all(len(inputs[0]) % batch == 0 for inputs, _ in pieces)
        whole = count // batch * batch
        np.testing.assert_array_equal(np.concatenate([inputs[0] for inputs, _ in pieces]), values[:whole])
        np.testing.assert_array_equal(np.concatenate([found for _, found in pieces]), np.arange(whole))

    def test_one_hot_labels(self, images: np.ndarray, labels: np.ndarray) -> None:
        data = load_data({"x": images, "y": np.eye(3)[labels]}, [IMAGE])
        np.testing.assert_array_equal(data.labels, labels)

    def test_a_dataset_passes_through(self, images: np.ndarray) -> None:
        data = load_data(images, [IMAGE])
        assert isinstance(data, Dataset)
        assert len(load_data(data, [IMAGE], limit=3)) == 3


class TestRefusals:
    def test_missing_file(self, tmp_path: Path) -> None:
        refused(tmp_path / "none.npz", "none.npz does not exist")

    def test_unknown_kind(self, tmp_path: Path) -> None:
        (tmp_path / "data.csv").write_text("1,2")
        refused(tmp_path / "data.csv", "unknown kind '.csv'")

    @pytest.mark.parametrize("suffix", [".npz", ".npy"])
    @pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
    def test_truncated_file(self, suffix: str, share: float, images: np.ndarray, tmp_path: Path) -> None:
        path = tmp_path / f"data{suffix}"
        if suffix == ".npz":
            np.savez_compressed(path, x=images)
        else:
            np.save(path, images)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        refused(path, "not a whole")

    def test_python_objects(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "data.npz", x=np.array([{}, {}], object))
        refused(tmp_path / "data.npz", "plain arrays")

    def test_missing_key_lists_what_is_there(self, images: np.ndarray, tmp_path: Path) -> None:
        np.savez(tmp_path / "data.npz", left=images, right=images)
        refused(tmp_path / "data.npz", "left, right", "--data-key")
        refused(tmp_path / "data.npz", "'middle'", "left, right", key="middle")

    def test_missing_labels(self, images: np.ndarray) -> None:
        refused({"x": images}, "no labels", "--label-key", need_labels=True)
        refused({"x": images, "y": np.zeros(COUNT)}, "no labels", label_key="z")

    def test_labels_of_another_length(self, images: np.ndarray, labels: np.ndarray) -> None:
        refused({"x": images, "y": labels[:-1]}, f"{COUNT} samples but {COUNT - 1} labels")

    @pytest.mark.parametrize("wrong", [np.full(COUNT, 0.5), np.full(COUNT, "cat"), np.zeros((COUNT, 2, 2))])
    def test_labels_that_are_no_classes(self, wrong: np.ndarray, images: np.ndarray) -> None:
        refused({"x": images, "y": wrong}, "one class number a sample")

    @pytest.mark.parametrize("shape", [(COUNT, 3, 4, 6), (COUNT, 4, 4, 5), (COUNT, 60), (COUNT,), (COUNT, 5, 4, 3)])
    def test_wrong_shape(self, shape: tuple[int, ...]) -> None:
        refused(np.zeros(shape, np.float32), "input 'image' takes 3x4x5")

    def test_a_single_sample(self) -> None:
        refused(np.zeros((3, 4, 5), np.float32), "single sample", "first axis")

    def test_samples_of_different_shapes(self) -> None:
        refused([np.zeros((3, 4, 5)), np.zeros((3, 4, 6))], "different shapes")

    def test_files_of_different_shapes(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((3, 4, 5)))
        np.save(tmp_path / "b.npy", np.zeros((3, 4, 6)))
        refused(tmp_path, "b.npy has shape")

    @pytest.mark.parametrize("dtype", ["complex64", "U3", "datetime64[s]"])
    def test_wrong_dtype(self, dtype: str) -> None:
        refused(np.zeros((2, 3, 4, 5), dtype), "dtype", "float32")

    def test_quantized_data(self) -> None:
        refused(np.zeros((2, 3, 4, 5), np.int8), "looks quantized already")

    def test_floats_for_an_integer_input(self) -> None:
        spec = InputSpec(name="ids", shape=(1, 4), dtype="int64")
        refused(np.zeros((2, 4), np.float32), "takes int64", inputs=(spec,))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, value: float, images: np.ndarray) -> None:
        images[4, 2, 1, 0] = value
        refused(images, "NaN or infinity", "sample 4")

    def test_not_finite_in_a_folder(self, images: np.ndarray, tmp_path: Path) -> None:
        images[4, 2, 1, 0] = np.nan
        for index, image in enumerate(images):
            np.save(tmp_path / f"{index}.npy", image)
        refused(tmp_path, "NaN or infinity")

    @pytest.mark.parametrize("empty", [np.zeros((0, 3, 4, 5), np.float32), [], iter(())])
    def test_empty(self, empty: Any) -> None:
        refused(empty, "empty")

    def test_empty_folder(self, tmp_path: Path) -> None:
        refused(tmp_path, "empty")

    def test_inputs_of_different_counts(self, images: np.ndarray) -> None:
        size = InputSpec(name="size", shape=(1, 2))
        refused({"image": images, "size": np.zeros((3, 2))}, "3 and 7 samples", inputs=(IMAGE, size))

    def test_unknown_layout(self, images: np.ndarray) -> None:
        refused(images, "no layout 'HWCN'", layout="HWCN")

    def test_limit_of_nothing(self, images: np.ndarray) -> None:
        refused(images, "at least 1", limit=0)

    def test_not_data(self) -> None:
        refused(5, "must be a path")


@pytest.mark.parametrize(
    "header", [b"{'a'", b"((((", b"{'descr': '<f4', 'fortran_order': False, 'shape': (1e9,)}", b"\xff" * 40, b""]
)
def test_headers_that_are_damaged(header: bytes, tmp_path: Path) -> None:
    """NumPy reads them by Python's own parser, which has errors of its own."""
    padded = header.ljust(117) + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + bytes(16))
    with pytest.raises(UserError, match="not a whole .npy file"):
        read_path(tmp_path / "x.npy", 4)
