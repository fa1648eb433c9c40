"""Train the network that predicts the joints' errors with scikit-learn, and write it as model.onnx.

    pip install scikit-learn
    python train.py          # about a minute
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from arm import poses
from onnx import TensorProto, helper, numpy_helper
from sklearn.neural_network import MLPRegressor


def as_onnx(network: MLPRegressor, mean: np.ndarray, deviation: np.ndarray) -> onnx.ModelProto:
    """A multi-layer perceptron with ReLU as ONNX; the inputs' normalization goes into the first layer's weights."""
    weights, biases = [matrix.copy() for matrix in network.coefs_], [bias.copy() for bias in network.intercepts_]
    weights[0] /= deviation[:, None]
    biases[0] -= mean @ weights[0]
    nodes, constants, value = [], [], "pose"
    for index, (weight, bias) in enumerate(zip(weights, biases)):
        for kind, array in (("weight", weight), ("bias", bias)):
            constants.append(numpy_helper.from_array(array.astype(np.float32), f"dense{index}.{kind}"))
        last = index == len(weights) - 1
        output = "errors" if last else f"dense{index}"
        nodes.append(helper.make_node("Gemm", [value, f"dense{index}.weight", f"dense{index}.bias"], [output], output))
        if not last:
            nodes.append(helper.make_node("Relu", [output], [f"relu{index}"], f"relu{index}"))
            value = f"relu{index}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in (("pose", len(weights[0])), ("errors", len(biases[-1])))
    ]
    graph = helper.make_graph(nodes, "robot_arm", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    """Train, tell the error, write."""
    parser = argparse.ArgumentParser(description="Train and write model.onnx.")
    parser.add_argument("--poses", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    x, errors = poses(options.poses, seed=0)
    mean, deviation = x.mean(0), x.std(0)
    network = MLPRegressor(hidden_layer_sizes=(64, 64), max_iter=options.epochs, batch_size=200, random_state=0)
    network.fit((x - mean) / deviation, errors)
    held, truth = poses(1000, seed=3)
    left = network.predict((held - mean) / deviation) - truth
    print(f"error {np.sqrt((truth**2).mean()):.3f} mrad uncorrected, {np.sqrt((left**2).mean()):.3f} mrad corrected")
    onnx.save(as_onnx(network, mean, deviation), options.output / "model.onnx")


if __name__ == "__main__":
    main()
