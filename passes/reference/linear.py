"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .registry import Context, Value, register_reference


@register_reference("relax.matmul")
def _matmul(args: Sequence[Value], context: Context) -> Value:
    a, b = args
    out_dtype = str(context.call.ty.dtype)
    if np.issubdtype(a.dtype, np.integer):
        # Exact, and much faster than NumPy's integer product: it goes to BLAS.
        a, b = a.astype(np.float64), b.astype(np.float64)
    return np.matmul(a, b).astype(out_dtype, copy=False)


@register_reference("relax.einsum")
def _einsum(args: Sequence[Value], context: Context) -> Value:
    return np.einsum(str(context.attrs.subscripts), *args[0], optimize=True)
