"""Gradients, by way of PyTorch: a module run there, and criteria of importance that need them.

Importing this package does not import PyTorch; using it does (`pip install 'tvmcompress[train]'`).
"""

from __future__ import annotations

from .bridge import TorchModel
from .criteria import GRADIENT_CRITERIA, FisherImportance, GradientCriterion, TaylorImportance
from .gradients import SampleLoss, sample_gradients

__all__ = [
    "GRADIENT_CRITERIA",
    "FisherImportance",
    "GradientCriterion",
    "SampleLoss",
    "TaylorImportance",
    "TorchModel",
    "sample_gradients",
]
