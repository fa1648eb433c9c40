"""What is known of each operator, read from the tables that the passes, the bridge to PyTorch, the importers and the targets
work by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from pydantic import Field

from ..errors import MissingToolError
from ..exporting.writer import RULES as ONNX
from ..importing.tflite.importer import FLOAT, INTEGER, PLAIN
from ..passes.channels import RULES as CHANNELS
from ..passes.graph.pointwise import POINTWISE
from ..passes.integer.registry import DEFINITIONS, NARROW, PREFIX, WIDE
from ..passes.layout.converter import RULES as LAYOUT
from ..passes.lowering import walk as lowering
from ..passes.quantization.kinds import CLIPS, KINDS
from ..passes.reference import REFERENCES
from ..targets.arm.kernels.legalize import KERNELS as NEON
from ..targets.micro.kernels.helium_legalize import KERNELS as HELIUM
from ..targets.micro.kernels.legalize import KERNELS as DSP
from ..targets.micro.kernels.scalar_legalize import KERNELS as SCALAR
from ..targets.record import Record
from ..targets.x86.kernels.select import KERNELS as X86
from ..training.bridge import load_operators

_RELAX = "relax."
_TFLITE_NAMES = """
AVERAGE_POOL_2D nn.avg_pool2d, BATCH_MATMUL matmul, CAST astype, CONCATENATION concat, DEPTHWISE_CONV_2D nn.conv2d, DIV divide,
FLOOR_DIV floor_divide, FULLY_CONNECTED matmul, GATHER take, LOGISTIC sigmoid, MIRROR_PAD nn.pad, MUL multiply, NEG negative,
PACK stack, PADV2 nn.pad, POW power, REDUCE_MAX max, REDUCE_MIN min, RELU_0_TO_1 clip, RELU_N1_TO_1 clip,
RESIZE_BILINEAR image.resize2d, RESIZE_NEAREST_NEIGHBOR image.resize2d, REVERSE_V2 flip, SELECT where, SELECT_V2 where,
SHAPE shape_of, SLICE strided_slice, SPLIT_V split, SUB subtract, TRANSPOSE permute_dims, TRANSPOSE_CONV nn.conv2d_transpose,
UNPACK split
"""
"""Where TFLite and Relax call an operator by different words."""


class OperatorRecord(Record):
    """One operator of Relax.

    Attributes:
        name: Its full name.
        reference: Whether it has a reference implementation in NumPy; without one it runs compiled by TVM.
        channels: Whether it has a channel rule; without one the channels of its operands stay.
        layout: Whether it has a rule for channels-last; without one it keeps its layout.
        kind: What it is to the quantizer; None for what stays in float.
        integer: Which integers it can be lowered to ("int8", "int8, int16"), or what it becomes a part of.
        torch: Whether the bridge to PyTorch has it; None where PyTorch is not installed.
        onnx: Whether it can be written as ONNX.
        tflite: The operators of TFLite that are imported as it or as its integer form.
        reasons: Why columns are empty, by their names.
    """

    name: str
    reference: bool
    channels: bool
    layout: bool
    kind: str | None
    integer: str | None
    torch: bool | None
    onnx: bool
    tflite: tuple[str, ...]
    reasons: dict[str, str] = Field(default={})


class IntegerOperatorRecord(Record):
    """One of our integer operators; each has a definition that every target can compile.

    Attributes:
        name: Its full name.
        reference: Whether it has a reference implementation in NumPy.
        int16: The form with operands or a result of int16; None where there is none.
        kernels: Which targets have kernels for it.
    """

    name: str
    reference: bool
    int16: str | None
    kernels: tuple[str, ...]


COLUMNS = {
    "reference": "NumPy",
    "channels": "channels",
    "layout": "channels-last",
    "kind": "quantized as",
    "integer": "integers",
    "torch": "PyTorch",
    "onnx": "ONNX",
    "tflite": "from TFLite",
}
"""The fields of an `OperatorRecord` and their titles."""

INTEGER_COLUMNS = {"reference": "NumPy", "int16": "with int16", "kernels": "kernels"}
"""The fields of an `IntegerOperatorRecord` and their titles."""


def row(record: OperatorRecord | IntegerOperatorRecord, columns: Iterable[str]) -> list[str]:
    """A record as text, empty where there is nothing."""
    cells = []
    for column in columns:
        value = getattr(record, column)
        text = {True: "yes", False: "", None: ""}.get(value) if isinstance(value, (bool, type(None))) else None
        cells.append(text if text is not None else ", ".join(value) if isinstance(value, tuple) else str(value))
    return cells


class Gap(NamedTuple):
    """Why operators have no entry in some columns.

    Attributes:
        columns: The columns.
        operators: The operators, without "relax.".
        why: The reason.
    """

    columns: str
    operators: str
    why: str


_FLOAT = "kind integer"
_ALL = "reference layout kind integer torch onnx tflite"
_RARE = """
acos acosh argsort asin asinh atan atan2 atanh bitwise_not cosh cumprod cumsum dynamic_strided_slice ewise_fma floor_mod
image.affine_grid image.grid_sample image.resize3d left_shift log_add_exp median mod nn.batch_flatten nn.pixel_shuffle one_hot
outer right_shift scatter_elements scatter_nd sinh sort tan topk tril triu trunc vision.all_class_non_max_suppression
vision.get_valid_counts vision.multibox_transform_loc vision.non_max_suppression vision.roi_align vision.roi_pool
"""
_COMPILED = "gather_elements gather_nd nn.adaptive_avg_pool3d nn.attention nn.attention_bias nn.avg_pool3d nn.max_pool3d"
_FIRST = """
argmax argmin bitwise_and bitwise_or bitwise_xor broadcast_to einsum expand_dims floor_divide gather_elements gather_nd
logical_xor nn.attention nn.attention_bias nn.batch_norm nn.conv3d_transpose nn.dropout nn.rms_norm repeat stack take tile
"""
GAPS = (
    Gap(_ALL, "call_tir hint_on_device shape_of shape_to_tensor size tensor_to_shape to_vdevice wrap_param", "not of networks"),
    Gap(_ALL, "arange eye eye_like full full_like ones ones_like zeros zeros_like", "made of constants or of a shape"),
    Gap(_ALL, "nonzero unique", "the shape of its result depends on values"),
    Gap(_ALL, _RARE, "rare on edge devices: not yet"),
    Gap(_FLOAT, "argmax argmin", "its result is an index"),
    Gap(_FLOAT, "bitwise_and bitwise_or bitwise_xor floor_divide logical_xor", "on integers that stand for themselves"),
    Gap(_FLOAT, "quantize dequantize", "says itself how numbers are quantized"),
    Gap(_FLOAT, "nn.batch_norm", "`FoldBatchNorm` makes it part of a layer"),
    Gap(_FLOAT, "nn.dropout", "`Canonicalize` removes it"),
    Gap(_FLOAT, "nn.attention nn.attention_bias nn.conv3d_transpose prod std variance", "stays in float: no integer form yet"),
    Gap("onnx", "nn.relu6", "`Canonicalize` makes it a clip"),
    Gap("torch", "bitwise_and bitwise_or bitwise_xor quantize dequantize", "has no gradient"),
    Gap("torch", "gather_elements gather_nd", "no form yet: refused"),
    Gap("onnx", "nn.attention nn.attention_bias", "ONNX has none before opset 23"),
    Gap("onnx", "gather_elements gather_nd", "no form yet: refused"),
    Gap("reference", _COMPILED, "runs compiled by TVM"),
    Gap("layout", _FIRST, "is computed channels-first, between two permutations"),
    Gap("tflite", "*", "no operator of TFLite is imported as it"),
)
"""Why cells are empty; of several that fit, the first counts."""


def operators() -> list[OperatorRecord]:
    """What is known of Relax's operators, by name."""
    try:
        torch: Mapping[str, Any] | None = load_operators()
    except MissingToolError:
        torch = None
    tables: tuple[Iterable[str], ...] = (REFERENCES, CHANNELS, LAYOUT, KINDS, lowering.RULES, torch or (), ONNX)
    names = sorted({name for table in tables for name in table if name.startswith(_RELAX)})
    return [_record(name, torch) for name in names]


