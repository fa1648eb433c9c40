"""Calibration samples without data: made so that the network's layers see what their batch normalizations say that they saw.

Gradient descent on the samples themselves brings mean and standard deviation of every normalized result to those that were
recorded in training (Cai et al., "ZeroQ: A Novel Zero Shot Quantization Framework", 2020; Yin et al., "Dreaming to Distill",
2020). It begins with noise whose power falls with frequency as that of natural images and sounds does (Field, "Relations
between the statistics of natural images and the response properties of cortical cells", 1987); the level and the strength of
each channel are learned with it, since nothing else tells the units of the input. Where the network tells classes apart, each
sample is to be of one, as in the second paper: means over all samples are met by samples of no class as well, on which the
outputs, which have no normalization, stay far smaller than they become on data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..errors import UserError
from ..model import InputSpec, Model
from ..passes._tvm import relax
from ..passes.graph.normalization_statistics import Moments, get_statistics
from ..passes.graph.view import GraphView
from .backend import Tensor, load_torch
from .bridge import TorchModel
from .class_output import ClassOutput

SOURCE = "samples made from the statistics of batch normalizations"

_BATCH = 32
"""Samples made together, which have the statistics together."""
_SCALES = tuple(4.0**power for power in range(-3, 7))
_LEVELS = (0.0, -2.0, -1.0, 1.0, 2.0)
"""Spreads of the input that are tried before the descent, and its means beside the spread."""
_RATE = 0.05
_CLASS, _TEMPERATURE = 0.1, 4.0
"""Weight of the cross-entropy beside the distance of the moments, and its temperature: networks are surer of what they were
trained on than they must be."""
_LAYERS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.matmul")

Progress = Callable[[int, int], None]


def synthesize(
    model: Model, samples: int = 64, *, steps: int = 150, seed: int = 0, on_progress: Progress | None = None
) -> Dataset:
    """Samples to calibrate a float model on where there is no data.

    Args:
        model: A float model whose file had batch normalizations, before anything was pruned.
        samples: How many.
        steps: Of the descent, for each 32 samples.
        seed: Of the noise that it begins with.
        on_progress: Told steps done, out of how many.

    Returns:
        The samples as the model takes them, float32.

    Raises:
        MissingToolError: PyTorch is not installed.
        UnsupportedOperatorError: There are no gradients for an operator.
        UserError: The model knows no statistics, an input is not float32, or a number is below 1.
    """
    if min(samples, steps) < 1:
        raise UserError(f"{samples} samples in {steps} steps were asked for; ask for at least 1")
    torch = load_torch()
    known = _normalized(model)
    if not known:
        raise UserError(
            "no samples can be made: the model has no statistics of batch normalizations, or whoever wrote the file has folded "
            "them; calibrate on data"
        )
    for spec in model.inputs:
        if spec.dtype != "float32":
            raise UserError(f"no samples can be made for input '{spec.name}', which is {spec.dtype}, not float32")
    network = TorchModel(model.module)
    for tensor in network.tensors.values():
        tensor.requires_grad_(False)
    network.tap(list(known))
    wanted = [_Wanted(torch, *moments) for moments in known.values()]
    own = model.inputs[0].shape[0]
    step = max(1, _BATCH // own) * own
    counts = [min(step, samples - start) for start in range(0, samples, step)]
    rng = np.random.default_rng(seed)
    made: list[list[np.ndarray]] = []
    for index, count in enumerate(counts):

        def follow(done: int, before: int = index * steps) -> None:
            if on_progress is not None:
                on_progress(before + done, steps * len(counts))

        made.append(_descend(torch, network, wanted, model.inputs, -(-count // own) * own, steps, rng, follow))
    arrays = tuple(np.concatenate(parts)[: samples // own * own or own] for parts in zip(*made))
    plain = (None,) * len(arrays)
    return Dataset(tuple(model.inputs), arrays, None, plain, plain, SOURCE)


class _Wanted:
    """The moments that a result is to have.

    Args:
        torch: PyTorch.
        axis: Which one of the result counts channels.
        moments: Of each channel.
    """

    def __init__(self, torch: Any, axis: int, moments: Moments) -> None:
        self._axis = axis
        self._mean, self._deviation = (
            torch.tensor(values, dtype=torch.float32) for values in (moments.mean, moments.deviation)
        )
        self._size = float(self._deviation.square().mean()) + 1e-12

    def distance(self, value: Tensor) -> Tensor:
        """How far the moments of a result are from these: mean square over channels, beside the spread of the layer."""
        axis = self._axis % value.ndim
        across = [other for other in range(value.ndim) if other != axis]
        mean = value.mean(across)
        deviation = (value.var(across, unbiased=False) + 1e-12).sqrt()
        error = (mean - self._mean).square() + (deviation - self._deviation).square()
        return error.mean() / self._size


def _normalized(model: Model) -> dict[str, tuple[int, Moments]]:
    """The results whose moments are known, by name: the axis of their channels, and the moments."""
    graph, statistics = GraphView(model.module), get_statistics(model.module)
    found: dict[str, tuple[int, Moments]] = {}
    for var, call in graph.values.items():
        if not isinstance(call, relax.Call) or getattr(call.op, "name", "") not in _LAYERS:
            continue
        moments = statistics.get(getattr(call.args[1], "name", ""))
        if moments is None:
            continue
        behind = graph.sole_reader(var)
        biased = behind is not None and behind[1].op.name == "relax.add" and behind[1].args[1] in graph.params
        result = behind[0] if biased and behind is not None else var
        axis = -1 if call.op.name == "relax.matmul" else 1
        if int(result.ty.shape[axis]) == moments.mean.size:
            found[result.name] = axis, moments
    return found


def _descend(
    torch: Any,
    network: TorchModel,
    wanted: list[_Wanted],
    specs: tuple[InputSpec, ...],
    count: int,
    steps: int,
    rng: np.random.Generator,
    follow: Callable[[int], None],
) -> list[np.ndarray]:
    """Samples, one array an input."""

    def distance(inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        outputs = network(*inputs)
        return sum(target.distance(value) for target, value in zip(wanted, network.tapped())) / len(wanted), outputs

    def loss(inputs: list[Tensor]) -> Tensor:
        far, outputs = distance(inputs)
        known = ClassOutput.of(outputs)
        if known is None:
            return far
        places = torch.arange(count) % known.classes
        return far - _CLASS * known.logs(outputs, _TEMPERATURE)[torch.arange(count), places].mean()

    noise = [torch.from_numpy(_noise(rng, (count, *spec.shape[1:]))) for spec in specs]
    with torch.no_grad():
        trials = itertools.product(_SCALES, _LEVELS)
        scale, shift = min(trials, key=lambda at: float(distance([at[0] * (value + at[1]) for value in noise])[0]))
    strength, level = (
        [torch.full(_by_channel(spec), value, requires_grad=True) for spec in specs] for value in (0.0, shift)
    )
    for value in noise:
        value.requires_grad_(True)
    groups = [{"params": noise}, {"params": [*strength, *level], "lr": 2 * _RATE}]
    optimizer = torch.optim.Adam(groups, lr=_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def inputs() -> list[Tensor]:
        return [scale * (mean + by.exp() * value) for value, by, mean in zip(noise, strength, level)]

    for step in range(steps):
        optimizer.zero_grad()
        loss(inputs()).backward()
        optimizer.step()
        schedule.step()
        follow(step + 1)
    made = [value.detach().numpy().astype(np.float32) for value in inputs()]
    if not all(np.isfinite(value).all() for value in made):
        raise UserError("no samples can be made: the descent towards the statistics has no finite end; calibrate on data")
    return made


def _by_channel(spec: InputSpec) -> tuple[int, ...]:
    """The shape of one number a channel, axis 1."""
    return tuple(size if axis == 1 else 1 for axis, size in enumerate(spec.shape))


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """float32 noise of deviation 1, its amplitude in inverse proportion to frequency along the axes behind the channels."""
    white = rng.standard_normal(shape)
    axes = tuple(range(2, len(shape)))
    if axes:
        grid = np.meshgrid(*(np.fft.fftfreq(shape[axis]) * shape[axis] for axis in axes), indexing="ij")
        frequency = np.sqrt(sum(np.square(along) for along in grid))
        white = np.fft.ifftn(np.fft.fftn(white, axes=axes) / np.maximum(frequency, 1.0), axes=axes).real
    return np.asarray(white / max(float(white.std()), 1e-12), np.float32)
