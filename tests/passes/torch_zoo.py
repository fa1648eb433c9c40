"""Networks of all kinds, built in PyTorch and imported as a user would import them."""

# mypy: ignore-errors

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import nn

from . import torch_models_cnn as cnn
from . import torch_models_dense as dense
from . import torch_models_mobile as mobile
from . import torch_models_sequences as sequences
from . import torch_models_transformers as transformers

IMAGE = (1, 3, 16, 16)


@dataclass(frozen=True)
class Architecture:
    """A network and what pruning must find in it.

    Attributes:
        build: Makes the network.
        groups: The least number of groups that can be pruned.
        inputs: The shapes of its inputs.
        tokens: The number of different tokens, for inputs that are integers.
    """

    build: Callable[[], nn.Module]
    groups: int
    inputs: tuple[tuple[int, ...], ...] = (IMAGE,)
    tokens: int = 0

    @property
    def name(self) -> str:
        """The network's name."""
        return self.build.__name__

    def sample(self, seed: int = 0) -> list[np.ndarray]:
        """Random inputs; with tokens the first inputs are integers."""
        rng = np.random.default_rng(seed)
        if self.tokens:
            return [rng.integers(0, self.tokens, shape) for shape in self.inputs]
        return [rng.standard_normal(shape).astype("float32") for shape in self.inputs]


def instantiate(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network with weights that keep the size of the activations, statistics and scales far from their defaults."""
    torch.manual_seed(seed)
    network = build().eval()
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        if not value.is_floating_point() or name.endswith(("cos", "sin", "anchors")):
            continue
        kind = name.rpartition(".")[2]
        with torch.no_grad():
            if value.ndim > 1 and kind != "embedding":
                value.normal_(std=float(np.prod(value.shape[1:])) ** -0.5 * 1.2)
            elif kind in ("weight", "running_var", "scale"):
                value.uniform_(0.5, 1.5)
            else:
                # More positive than not, so that few units are dead behind a rectifier.
                value.uniform_(-0.2, 0.6)
    return network


def export(network: nn.Module, sample: list[np.ndarray], **options) -> onnx.ModelProto:
    """The network in ONNX, opset 17."""
    file = io.BytesIO()
    options = {"opset_version": 17, "dynamo": False, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, tuple(torch.from_numpy(x) for x in sample), file, **options)
    return onnx.load_from_string(file.getvalue())


def outputs(network: nn.Module, sample: list[np.ndarray]) -> list[np.ndarray]:
    """What PyTorch computes."""
    with torch.no_grad():
        result = network(*(torch.from_numpy(x) for x in sample))
    return [value.numpy() for value in (result if isinstance(result, tuple) else (result,))]


ARCHITECTURES = [
    Architecture(cnn.resnet_basic, 6),
    Architecture(cnn.resnet_bottleneck, 9),
    Architecture(cnn.resnext, 6),
    Architecture(cnn.regnet, 12),
    Architecture(cnn.preactivation_resnet, 3),
    Architecture(cnn.densenet, 10),
    Architecture(cnn.inception, 20),
    Architecture(cnn.squeezenet, 7),
    Architecture(cnn.vgg, 5),
    Architecture(cnn.repvgg, 2),
    Architecture(cnn.res2net, 11),
    Architecture(cnn.selective_kernel, 5),
    Architecture(cnn.attention_module, 4),
    Architecture(cnn.global_context, 4),
    Architecture(cnn.normalizations, 6),
    Architecture(mobile.mobilenet_v1, 4),
    Architecture(mobile.mobilenet_v2, 8),
    Architecture(mobile.mobilenet_v3, 9),
    Architecture(mobile.efficientnet, 9),
    Architecture(mobile.shufflenet_v1, 4),
    Architecture(mobile.shufflenet_v2, 14),
    Architecture(mobile.ghostnet, 6),
    Architecture(mobile.mobilenet_with_shift, 7),
    Architecture(mobile.volumes, 4, ((1, 2, 4, 8, 8),)),
    Architecture(dense.UNet, 7),
    Architecture(dense.FeaturePyramid, 6),
    Architecture(dense.Yolo, 15),
    Architecture(dense.DeepLab, 9),
    Architecture(dense.WeightedPyramid, 3),
    Architecture(dense.SuperResolution, 4, ((1, 3, 8, 8),)),
    Architecture(dense.StyleTransfer, 3),
    Architecture(dense.autoencoder, 5),
    Architecture(dense.Siamese, 3, (IMAGE, IMAGE)),
    Architecture(dense.Experts, 5),
    Architecture(dense.TemporalConvolutions, 6, ((1, 2, 16),)),
    Architecture(dense.signal_cnn, 5, ((1, 1, 64),)),
    Architecture(transformers.VisionTransformer, 7),
    Architecture(transformers.Swin, 11),
    Architecture(transformers.MlpMixer, 4),
    Architecture(sequences.GatedMlp, 2, ((1, 8, 6),)),
    Architecture(transformers.ConvNext, 4),
    Architecture(transformers.PoolFormer, 2),
    Architecture(transformers.MobileVit, 11),
    Architecture(transformers.SegFormer, 5),
    Architecture(transformers.Bert, 5, ((1, 8), (1, 8)), tokens=2),
    Architecture(transformers.Llama, 4, ((1, 6),), tokens=24),
    Architecture(transformers.EncoderDecoder, 7),
    Architecture(transformers.Encoder, 4, ((1, 6, 6),)),
    Architecture(transformers.EinsumAttention, 4, ((1, 6, 6),)),
    Architecture(transformers.Conformer, 5, ((1, 8, 6),)),
    Architecture(sequences.PointNet, 4, ((1, 3, 16),)),
    Architecture(sequences.GraphConvolutions, 2, ((1, 7, 5), (1, 7, 7))),
    Architecture(sequences.Recommender, 3, ((1,), (1,)), tokens=10),
]
