"""Patterns of layers in options: each must mean something."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ..errors import UserError
from ..model import Model
from ..passes.graph.rebuild import bindings
from ..recipe.quantize import QuantizeRecipe


def check_patterns(model: Model, options: QuantizeRecipe) -> None:
    """Refuse patterns of layers that fit none.

    Raises:
        UserError: There is one.
    """
    names = [var.name for var, _ in bindings(model.module["main"])]
    for pattern in (*options.exclude, *options.layers):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"no layer is called '{pattern}', which shall be quantized otherwise or stay in float; "
                "tvmcompress inspect lists the names"
            )
