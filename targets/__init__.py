"""Where models run: descriptions of targets, and building, running and measuring on them."""

from .artifact_folder import load_artifact
from .base import Artifact, Target, TargetDescription, TensorSpec
from .measurement import Latency, Measurement
from .registry import get_target, list_targets, read_description

__all__ = [
    "Artifact",
    "Latency",
    "Measurement",
    "Target",
    "TargetDescription",
    "TensorSpec",
    "get_target",
    "list_targets",
    "load_artifact",
    "read_description",
]
