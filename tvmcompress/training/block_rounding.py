"""Rounding learned block by block, with activations that are rounded only now and then while it is learned.

Which way each weight of a block is rounded is chosen so that the block's output is that of the float network, its layers
together (Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", 2021). One block comes
after the other, each on what those before it, already rounded, really give it. `quantized_blocks` says what a block is,
`block_targets` what it is to give, `soft_network` what is learned in, `block_descent` how.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from os import PathLike

import numpy as np

from ..errors import UserError
from ..model import InputSpec, Model
from ..passes._tvm import relax, tvm
from ..passes.graph.adopt_module import model_pass
from ..passes.graph.module_params import detach_params, get_params, input_vars, static_shape
from ..passes.graph.remarks import Remark, add_remarks
from ..passes.graph.view import GraphView
from ..passes.quantization.quantized_layers import quantized_layers
from ..passes.repair.repairs import Repair
from .backend import Tensor, load_torch
from .block_descent import BlockDescent, RoundingOptions
from .block_targets import FloatBlocks, chunks, is_stacked, pick
from .checkpoint import Checkpoint
from .quantized_blocks import QuantizedBlock, quantized_blocks
from .soft_network import SoftNetwork, Values

Progress = Callable[[int, int, str], None]

_NAME = "RoundBlocks"
_HELD_BACK = 5
"""One sample of so many is held back."""


@model_pass(_NAME)
class RoundBlocks:
    """Learn how the weights of a module in QDQ form are rounded, and the steps of its activations, block by block.

    Args:
        reference: The float module that was quantized, parameters attached.
        inputs: Calibration samples, one array an input, axis 0 the samples.
        checkpoint: A folder in which the state after every block is kept: a run that was stopped goes on there.
        on_progress: Called with (steps done, steps in all, name of the last layer of the block).
        options: Fields of `RoundingOptions`.

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
        checkpoint: str | PathLike[str] | None = None,
        on_progress: Progress | None = None,
        **options: float,
    ) -> None:
        load_torch()
        self.options = RoundingOptions(**options)  # type: ignore[arg-type]  # whole numbers where it wants them
        self.reference, self.inputs = reference, list(inputs)
        self.checkpoint, self.on_progress = checkpoint, on_progress

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with other integers, and other scales of activations."""
        return _Run(self, mod).run()

    def fingerprint(self, mod: tvm.IRModule) -> str:
        """Of all that the outcome depends on."""
        digest = hashlib.sha256(repr(self.options).encode())
        for bare, params in (detach_params(mod), detach_params(self.reference)):
            # Scales and zero points of activations are in the program.
            digest.update(tvm.ir.save_json(bare).encode())
            for name, value in params.items():
                digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
        for value in self.inputs:
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()[:16]


REPAIR = Repair(RoundBlocks, "rounding of weights and steps of activations learned block by block", resumes=True)


class _Run:
    """One run over the blocks of a module."""

    def __init__(self, asked: RoundBlocks, mod: tvm.IRModule) -> None:
        self._torch = load_torch()
        self._asked, self._mod, self._options = asked, mod, asked.options
        variables = input_vars(mod["main"])
        specs = tuple(InputSpec(name=v.name, shape=static_shape(v), dtype=str(v.ty.dtype)) for v in variables)
        self._model = Model(mod, specs)
        weights = {name: value for name, value in get_params(asked.reference).items() if value.dtype == np.float32}
        self._network = SoftNetwork(self._model, weights)
        inputs = [self._torch.from_numpy(np.ascontiguousarray(value)) for value in asked.inputs]
        graph = GraphView(mod)
        self._original = FloatBlocks(asked.reference, inputs, graph, self._options.fisher, self._options.seed)
        layers, declined = quantized_layers(mod)
        self._remarks = [Remark(_NAME, name, reason) for name, reason in declined.items()]
        self._blocks = quantized_blocks(graph, layers)
        self._samples = self._network.samples(inputs)
        if self._samples < 2:
            raise UserError("rounding by blocks needs two samples at least: one to learn from, one to judge by")
        order = np.random.default_rng(self._options.seed).permutation(self._samples)
        held = max(1, self._samples // _HELD_BACK)
        self._held, self._learned = np.sort(order[:held]), np.sort(order[held:])
        # What blocks read, of all samples, in the quantized network.
        self._read: Values = dict(zip(variables, inputs))

    def run(self) -> tvm.IRModule:
        """The module with what was learned."""
        if not self._is_stacked():
            why = "its samples are mixed with each other in the network; it keeps its rounding"
            return add_remarks(self._mod, [*self._remarks, Remark(_NAME, "main", why)])
        place = self._asked.checkpoint
        kept = None if place is None else Checkpoint(place, self._asked.fingerprint(self._mod))
        state = (kept.load() if kept is not None else None) or {"block": 0, "remarks": [], "tensors": {}}
        for name, value in state["tensors"].items():
            self._network.tensors[name].data.copy_(value)
        said: list[list[str]] = list(state["remarks"])
        taken: set[str] = set()
        for number, block in enumerate(self._blocks):
            if number >= state["block"] and block.layers:
                reason = self._learn(number, block, taken)
                if reason is not None:
                    said.append([block.layers[-1].var.name, reason])
                if kept is not None:
                    tensors = {name: tensor.detach() for name, tensor in self._network.tensors.items()}
                    kept.save({"block": number + 1, "remarks": said, "tensors": tensors})
            taken |= self._network.steps_of(block)
            self._advance(number, block)
        self._remarks += [Remark(_NAME, *entry) for entry in said]
        return add_remarks(self._network.trained(self._model).module, self._remarks)

    def _is_stacked(self) -> bool:
        """Whether samples can be run together, and stand one after the other in all that blocks give."""
        seen = {var.name: var for block in self._blocks for var in (*block.leaves, *block.targets.values())}
        self._network.tap(list(seen))
        with self._torch.no_grad():
            self._network(*(pick(value, np.arange(2), self._samples) for value in self._read.values()))
        together = self._network.runs_together and all(
            is_stacked(value, var, 2) for value, var in zip(self._network.tapped(), seen.values())
        )
        self._network.tap([])
        return together

    def _learn(self, number: int, block: QuantizedBlock, taken: set[str]) -> str | None:
        """Round a block anew; why it stays as it was, if it does."""
        targets, told = self._original.targets(block), self._asked.on_progress
        each, name = self._options.iterations, block.layers[-1].var.name

        def on_step(done: int) -> None:
            if told is not None:
                told(number * each + done, len(self._blocks) * each, name)

        descent = BlockDescent(self._options, self._network, block, number, self._read, targets, self._learned, self._held)
        return descent.learn(taken, on_step)

    def _advance(self, number: int, block: QuantizedBlock) -> None:
        """Know what later blocks read of a block, and forget what none of them does."""
        parts: dict[relax.Var, list[Tensor]] = {var: [] for var in block.leaves}
        with self._torch.no_grad():
            for some in chunks(np.arange(self._samples)) if block.leaves else ():
                read = {var: pick(self._read[var], some, self._samples) for var in block.reads}
                values = self._network.evaluate(block, read, len(some))
                for var, found in parts.items():
                    found.append(values[var])
        self._read |= {var: self._torch.cat(found) for var, found in parts.items()}
        later = {var for after in self._blocks[number + 1 :] for var in after.reads}
        self._read = {var: value for var, value in self._read.items() if var in later}
