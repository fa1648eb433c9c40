"""Importing ONNX against ONNX Runtime, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvmcompress
from tvmcompress.errors import UnsupportedOperatorError, UserError
from tvmcompress.importing import from_onnx
from tvmcompress.importing.onnx import load_onnx
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph import analysis

RNG = np.random.default_rng(0)


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    shape: list[int | str] | None = None,
    opset: int = 13,
) -> onnx.ModelProto:
    """A model from x to y."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape or [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def weight(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype("float32")


def assert_agrees(proto: onnx.ModelProto, shape: tuple[int, ...] = (1, 3, 8, 8), **options: object) -> tvmcompress.Model:
    """The imported model computes what ONNX Runtime computes."""
    imported = from_onnx(proto, **options)  # type: ignore[arg-type]
    x = RNG.standard_normal(shape).astype("float32")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for got, expected in zip(imported.run(x), session.run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    return imported


def operators(imported: tvmcompress.Model) -> list[str]:
    return [layer.op for layer in analysis.layers(imported.module)]


def small_network(opset: int) -> onnx.ModelProto:
    """Convolution, normalization, clamp, pooling, flatten and Gemm, as written in that opset."""
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("BatchNormalization", ["c", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["n"], epsilon=1e-3),
    ]
    weights = {
        "conv.weight": weight(4, 3, 3, 3),
        "conv.bias": weight(4),
        "bn.scale": weight(4),
        "bn.bias": weight(4),
        "bn.mean": weight(4),
        "bn.var": abs(weight(4)) + 0.5,
        "fc.weight": weight(5, 64),
        "fc.bias": weight(5),
    }
    if opset < 11:
        nodes.append(helper.make_node("Clip", ["n"], ["r"], min=0.0, max=6.0))
    else:
        weights |= {"zero": np.float32(0).reshape(()), "six": np.float32(6).reshape(())}
        nodes.append(helper.make_node("Clip", ["n", "zero", "six"], ["r"]))
    nodes += [
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], transB=1),
    ]
    return model(nodes, weights, opset=opset)


@pytest.mark.parametrize("opset", range(9, 23))
def test_every_opset(opset: int) -> None:
    imported = assert_agrees(small_network(opset))
    assert operators(imported) == ["nn.conv2d", "add", "clip", "nn.max_pool2d", "reshape", "matmul", "add"]
    assert list(imported.params) == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]
    assert imported.params["conv.bias"].shape == (1, 4, 1, 1)


@pytest.mark.parametrize("opset", [6, 29])
def test_other_opsets_are_refused(opset: int) -> None:
    proto = small_network(9)
    proto.opset_import[0].version = opset
    with pytest.raises(UserError, match=f"uses ONNX opset {opset}; opsets 7 to 28"):
        from_onnx(proto)


