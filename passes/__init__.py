"""Compression passes on Relax: each an ordinary TVM pass from module to module.

The passes know no target, no file and no terminal. Parameter values ride along as a module attribute, see
`attach_params`.
"""

from . import (
    _tvm,  # noqa: F401  (checks the pinned versions before anything else loads TVM)
    integer,  # noqa: F401  (registers the integer operators)
)
from .canonicalize import Canonicalize
from .channels import Group, groups
from .errors import MissingToolError, UnsupportedOperatorError, UserError
from .fold_batch_norm import FoldBatchNorm
from .module_params import attach_params, detach_params, get_params
from .prune_blocks import PruneBlocks
from .prune_channels import PruneChannels
from .prune_heads import PruneHeads
from .remarks import Remark, get_remarks
from .sparsify import Sparsify
from .surgery import SurgeryReport, get_surgery, zero_channels

__all__ = [
    "Canonicalize",
    "FoldBatchNorm",
    "Group",
    "MissingToolError",
    "PruneBlocks",
    "PruneChannels",
    "PruneHeads",
    "Remark",
    "Sparsify",
    "SurgeryReport",
    "UnsupportedOperatorError",
    "UserError",
    "attach_params",
    "detach_params",
    "get_params",
    "get_remarks",
    "get_surgery",
    "groups",
    "zero_channels",
]
