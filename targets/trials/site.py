"""A place in a model as something to try kernels at."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from ...passes._tvm import Constant, relax
from ...passes.graph.interpreter import evaluate_call
from ...passes.graph.module_params import static_shape
from ..aot.program import INPLACE_ATTR
from ..kernels.compiler_options import llvm_options, without_options
from ..kernels.decisions import Decisions, point_key
from ..kernels.use_kernels import Kernel, Site
from .trial import Trial


class SiteTrials:
    """Makes candidates of one site, all on the same random int8 inputs.

    Args:
        site: The site.
        seed: Of the inputs.
    """

    def __init__(self, site: Site, seed: int = 0) -> None:
        self._site = site
        random = np.random.default_rng([seed, zlib.crc32(site.choice.workload.key.encode())])

        def tensor(expr: relax.Expr) -> np.ndarray:
            return random.integers(-128, 128, static_shape(expr)).astype("int8")

        call = site.call
        self._tensors = [tensor(arg) for arg in call.args if not isinstance(arg, Constant)]
        values = iter(self._tensors)
        result = evaluate_call(call, [arg.value.numpy() if isinstance(arg, Constant) else next(values) for arg in call.args])
        if site.addition is not None:
            self._tensors.append(tensor(call))
            result = evaluate_call(site.addition, [result, self._tensors[-1]])
        self._expected = np.asarray(result).ravel()
        self._last: tuple[str, Kernel | None] | None = None

    def trial(self, decisions: Decisions) -> Trial | None:
        """The kernel as decided; None where its maker makes none.

        Points one after the other that differ in LLVM's options alone have the same function.
        """
        kernel = self._kernel(decisions)
        if kernel is None:
            return None
        flat = [value.ravel() for value in self._tensors]
        if self._site.addition is not None:
            *constants, table = kernel.constants
            arguments = [flat[0], *constants, flat[1], table]
            activations = [0, len(arguments) - 2]
        else:
            arguments = [*flat, *kernel.constants]
            activations = list(range(len(flat)))
            if kernel.repeat:
                arguments += [flat[0], kernel.constants[-1]]
                activations.append(len(arguments) - 2)
        inplace = kernel.func.attrs.get(INPLACE_ATTR) if kernel.func.attrs is not None else None
        return Trial(
            kernel.func, arguments, activations, self._expected, None if inplace is None else int(inplace), kernel.options
        )

    def _kernel(self, decisions: Decisions) -> Kernel | None:
        function = point_key(without_options(decisions))
        if self._last is not None and self._last[0] == function:
            kernel = self._last[1]
            return None if kernel is None else replace(kernel, options=llvm_options(decisions))
        kernel = self._site.make(lambda call, choice: decisions)
        self._last = (function, kernel)
        return kernel
