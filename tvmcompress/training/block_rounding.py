"""Rounding learned block by block, with activations that are rounded only now and then while it is learned.

Which way each weight of a block is rounded is chosen so that the block's output is that of the float network, its layers
together (Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", 2021), by AdaRound's
stretched sigmoid and its regularizer, whose exponent falls (Nagel et al., "Up or Down? Adaptive Rounding for Post-Training
Quantization", 2020). The steps of activations are learned with it (Esser et al., "Learned Step Size Quantization", 2020), and
while all that is learned each value of an activation stays as it is with a probability (Wei et al., "QDrop: Randomly Dropping
Quantization for Extremely Low-bit Post-Training Quantization", 2022). What a block became is kept if it is better on samples
held back.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from ..errors import UserError
from ..model import InputSpec, Model
from ..passes._tvm import relax, tvm
from ..passes.graph.adopt_module import model_pass
from ..passes.graph.module_params import get_params, input_vars, param_vars, static_shape
from ..passes.graph.remarks import Remark, add_remarks
from ..passes.graph.view import GraphView
from ..passes.quantization.quantized_layers import quantized_layers
from ..passes.quantization.weight_grid import WeightGrid
from ..passes.repair.repairs import Repair
from .backend import Tensor, load_torch
from .bridge import TorchModel
from .checkpoint import Checkpoint
from .fake_quantization import FakeQuantizedModel
from .gradients import SampleLoss
from .quantized_blocks import QuantizedBlock, float_name, quantized_blocks

Progress = Callable[[int, int, str], None]
Values = dict[Any, Tensor]

# AdaRound's sigmoid reaches from -0.1 to 1.1 and is cut at 0 and 1; the regularizer is off for the first part, then its
# exponent falls from the first to the second.
_LOW, _HIGH = -0.1, 1.1
_WARMUP = 0.2
_EXPONENTS = (20.0, 2.0)
_CHUNK = 32
_HELD_BACK = 5
"""One sample of so many is held back."""


@model_pass("RoundBlocks")
class RoundBlocks:
    """Learn how the weights of a module in QDQ form are rounded, and the steps of its activations, block by block.

    Args:
        reference: The float module that was quantized, parameters attached.
        inputs: Calibration samples, one array an input, axis 0 the samples.
        iterations: Steps of Adam in each block.
        batch: Samples in each step.
        learning_rate: Of the rounding.
        step_rate: Of the steps of activations, relative to their size; 0 leaves them.
        strength: Of the regularizer, beside an error of the size that the block begins with.
        drop: With which probability a value stays unrounded while it is learned.
        fisher: Whether errors count by the squared gradient of the float network's loss, as BRECQ has it.
        seed: Of every choice; the same seed on the same number of threads gives the same integers.
        checkpoint: A folder in which the state after every block is kept: a run that was stopped goes on there.
        on_progress: Called with (steps done, steps in all, name of the last layer of the block).

    Raises:
        MissingToolError: PyTorch is not installed.
        UnsupportedOperatorError: There are no gradients for an operator.
        UserError: An option is out of range, there are fewer than two samples, or they do not fit.
    """

    def __init__(
        self,
        reference: tvm.IRModule,
        inputs: Sequence[np.ndarray],
        *,
        iterations: int = 500,
        batch: int = 32,
        learning_rate: float = 0.02,
        step_rate: float = 0.002,
        strength: float = 1.0,
        drop: float = 0.5,
        fisher: bool = False,
        seed: int = 0,
        checkpoint: str | PathLike[str] | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        load_torch()
        if min(iterations, batch) < 1 or not min(learning_rate, strength) > 0 or not step_rate >= 0:
            raise UserError("rounding by blocks needs iterations, a batch, a learning rate and a strength above 0")
        if not 0 <= drop < 1:
            raise UserError(f"drop is a probability below 1, not {drop}")
        self.reference, self.inputs = reference, list(inputs)
        self.iterations, self.batch = int(iterations), int(batch)
        self.learning_rate, self.step_rate, self.strength, self.drop = learning_rate, step_rate, strength, drop
        self.fisher, self.seed = bool(fisher), int(seed)
        self.checkpoint, self.on_progress = checkpoint, on_progress

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with other integers, and other scales of activations."""
        if not self.inputs or len(self.inputs[0]) < 2 * static_shape(input_vars(mod["main"])[0])[0]:
            raise UserError("rounding by blocks needs two samples at least: one to learn from, one to judge by")
        return _Run(self, mod).run()

    def fingerprint(self, mod: tvm.IRModule) -> str:
        """Of all that the outcome depends on."""
        names = ("iterations", "batch", "learning_rate", "step_rate", "strength", "drop", "fisher", "seed")
        digest = hashlib.sha256(json.dumps([getattr(self, name) for name in names]).encode())
        for params in (get_params(mod), get_params(self.reference)):
            for name, value in params.items():
                digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
        for value in self.inputs:
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()[:16]


