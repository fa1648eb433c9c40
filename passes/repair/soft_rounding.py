"""What rounding learned by descent begins and ends with: AdaRound's stretched sigmoid and its regularizer.

A weight is the integer below it and a share h of the step to the next, h(v) = clip(sigmoid(v) (1.1 + 0.1) - 0.1, 0, 1). To
the error is added strength * sum(1 - |2h - 1|^b), whose exponent b falls, which drives every h to 0 or 1 in the end (Nagel et
al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020, equations 22 to 24).
"""

from __future__ import annotations

LOW, HIGH = -0.1, 1.1
"""How far the sigmoid reaches before it is cut at 0 and 1."""

_WARMUP = 0.2
_EXPONENTS = (20.0, 2.0)


def exponent(done: float) -> float | None:
    """The regularizer's exponent; None while it is off, which is in the first part of the descent.

    Args:
        done: Which part of the steps is done, in [0, 1).
    """
    progress = (done - _WARMUP) / (1.0 - _WARMUP)
    return None if progress < 0 else _EXPONENTS[1] + (_EXPONENTS[0] - _EXPONENTS[1]) * (1.0 - progress)
