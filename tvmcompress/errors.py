"""The errors of the package, under the name users look for them."""

from .passes.errors import DiskFullError, MissingToolError, UnsupportedOperatorError, UserError

__all__ = ["DiskFullError", "MissingToolError", "UnsupportedOperatorError", "UserError"]
