"""Applying one pass by name as a recipe asks."""

from __future__ import annotations

from typing import Any

from ..errors import UserError
from ..passes._tvm import tvm
from ..passes.lowering.lower_qdq import is_lowered
from ..passes.pipeline import PASSES
from ..recipe.steps import PassRecipe
from .base import Context, State, Step
from .cache import source_of


class ApplyPass(Step[PassRecipe]):
    """Applies a pass, ours or another package's, to the float model.

    Raises:
        UserError: There is no such pass, or it does not take the options.
    """

    name, activity, Options = "pass", "a pass", PassRecipe
    reads = frozenset()

    def __init__(self, options: PassRecipe) -> None:
        super().__init__(options)
        self._make = PASSES[options.name]
        try:
            self._made = self._make(**options.options)
        except TypeError as error:
            raise UserError(f"the pass '{options.name}' cannot be made with the options {options.options}: {error}") from error
        if not isinstance(self._made, tvm.transform.Pass):
            raise UserError(f"the pass '{options.name}' gives {type(self._made).__name__}, which is no pass of TVM")

    def key(self, context: Context) -> dict[str, Any]:
        """The options, and the file of the pass."""
        return {**super().key(context), "source": source_of(self._make)}

    def run(self, state: State, context: Context) -> State:
        """Apply the pass.

        Raises:
            UserError: It quantizes the model, which is another step's.
        """
        name = self.options.name
        with context.progress.step(name) as describe:
            model = state.model.apply(self._made, note=f"pass {name}")
            if is_lowered(model.module):
                raise UserError(f"the pass '{name}' gives integer operators; make it the step 'quantize'")
            describe("applied")
        return state.with_model(model)