def integer_operators() -> list[IntegerOperatorRecord]:
    """What is known of our integer operators, by name; the form for int16 stands with that for int8."""
    kernels = {
        "x86": X86,
        "Cortex-A": NEON,
        "Cortex-M without DSP": SCALAR,
        "Cortex-M with DSP": DSP,
        "Cortex-M with Helium": HELIUM,
    }
    return [
        IntegerOperatorRecord(
            name=name,
            reference=name in REFERENCES,
            int16=wide if (wide := name.replace(NARROW, WIDE)) in DEFINITIONS and wide != name else None,
            kernels=tuple(target for target, table in kernels.items() if name in table),
        )
        for name in sorted(DEFINITIONS)
        if not (name.startswith(WIDE) and name.replace(WIDE, NARROW) in DEFINITIONS) and not name.startswith(PREFIX + "x86_")
    ]


def tflite_names() -> dict[str, str | None]:
    """For each operator of TFLite that can be imported, Relax's for the same; None for what becomes several operators."""
    same = {_letters(name.rpartition(".")[2]): name.removeprefix(_RELAX) for name in CHANNELS}
    same |= {_letters(kind): name for kind, name in (entry.split() for entry in _TFLITE_NAMES.split(","))}
    found = {kind: same.get(_letters(kind)) for kind in sorted({*PLAIN, *FLOAT, *INTEGER})}
    return {kind: name and _RELAX + name for kind, name in found.items()}


def reason(name: str, column: str) -> str | None:
    """Why an operator has no entry in a column; None where nobody has said."""
    plain = name.removeprefix(_RELAX)
    for gap in GAPS:
        if column in gap.columns.split() and any(fnmatchcase(plain, pattern) for pattern in gap.operators.split()):
            return gap.why
    return None


def _record(name: str, torch: Mapping[str, Any] | None) -> OperatorRecord:
    cells: dict[str, Any] = {
        "reference": name in REFERENCES,
        "channels": name in CHANNELS,
        "layout": name in LAYOUT,
        "kind": KINDS.get(name),
        "integer": _integer_form(name),
        "torch": None if torch is None else name in torch,
        "onnx": name in ONNX,
        "tflite": tuple(kind for kind, same in tflite_names().items() if same == name),
    }
    empty = [column for column, value in cells.items() if not value and not (column == "torch" and torch is None)]
    reasons = {column: why for column in empty if (why := reason(name, column)) is not None}
    return OperatorRecord(name=name, **cells, reasons=reasons)


def _integer_form(name: str) -> str | None:
    if name in lowering.RULES:
        return "int8, int16" if name in lowering.WIDE else "int8"
    if name in CLIPS:
        return "part of a layer"
    return "table" if name in POINTWISE else None


def _letters(name: str) -> str:
    return name.lower().replace("_", "")
