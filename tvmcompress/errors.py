"""The errors of the package, under the name users look for them."""

from .passes.errors import DiskFullError, LimitError, MissingToolError, ToolError, UnsupportedOperatorError, UserError

__all__ = ["DiskFullError", "LimitError", "MissingToolError", "ToolError", "UnsupportedOperatorError", "UserError"]
