"""The errors of the package, under the name users look for them."""

from .passes.errors import MissingToolError, UnsupportedOperatorError, UserError

__all__ = ["MissingToolError", "UnsupportedOperatorError", "UserError"]
