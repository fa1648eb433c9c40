"""Compression passes on Relax: each an ordinary TVM pass from module to module.

The passes know no target, no file and no terminal. Parameter values ride along as a module attribute, see
`attach_params`.
"""

from . import (
    _tvm,  # noqa: F401  (checks the pinned versions before anything else loads TVM)
    integer,  # noqa: F401  (registers the integer operators)
    pipeline,  # noqa: F401  (registers the named pipelines)
)
from .canonical.canonicalize import Canonicalize
from .canonical.fold_batch_norm import FoldBatchNorm
from .canonical.restore_normalizations import RestoreNormalizations
from .canonical.split_projections import SplitProjections
from .channels import Group, groups
from .errors import MissingToolError, UnsupportedOperatorError, UserError
from .graph.module_params import attach_params, detach_params, get_params
from .graph.remarks import Remark, get_remarks
from .graph.surgery import SurgeryReport, get_surgery, zero_channels
from .layout.convert_layout import ConvertLayout
from .lowering.compress_sparse import CompressSparse
from .lowering.integer_core import (
    IntegerCore,
    IOQuantization,
    TensorQuantization,
    dequantize_output,
    get_io_quantization,
    quantize_input,
)
from .lowering.lower_qdq import LowerQDQ
from .numbers.affine import Affine, Range
from .numbers.schemes import Scheme
from .pruning.prune_blocks import PruneBlocks
from .pruning.prune_channels import PruneChannels
from .pruning.prune_heads import PruneHeads
from .pruning.prune_to_budget import PruneToBudget
from .pruning.sparsify import Sparsify
from .quantization.calibrate import calibrate
from .quantization.dequantize import Dequantize
from .quantization.observers import list_observers
from .quantization.quantize import Quantize
from .repair.correct_bias import CorrectBias
from .repair.equalize_layers import EqualizeLayers
from .repair.reconstruct import Reconstruct
from .repair.round_by_hessian import RoundByHessian
from .repair.round_weights import RoundWeights
from .repair.smooth_scales import SmoothScales

__all__ = [
    "Affine",
    "Canonicalize",
    "CompressSparse",
    "ConvertLayout",
    "CorrectBias",
    "Dequantize",
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
