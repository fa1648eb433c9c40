"""Compression passes on Relax: each an ordinary TVM pass from module to module.

The passes know no target, no file and no terminal. Parameter values ride along as a module attribute, see
`attach_params`.
"""

from . import (
    _tvm,  # noqa: F401  (checks the pinned versions before anything else loads TVM)
    integer,  # noqa: F401  (registers the integer operators)
    pipeline,  # noqa: F401  (registers the named pipelines)
)
from .affine import Affine, Range
from .calibrate import calibrate
from .canonicalize import Canonicalize
from .channels import Group, groups
from .compress_sparse import CompressSparse
from .convert_layout import ConvertLayout
from .correct_bias import CorrectBias
from .equalize_layers import EqualizeLayers
from .errors import MissingToolError, UnsupportedOperatorError, UserError
from .fold_batch_norm import FoldBatchNorm
from .integer.core import (
    IntegerCore,
    IOQuantization,
    TensorQuantization,
    dequantize_output,
    get_io_quantization,
    quantize_input,
)
from .integer.lower_qdq import LowerQDQ
from .module_params import attach_params, detach_params, get_params
from .observers import list_observers
from .prune_blocks import PruneBlocks
from .prune_channels import PruneChannels
from .prune_heads import PruneHeads
from .prune_to_budget import PruneToBudget
from .quantize import Quantize
from .reconstruct import Reconstruct
from .remarks import Remark, get_remarks
from .restore_normalizations import RestoreNormalizations
from .round_by_hessian import RoundByHessian
from .round_weights import RoundWeights
from .schemes import Scheme
from .smooth_scales import SmoothScales
from .sparsify import Sparsify
from .split_projections import SplitProjections
from .surgery import SurgeryReport, get_surgery, zero_channels

__all__ = [
    "Affine",
    "Canonicalize",
    "CompressSparse",
    "ConvertLayout",
    "CorrectBias",
    "EqualizeLayers",
    "FoldBatchNorm",
    "Group",
    "IOQuantization",
    "IntegerCore",
    "LowerQDQ",
    "MissingToolError",
    "PruneBlocks",
    "PruneChannels",
    "PruneHeads",
    "PruneToBudget",
    "Quantize",
    "Range",
    "Reconstruct",
    "Remark",
    "RestoreNormalizations",
    "RoundByHessian",
    "RoundWeights",
    "Scheme",
    "SmoothScales",
    "Sparsify",
    "SplitProjections",
    "SurgeryReport",
    "TensorQuantization",
    "UnsupportedOperatorError",
    "UserError",
    "attach_params",
    "calibrate",
    "dequantize_output",
    "detach_params",
    "get_io_quantization",
    "get_params",
    "get_remarks",
    "get_surgery",
    "groups",
    "list_observers",
    "quantize_input",
    "zero_channels",
]
