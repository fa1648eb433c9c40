"""Train the small network of the examples on handwritten digits and write it as ONNX.

The digits are scikit-learn's copy of the test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak,
1998), UCI Machine Learning Repository, CC BY 4.0: 1797 images of 8x8 pixels, values 0 to 16.

The network has what networks for small devices are made of: convolutions with batch normalization, a residual addition,
depthwise-separable convolutions, ReLU6 and a global pool. It takes raw pixel values: the division by 16 sits in the
first convolution's weights. It is larger than the task needs, so that there is something to prune.

Needs the extra `train`:

    pip install 'tvmcompress[train]' scikit-learn
    python examples/train_digits.py

Writes digits.onnx, digits_calib.npz (400 training images) and digits_test.npz (600 images that training never saw) into
this folder, or into the folder given by --output.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

TEST_IMAGES = 600
CALIBRATION_IMAGES = 400
PIXEL_MAX = 16.0


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size (at stride 1) and leaves the bias to the batch normalization behind it."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class DigitsNet(nn.Module):
    """(N, 1, 8, 8) pixels in 0..1 to (N, 10) logits."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        wide = 2 * width
        self.stem, self.stem_bn = conv(1, width, 3), nn.BatchNorm2d(width)
        self.res1, self.res1_bn = conv(width, width, 3), nn.BatchNorm2d(width)
        self.res2, self.res2_bn = conv(width, width, 3), nn.BatchNorm2d(width)
        self.dw1, self.dw1_bn = conv(width, width, 3, stride=2, groups=width), nn.BatchNorm2d(width)
        self.pw1, self.pw1_bn = conv(width, wide, 1), nn.BatchNorm2d(wide)
        self.dw2, self.dw2_bn = conv(wide, wide, 3, groups=wide), nn.BatchNorm2d(wide)
        self.pw2, self.pw2_bn = conv(wide, wide, 1), nn.BatchNorm2d(wide)
        self.classifier = nn.Linear(wide, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem_bn(self.stem(x)))
        residual = F.relu(self.res1_bn(self.res1(x)))
        x = F.relu(x + self.res2_bn(self.res2(residual)))
        x = F.relu6(self.dw1_bn(self.dw1(x)))
        x = F.relu6(self.pw1_bn(self.pw1(x)))
        x = F.relu6(self.dw2_bn(self.dw2(x)))
        x = F.relu6(self.pw2_bn(self.pw2(x)))
        return self.classifier(x.mean((2, 3)))


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotate, scale and shift each image a little, and vary its contrast."""
    count = len(images)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    angle, scale = uniform(-0.25, 0.25), uniform(0.88, 1.12)
    shift_x, shift_y = uniform(-0.15, 0.15), uniform(-0.15, 0.15)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([torch.stack([cos, -sin, shift_x], 1), torch.stack([sin, cos, shift_y], 1)], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False)
    return (moved * uniform(0.85, 1.15)[:, None, None, None]).clamp(0, 1)


def train(net: DigitsNet, images: torch.Tensor, labels: torch.Tensor, epochs: int, generator: torch.Generator) -> None:
    """Train in place: AdamW, one-cycle learning rate, label smoothing."""
    batch = 64
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.02)
    steps = -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * steps)
    for epoch in range(epochs):
        net.train()
        total = 0.0
        for index in torch.randperm(len(images), generator=generator).split(batch):
            logits = net(augment(images[index], generator))
            loss = F.cross_entropy(logits, labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(index)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3}  loss {total / len(images):.4f}", flush=True)


@torch.no_grad()
def accuracy(net: DigitsNet, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 accuracy, 0 to 1."""
    net.eval()
    return float((net(images).argmax(1) == labels).float().mean())


class OnnxWriter:
    """Writes the network node by node, so that names are the layers' and the graph holds nothing else."""

    def __init__(self, state: dict[str, np.ndarray]) -> None:
        self.state = state
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add an initializer."""
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        """Add a node; its output has its name."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv_bn(self, x: str, name: str, stride: int = 1) -> str:
        """A convolution and the batch normalization behind it."""
        weight = self.state[f"{name}.weight"]
        kernel = weight.shape[2]
        groups = weight.shape[0] if weight.shape[1] == 1 and name.startswith("dw") else 1
        x = self.node(
            "Conv",
            [x, self.constant(f"{name}.weight", weight)],
            f"{name}_out",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )
        keys = ("weight", "bias", "running_mean", "running_var")
        statistics = [self.constant(f"{name}_bn.{key}", self.state[f"{name}_bn.{key}"]) for key in keys]
        return self.node("BatchNormalization", [x, *statistics], f"{name}_bn_out", epsilon=1e-5)

    def relu6(self, x: str, name: str) -> str:
        """ReLU6 as exporters write it."""
        return self.node("Clip", [x, "zero", "six"], f"{name}_relu6")

    def model(self) -> onnx.ModelProto:
        """The whole network."""
        self.constant("zero", np.float32(0.0))
        self.constant("six", np.float32(6.0))
        x = self.node("Relu", [self.conv_bn("image", "stem")], "stem_relu")
        y = self.node("Relu", [self.conv_bn(x, "res1")], "res1_relu")
        x = self.node("Relu", [self.node("Add", [x, self.conv_bn(y, "res2")], "residual")], "residual_relu")
        for name, stride in (("dw1", 2), ("pw1", 1), ("dw2", 1), ("pw2", 1)):
            x = self.relu6(self.conv_bn(x, name, stride), name)
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x], "pool")], "features")
        weight = self.constant("classifier.weight", self.state["classifier.weight"])
        bias = self.constant("classifier.bias", self.state["classifier.bias"])
        self.node("Gemm", [x, weight, bias], "logits", transB=1)
        graph = helper.make_graph(
            self.nodes,
            "digits",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
            self.initializers,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(proto, full_check=True)
        return proto


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent)
    options = parser.parse_args()

    digits = load_digits()
    pixels = digits.images.astype(np.uint8)[:, None]
    targets = digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        pixels, targets, test_size=TEST_IMAGES, random_state=0, stratify=targets
    )

    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    net = DigitsNet(options.width)
    as_input = [torch.from_numpy(x).float() / PIXEL_MAX for x in (x_train, x_test)]
    as_label = [torch.from_numpy(y) for y in (y_train, y_test)]
    train(net, as_input[0], as_label[0], options.epochs, generator)
    print(
        f"accuracy: {accuracy(net, as_input[0], as_label[0]):.2%} of the training images, "
        f"{accuracy(net, as_input[1], as_label[1]):.2%} of the {TEST_IMAGES} test images"
    )

    state = {name: value.detach().numpy().copy() for name, value in net.state_dict().items()}
    state["stem.weight"] /= PIXEL_MAX
    options.output.mkdir(parents=True, exist_ok=True)
    onnx.save(OnnxWriter(state).model(), options.output / "digits.onnx")
    chosen = np.random.default_rng(0).choice(len(x_train), CALIBRATION_IMAGES, replace=False)
    np.savez_compressed(options.output / "digits_calib.npz", x_uint8=x_train[chosen], y=y_train[chosen])
    np.savez_compressed(options.output / "digits_test.npz", x_uint8=x_test, y=y_test)
    print(f"wrote digits.onnx, digits_calib.npz and digits_test.npz to {options.output}")


if __name__ == "__main__":
    main()
