"""Gradients, by way of PyTorch: a module run there, criteria of importance that need them, and fine-tuning.

Importing this package does not import PyTorch; using it does (`pip install 'tvmcompress[train]'`).
"""

from __future__ import annotations

from .bridge import TorchModel
from .criteria import FisherImportance, GradientCriterion, TaylorImportance
from .finetuning import finetune
from .gradients import SampleLoss, sample_gradients

__all__ = [
    "FisherImportance",
    "GradientCriterion",
    "SampleLoss",
    "TaylorImportance",
    "TorchModel",
    "finetune",
    "sample_gradients",
]
