"""TVM's own flow with passes of tvmcompress and one of its own in it: a PyTorch network, pruned, repaired, compiled and run.

    python flow.py        # needs PyTorch: pip install 'tvmcompress[train]'

The module comes from TVM's importer with its weights as constants, and TVM alone compiles what comes out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

from tvmcompress.passes import PruneChannels, Reconstruct, attach_params, detach_params

IMAGES = Path(__file__).resolve().parents[1]


@tvm.transform.module_pass(opt_level=0, name="ClipOutliers")
class ClipOutliers:
    """Clip each weight to so many standard deviations of its tensor: the few that lie outside cost all others resolution
    when integers have to reach them.

    Args:
        deviations: How many.
    """

    def __init__(self, deviations: float = 3.0) -> None:
        self.deviations = deviations

    def transform_module(self, mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        """Weights are named parameters, and their values an attribute of the module."""
        bare, params = detach_params(mod)
        clipped = {
            name: np.clip(value, *(value.mean() + side * self.deviations * value.std() for side in (-1, 1))).astype(value.dtype)
            if value.ndim > 1
            else value
            for name, value in params.items()
        }
        return attach_params(bare, clipped)


def trained(images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """A small network, trained for a few seconds."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 6e-3)
    x, y = torch.from_numpy(images), torch.from_numpy(labels).long()
    for _ in range(25):
        for rows in torch.randperm(len(x)).split(50):
            loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def accuracy(mod: tvm.IRModule, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images that a module, compiled by TVM, gets right."""
    machine = relax.VirtualMachine(tvm.compile(mod, target="llvm"), tvm.cpu())
    scores = [machine["main"](tvm.runtime.tensor(image[None])).numpy() for image in images]
    return float(np.mean([score.argmax() == label for score, label in zip(scores, labels)]))


def compiled_alone(mod: tvm.IRModule) -> tvm.IRModule:
    """Our passes leave weights as named parameters with values; TVM binds them again."""
    bare, params = detach_params(mod)
    return relax.transform.BindParams("main", params)(bare)


def main() -> dict[str, float]:
    """Print and return the accuracy of the network as it is, pruned, and pruned and repaired."""
    data = np.load(IMAGES / "digits_test.npz")
    images, labels = data["x_uint8"].astype(np.float32) / 16, data["y"]
    network = trained(images[:300], labels[:300])
    program = torch.export.export(network, (torch.from_numpy(images[:1]),))
    # One form for what exporters write in many; it also gives layers names.
    original = relax.get_pipeline("tvmcompress.canonical")(from_exported_program(program, unwrap_unit_return_tuple=True))
    passes = [ClipOutliers(), PruneChannels(0.5), relax.transform.CanonicalizeBindings()]
    pruned = tvm.transform.Sequential(passes)(original)
    unlabelled = np.load(IMAGES / "digits_calib.npz")["x_uint8"].astype(np.float32) / 16
    repaired = Reconstruct(original, [unlabelled])(pruned)
    modules = {"original": compiled_alone(original), "pruned": compiled_alone(pruned), "repaired": compiled_alone(repaired)}
    found = {name: accuracy(mod, images[300:450], labels[300:450]) for name, mod in modules.items()}
    for name, value in found.items():
        print(f"{name}: {value:.2%}")
    return found


if __name__ == "__main__":
    main()
