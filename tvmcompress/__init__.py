"""tvmcompress: a model-compression compiler on Apache TVM for edge targets.

    import tvmcompress

    result = tvmcompress.compress("model.onnx", "data.npz", prune=0.5, quantize="int8")
    print(tvmcompress.evaluate(result.model, "test.npz", reference=result.original))
    artifact = tvmcompress.build(result.model, "cortex-m4", "out/")
    print(artifact.measure())

Names are loaded on first use, so that importing the package does not load TVM.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .compression import CompressionResult, compress
    from .data.dataset import Dataset, load_data
    from .errors import LimitError, MissingToolError, ToolError, UnsupportedOperatorError, UserError
    from .evaluation.accuracy import Evaluation, evaluate
    from .evaluation.noise import LayerNoise, layer_noise
    from .exporting import export_onnx
    from .exporting.model_library import export_model_library
    from .exporting.tvm_module import export_tvm_module
    from .importing import load
    from .measuring.benchmarking import benchmark
    from .measuring.building import build
    from .model import InputSpec, Model, Preprocessing
    from .recipe.recipe import FinetuneRecipe, PruneRecipe, QuantizeRecipe, Recipe
    from .targets.artifact_folder import load_artifact
    from .targets.registry import get_target, list_targets
    from .training.finetuning import finetune
    from .training.synthesis import synthesize
    from .tuning.tune import tune

_HOMES = {
    "CompressionResult": "compression",
    "Dataset": "data.dataset",
    "Evaluation": "evaluation.accuracy",
    "FinetuneRecipe": "recipe.recipe",
    "InputSpec": "model",
    "LayerNoise": "evaluation.noise",
    "LimitError": "errors",
    "MissingToolError": "errors",
    "Model": "model",
    "Preprocessing": "model",
    "PruneRecipe": "recipe.recipe",
    "QuantizeRecipe": "recipe.recipe",
    "Recipe": "recipe.recipe",
    "ToolError": "errors",
    "UnsupportedOperatorError": "errors",
    "UserError": "errors",
    "benchmark": "measuring.benchmarking",
    "build": "measuring.building",
    "compress": "compression",
    "evaluate": "evaluation.accuracy",
    "export_model_library": "exporting.model_library",
    "export_tvm_module": "exporting.tvm_module",
    "export_onnx": "exporting",
    "finetune": "training.finetuning",
    "get_target": "targets.registry",
    "layer_noise": "evaluation.noise",
    "list_targets": "targets.registry",
    "load": "importing",
    "load_artifact": "targets.artifact_folder",
    "load_data": "data.dataset",
    "synthesize": "training.synthesis",
    "tune": "tuning.tune",
}

__all__ = [
    "CompressionResult",
    "Dataset",
    "Evaluation",
    "FinetuneRecipe",
    "InputSpec",
    "LayerNoise",
    "LimitError",
    "MissingToolError",
    "Model",
    "Preprocessing",
    "PruneRecipe",
    "QuantizeRecipe",
    "Recipe",
    "ToolError",
    "UnsupportedOperatorError",
    "UserError",
    "__version__",
    "benchmark",
    "build",
    "compress",
    "evaluate",
    "export_model_library",
    "export_onnx",
    "export_tvm_module",
    "finetune",
    "get_target",
    "layer_noise",
    "list_targets",
    "load",
    "load_artifact",
    "load_data",
    "synthesize",
    "tune",
]

if not TYPE_CHECKING:  # type checkers know the names above, and no others

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
