"""Compression passes on Relax: each an ordinary TVM pass from module to module.

The passes know no target, no file and no terminal. Parameter values ride along as a module attribute, see
`attach_params`.
"""

from . import _tvm  # noqa: F401  (checks the pinned versions before anything else loads TVM)
from .canonicalize import Canonicalize
from .errors import MissingToolError, UnsupportedOperatorError, UserError
from .fold_batch_norm import FoldBatchNorm
from .module_params import attach_params, detach_params, get_params
from .remarks import Remark, get_remarks

__all__ = [
    "Canonicalize",
    "FoldBatchNorm",
    "MissingToolError",
    "Remark",
    "UnsupportedOperatorError",
    "UserError",
    "attach_params",
    "detach_params",
    "get_params",
    "get_remarks",
]