REPAIR = Repair(RoundBlocks, "rounding of weights and steps of activations learned block by block", resumes=True)


class _Network(FakeQuantizedModel):
    """A network whose weights are rounded softly where asked, and whose activations only now and then.

    Attributes:
        soft: AdaRound's variable of each weight, float32 in its shape.
        keep: Given an activation and it rounded, which is taken; None takes the rounded one.
    """

    def __init__(self, model: Model, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__(model, weights)
        self.soft: dict[relax.Var, Tensor] = {}
        self.drop: Callable[[Tensor, Tensor], Tensor] | None = None

    def evaluate(self, block: QuantizedBlock, values: Values, samples: int) -> Values:
        """The values of a block from those that it reads."""
        found = {**dict(zip(param_vars(self._main), self.tensors.values())), **values}
        for var, expr in block.program:
            found[var] = self._value(var, expr, found, samples)
        return found

    def steps_of(self, block: QuantizedBlock) -> set[str]:
        """The learned steps of the activations of a block, by name."""
        calls = [expr for _, expr in block.program if getattr(getattr(expr, "op", None), "name", "") == "relax.quantize"]
        found = (self.steps_at(call) for call in calls)
        return {steps.name for steps in found if steps.learned}

    def _quantized(self, value: Tensor, steps: Any, bits: int | None = None) -> Tensor:
        rounded = super()._quantized(value, steps, bits)
        return rounded if self.drop is None else self.drop(value, rounded)

    def _rounded(self, grid: WeightGrid) -> Tensor:
        v = self.soft.get(grid.source)
        if v is None:
            return super()._rounded(grid)
        base, steps, free = self.places(grid)[:3]
        return (base + free * self.share(v)) * steps

    def share(self, v: Tensor) -> Tensor:
        """What a weight has of the upper integer, between 0 and 1."""
        return (self._torch.sigmoid(v) * (_HIGH - _LOW) + _LOW).clamp(0.0, 1.0)

    def places(self, grid: WeightGrid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of a weight as it is: the lower integers, the steps, where the upper ones may be taken (1), and their share."""
        if grid.source not in self._places:
            real = self.tensors[grid.parameter.name].detach().permute(grid.order)
            steps, low, high = (self._torch.from_numpy(a.astype(np.float32)) for a in (grid.steps, grid.lowest, grid.highest))
            ratio = real / steps
            base = ratio.floor().clamp(low, high)
            self._places[grid.source] = base, steps, (base < high).float(), (ratio - base).clamp(0.0, 1.0)
        return self._places[grid.source]

    @property
    def _places(self) -> dict[relax.Var, tuple[Tensor, Tensor, Tensor, Tensor]]:
        return self.__dict__.setdefault("_places_made", {})

    def put(self, grid: WeightGrid, integers: Tensor) -> None:
        """Let a weight be these integers, as its reader has them."""
        steps = self._torch.from_numpy(grid.steps.astype(np.float32))
        real = (integers * steps).permute(tuple(int(axis) for axis in np.argsort(grid.order)))
        with self._torch.no_grad():
            self.tensors[grid.parameter.name].copy_(real)


class _Run:
    """One run over the blocks of a module."""

    def __init__(self, options: RoundBlocks, mod: tvm.IRModule) -> None:
        self.torch = load_torch()
        self.options, self.mod = options, mod
        specs = tuple(InputSpec(name=v.name, shape=static_shape(v), dtype=str(v.ty.dtype)) for v in input_vars(mod["main"]))
        self.model = Model(mod, specs)
        weights = {name: value for name, value in get_params(options.reference).items() if value.dtype == np.float32}
        self.network = _Network(self.model, weights)
        self.original = TorchModel(options.reference)
        self.graph = GraphView(mod)
        layers, declined = quantized_layers(mod)
        self.remarks = [Remark("RoundBlocks", name, reason) for name, reason in declined.items()]
        self.blocks = quantized_blocks(self.graph, layers)
        self.inputs = [self.torch.from_numpy(np.ascontiguousarray(value)) for value in options.inputs]
        self.samples = self.network.samples(self.inputs)
        order = np.random.default_rng(options.seed).permutation(self.samples)
        held = max(1, self.samples // _HELD_BACK)
        self.held, self.learned = np.sort(order[:held]), np.sort(order[held:])
        # What blocks read, of all samples, in the quantized network.
        self.read: Values = dict(zip(input_vars(mod["main"]), self.inputs))
        self.taken: set[str] = set()

    def run(self) -> tvm.IRModule:
        """The module with what was learned."""
        with self.torch.no_grad():
            self.network(*(value[: 2 * self._rows(value)] for value in self.inputs))
        if not self.network._batchable:
            why = "its samples are mixed with each other in the network; it keeps its rounding"
            return add_remarks(self.mod, [*self.remarks, Remark("RoundBlocks", "main", why)])
        place = self.options.checkpoint
        kept = None if place is None else Checkpoint(place, self.options.fingerprint(self.mod))
        state = (kept.load() if kept is not None else None) or {"block": 0, "remarks": []}
        for name, value in state.get("tensors", {}).items():
            self.network.tensors[name].data.copy_(value)
        self.remarks += [Remark("RoundBlocks", *entry) for entry in state["remarks"]]
        said = list(state["remarks"])
        for number, block in enumerate(self.blocks):
            if number >= state["block"] and block.layers and block.targets:
                reason = self._learn(number, block)
                if reason is not None:
                    said.append([block.layers[-1].var.name, reason])
                    self.remarks.append(Remark("RoundBlocks", *said[-1]))
                if kept is not None:
                    tensors = {name: tensor.detach() for name, tensor in self.network.tensors.items()}
                    kept.save({"block": number + 1, "remarks": said, "tensors": tensors})
            self.taken |= self.network.steps_of(block)
            self._advance(number, block)
        return add_remarks(self.network.trained(self.model).module, self.remarks)

    def _rows(self, value: Tensor) -> int:
        return len(value) // self.samples

    def _pick(self, value: Tensor, samples: np.ndarray) -> Tensor:
        """A tensor of all samples, of some."""
        rows = self._rows(value)
        return (
            value
            if len(samples) == self.samples
            else value.reshape(self.samples, rows, *value.shape[1:])[self.torch.from_numpy(samples)].reshape(
                len(samples) * rows, *value.shape[1:]
            )
        )

    def _chunks(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        return iter(np.array_split(samples, -(-len(samples) // _CHUNK)))

    def _advance(self, number: int, block: QuantizedBlock) -> None:
        """Know what later blocks read of a block, and forget what none of them does."""
        parts: dict[relax.Var, list[Tensor]] = {var: [] for var in block.leaves}
        with self.torch.no_grad():
            for some in self._chunks(np.arange(self.samples)) if block.leaves else ():
                values = self.network.evaluate(block, {v: self._pick(self.read[v], some) for v in block.reads}, len(some))
                for var, found in parts.items():
                    found.append(values[var])
        self.read |= {var: self.torch.cat(found) for var, found in parts.items()}
        later = {var for after in self.blocks[number + 1 :] for var in after.reads}
        self.read = {var: value for var, value in self.read.items() if var in later}

    def _of_original(self, block: QuantizedBlock) -> tuple[Values, dict[str, Tensor]]:
        """What the float network has in the place of what a block reads, and of its targets by name; squared gradients, too."""
        known = {var.name for var in (*input_vars(self.options.reference["main"]), *GraphView(self.options.reference).values)}
        named = {var: float_name(self.graph, var) for var in block.reads}
        entering = {var: name for var, name in named.items() if name is not None and name in known}
        inputs = {var.name: value for var, value in zip(input_vars(self.options.reference["main"]), self.inputs)}
        names = sorted({name for name in (*entering.values(), *block.targets) if name in known and name not in inputs})
        self.original.tap(names)
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        squares: dict[str, list[Tensor]] = {name: [] for name in block.targets if name in names}
        loss: SampleLoss | None = None
        for some in self._chunks(np.arange(self.samples)):
            given = [self._pick(value, some) for value in self.inputs]
            with self.torch.set_grad_enabled(self.options.fisher):
                outputs = self.original(*given)
                tapped = dict(zip(names, self.original.tapped()))
                if self.options.fisher and squares:
                    loss = loss or SampleLoss(outputs, labels=False, seed=self.options.seed)
                    total = loss(outputs, None).sum()
                    gradients = self.torch.autograd.grad(total, [tapped[name] for name in squares], allow_unused=True)
                    for name, gradient in zip(squares, gradients):
                        squares[name].append(self.torch.zeros_like(tapped[name]) if gradient is None else gradient.square())
            for name, found in tapped.items():
                parts[name].append(found.detach())
        values = {**inputs, **{name: self.torch.cat(found) for name, found in parts.items()}}
        weights = {}
        for name, several in squares.items():
            whole = self.torch.cat(several) if several else self.torch.zeros(1)
            mean = float(whole.mean())
            weights[f"fisher {name}"] = whole / mean if mean > 0 else self.torch.ones(1)
        return {var: values[name] for var, name in entering.items()}, {
            **{name: values[name] for name in block.targets if name in values},
            **(weights if self.options.fisher else {}),
        }

    def _error(self, block: QuantizedBlock, values: Values, targets: Mapping[str, Tensor], some: np.ndarray) -> Tensor:
        """The mean squared error of a block's outputs, each beside the mean square of what is wanted."""
        total = self.torch.zeros(())
        for name, var in block.targets.items():
            if name not in targets:
                continue
            wanted = self._pick(targets[name], some)
            error = (values[var] - wanted).square()
            weight = targets.get(f"fisher {name}")
            if weight is not None and len(weight) == len(targets[name]):
                error = error * self._pick(weight, some)
            total = total + error.mean() / self._scales[name]
        return total

    def _judged(self, block: QuantizedBlock, targets: Mapping[str, Tensor], samples: np.ndarray) -> float:
        """The error of a block as it is on some samples."""
        total = 0.0
        with self.torch.no_grad():
            for some in self._chunks(samples):
                read = {var: self._pick(self.read[var], some) for var in block.reads}
                values = self.network.evaluate(block, read, len(some))
                total += float(self._error(block, values, targets, some)) * len(some)
        return total / len(samples)

    def _learn(self, number: int, block: QuantizedBlock) -> str | None:
        """Round the weights of a block anew; why they stay as they were, if they do."""
        torch, options, network = self.torch, self.options, self.network
        entering, targets = self._of_original(block)
        if not any(name in targets for name in block.targets):
            return "the float model has no result of its block"
        self._scales = {name: max(float(targets[name].square().mean()), 1e-12) for name in block.targets if name in targets}
        grids = [layer.weight for layer in block.layers]
        steps = sorted(network.steps_of(block) - self.taken) if options.step_rate else []
        tensors = {name: network.tensors[name] for name in (*(grid.parameter.name for grid in grids), *steps)}
        soft_start = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        for grid in grids:
            # As it will be stored.
            network.put(grid, torch.from_numpy(grid.nearest(_reader_side(network, grid)).astype(np.float32)))
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        error = self._judged(block, targets, self.held)
        begun = self._judged(block, targets, self.learned)

        def back(values: Mapping[str, Tensor]) -> None:
            with torch.no_grad():
                for name, value in values.items():
                    tensors[name].copy_(value)

        if not (math.isfinite(error) and math.isfinite(begun)):
            return "its block has results that are not finite; it keeps its rounding"
        if begun == 0:
            return None
        back(soft_start)
        finite = self._descend(number, block, entering, targets, begun, steps)
        for grid in grids:
            base, _, free, _ = network.places(grid)
            network.put(grid, base + free * (network.soft.pop(grid.source).detach() > 0).float())
        network.drop = None
        if not finite:
            back(before)
            return "its loss became infinite; it keeps its rounding"
        if not self._judged(block, targets, self.held) < error:
            back(before)
            return "its block is no better on samples held back; it keeps its rounding"
        return None

    def _descend(
        self,
        number: int,
        block: QuantizedBlock,
        entering: Values,
        targets: Mapping[str, Tensor],
        begun: float,
        steps: Sequence[str],
    ) -> bool:
        """Learn the rounding of a block, and steps of activations; whether all losses were finite."""
        torch, options, network = self.torch, self.options, self.network
        draws = torch.Generator().manual_seed(options.seed * 100_003 + number)
        rng = np.random.default_rng([options.seed, number])
        for layer in block.layers:
            share = network.places(layer.weight)[3]
            start = -torch.log((_HIGH - _LOW) / (share - _LOW) - 1.0)
            network.soft[layer.weight.source] = start.requires_grad_(True)
        rounding = [network.soft[layer.weight.source] for layer in block.layers]
        groups = [{"params": rounding, "lr": options.learning_rate, "first": options.learning_rate}]
        for name in steps:
            rate = options.step_rate * abs(network.tensors[name].item())
            groups.append({"params": [network.tensors[name]], "lr": rate, "first": rate})
        adam = torch.optim.Adam(groups)
        count = sum(tensor.numel() for tensor in rounding)

        def some_of(value: Tensor, rounded: Tensor) -> Tensor:
            return torch.where(torch.rand(value.shape, generator=draws) < options.drop, value, rounded)

        network.drop = some_of if options.drop else None
        total = len(self.blocks) * options.iterations
        for iteration in range(options.iterations):
            some = rng.permutation(self.learned)[: options.batch]
            read = {var: self._pick(self.read[var], some) for var in block.reads}
            if options.drop:
                for var, value in entering.items():
                    real = self._pick(value, some)
                    if real.shape == read[var].shape and real.is_floating_point():
                        read[var] = some_of(real, read[var])
            loss = self._error(block, network.evaluate(block, read, len(some)), targets, some) * (count / begun)
            progress = (iteration / options.iterations - _WARMUP) / (1.0 - _WARMUP)
            if progress >= 0:
                exponent = _EXPONENTS[1] + (_EXPONENTS[0] - _EXPONENTS[1]) * (1.0 - progress)
                for v in rounding:
                    loss = loss + options.strength * (1.0 - (2.0 * network.share(v) - 1.0).abs().pow(exponent)).sum()
            if not math.isfinite(float(loss.detach())):
                return False
            adam.zero_grad(set_to_none=True)
            loss.backward()
            # Steps come to rest, so that the rounding is learned for those that stay.
            cosine = 0.5 * (1.0 + math.cos(math.pi * iteration / options.iterations))
            for group in adam.param_groups[1:]:
                group["lr"] = group["first"] * cosine
            adam.step()
            if options.on_progress is not None:
                options.on_progress(number * options.iterations + iteration + 1, total, block.layers[-1].var.name)
        return True


def _reader_side(network: _Network, grid: WeightGrid) -> np.ndarray:
    """A weight as its reader has it, float64."""
    return network.tensors[grid.parameter.name].detach().numpy().astype(np.float64).transpose(grid.order)