def test_shape_subgraph_is_folded() -> None:
    """Flatten as exporters write it for an open batch: Shape, Gather, Concat, Reshape."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    weights = {"zero": np.int64(0).reshape(()), "axes": np.array([0]), "minus": np.array([-1])}
    imported = assert_agrees(model(nodes, weights, shape=["N", 3, 8, 8]))
    assert operators(imported) == ["reshape"]
    assert imported.params == {}


def test_open_batch_is_fixed_by_the_option() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    proto = model(nodes, {}, shape=["N", 3, 8, 8])
    assert from_onnx(proto).inputs[0].shape == (1, 3, 8, 8)
    assert from_onnx(proto, batch=4).inputs[0].shape == (4, 3, 8, 8)


def test_open_image_size_wants_a_shape() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {}, shape=[1, 3, "H", "W"])
    with pytest.raises(UserError, match=r"dimension 2 of input 'x' is open \(H\)"):
        from_onnx(proto)
    assert from_onnx(proto, shapes={"x": (1, 3, 6, 7)}).inputs[0].shape == (1, 3, 6, 7)
    with pytest.raises(UserError, match="shape is given for input 'z'"):
        from_onnx(proto, shapes={"z": (1,)})
    with pytest.raises(UserError, match="is fixed to"):
        from_onnx(proto, shapes={"x": (1, 4, 6, 7)})


def test_merged_vectors_are_separated_and_shared_kernels_kept() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"]),
        helper.make_node("Conv", ["a", "w", "b"], ["y"]),
    ]
    imported = assert_agrees(model(nodes, {"w": weight(3, 3, 1, 1), "b": weight(3)}))
    names = list(imported.params)
    assert names.count("w") == 1
    assert len(names) == 3


def test_unused_initializers_are_dropped() -> None:
    imported = from_onnx(model([helper.make_node("Relu", ["x"], ["y"])], {"spare": weight(4)}))
    assert imported.params == {}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (helper.make_node("HardSwish", ["x"], ["y"]), None),
        (helper.make_node("HardSigmoid", ["x"], ["y"]), None),
        (helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.2), ["nn.leakyrelu"]),
        (helper.make_node("GlobalAveragePool", ["x"], ["y"]), ["mean"]),
        (helper.make_node("Softmax", ["x"], ["y"], axis=1), ["nn.softmax"]),
        (helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1]), ["permute_dims"]),
        (helper.make_node("Dropout", ["x"], ["y"]), []),
        (helper.make_node("Identity", ["x"], ["y"]), []),
        (helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0), ["mean"]),
        (helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=1), None),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_single_operators(node: onnx.NodeProto, expected: list[str] | None) -> None:
    imported = assert_agrees(model([node], {}, opset=14))
    if expected is not None:
        assert operators(imported) == expected


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad(mode: str) -> None:
    node = helper.make_node("Pad", ["x", "widths", "value"], ["y"], mode=mode)
    weights = {"widths": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "value": np.float32(1.5)}
    imported = assert_agrees(model([node], weights))
    assert operators(imported) == ["nn.pad"]


def test_lower_clamp_alone_is_relu() -> None:
    proto = model([helper.make_node("Clip", ["x", "zero"], ["y"])], {"zero": np.float32(0).reshape(())})
    assert operators(assert_agrees(proto)) == ["nn.relu"]


def test_unsupported_operator_is_named_with_its_node() -> None:
    determinant = helper.make_node("Det", ["x"], ["y"], name="/encoder/det")
    with pytest.raises(UnsupportedOperatorError, match="node '/encoder/det' of onnx uses operator Det"):
        from_onnx(model([determinant], {}, shape=[5, 3, 3]))
    custom = helper.make_node("Magic", ["x"], ["y"], domain="acme", name="m")
    with pytest.raises(UnsupportedOperatorError, match="node 'm' .* operator acme::Magic"):
        from_onnx(model([custom], {}))


def test_nan_weight_is_named() -> None:
    bad = weight(3, 3, 1, 1)
    bad[1, 2] = np.nan
    with pytest.raises(UserError, match="weight 'w' of onnx contains NaN"):
        from_onnx(model([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": bad}))


def test_contradicting_shapes() -> None:
    proto = model([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight(3, 7, 1, 1)})
    with pytest.raises(UserError):
        from_onnx(proto)


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_truncated_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(small_network(13).SerializeToString()[:keep])
    with pytest.raises(UserError, match="not a whole ONNX file"):
        tvmcompress.load(path)


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A model whose weights stand in `weights.bin` beside it."""
    path = tmp_path / "model.onnx"
    onnx.save(small_network(13), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data(beside: Path) -> None:
    wanted = from_onnx(onnx.load(beside))
    found = tvmcompress.load(beside)
    assert found.params.keys() == wanted.params.keys()
    for name, value in wanted.params.items():
        np.testing.assert_array_equal(found.params[name], value)


def test_external_data_that_is_not_there(beside: Path) -> None:
    data = beside.with_name("weights.bin")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"keeps weight '.*' in the file .*weights\.bin, which is too short"):
        tvmcompress.load(beside)
    data.unlink()
    with pytest.raises(UserError, match=r"keeps weight '.*' in the file .*weights\.bin, which does not exist; put it there"):
        tvmcompress.load(beside)
    with pytest.raises(UserError, match=r"is still in the file 'weights\.bin'; load the model with its external data"):
        from_onnx(onnx.load(beside, load_external_data=False))


@pytest.mark.parametrize("location", ["../weights.bin", "/weights.bin", ""])
def test_external_data_outside_of_the_folder(beside: Path, location: str) -> None:
    proto = onnx.load(beside, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = location
    beside.write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match=f"in a place that is not in the folder of the model \\('{location}'\\)"):
        tvmcompress.load(beside)


def test_missing_file_and_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        tvmcompress.load(tmp_path / "none.onnx")
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(UserError, match=r"unknown kind '.h5'"):
        tvmcompress.load(tmp_path / "model.h5")


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        "ic_resnet8_fp32",
        "kws_dscnn_fp32",
        "vww_mobilenetv1_025_96_fp32",
        "ad_autoencoder_fp32",
        "cifar_resnet20_fp32",
        "cwru_cnn1d_fp32",
        "yunet_n_320_320",
    ],
)
def test_measuring_models_agree_with_onnx_runtime(shared: Path, name: str) -> None:
    path = shared / "models" / f"{name}.onnx"
    imported = tvmcompress.load(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = RNG.random(imported.inputs[0].shape).astype("float32")
    expected = session.run(None, {imported.inputs[0].name: x})
    assert len(expected) == len(imported.outputs)
    for got, wanted in zip(imported.run(x), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=3e-5)
    assert relax.analysis.check_well_formed(imported.module)


def _other_dims(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] += 3


def _no_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_type = 0


def _no_domain(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = ""


def _undefined(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].input[0] = "nothing"


@pytest.mark.parametrize("damage", [_other_dims, _no_type, _no_domain, _undefined])
def test_files_that_are_no_valid_onnx(damage: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    """What the fuzzer of the readers found."""
    proto = small_network(13)
    damage(proto)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match="model"):
        load_onnx(tmp_path / "model.onnx")
