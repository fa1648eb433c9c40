"""What a model is made of, as a record."""

from __future__ import annotations

from ..compression import is_quantized
from ..model import InputSpec, Model
from ..passes.channels import groups
from ..passes.graph.analysis import layers
from ..targets.record import Record
from .record import count_weights


class LayerRecord(Record):
    """One operator: its result's name, shapes, work and weights."""

    name: str
    op: str
    output_shape: tuple[int, ...]
    dtype: str
    macs: int
    params: int
    param_bytes: int


class GroupRecord(Record):
    """Channels that go together.

    Attributes:
        name: The layer that produces them.
        size: How many can be removed one by one.
        params: The parameters that they run through, with the axis.
        frozen: Why none can be removed; None where they can.
    """

    name: str
    size: int
    params: tuple[str, ...]
    frozen: str | None


class Inspection(Record):
    """A model: its inputs, totals, layers and channel groups."""

    name: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    macs: int
    params: int
    param_bytes: int
    provenance: tuple[str, ...]
    layers: tuple[LayerRecord, ...]
    groups: tuple[GroupRecord, ...]


def inspection(name: str, model: Model) -> Inspection:
    """The record of a model."""
    found = layers(model.module)
    channel_groups = [] if is_quantized(model) else groups(model.module)
    return Inspection(
        name=name,
        inputs=model.inputs,
        outputs=model.outputs,
        macs=sum(layer.macs for layer in found),
        params=count_weights(model),
        param_bytes=sum(value.nbytes for value in model.params.values()),
        provenance=model.provenance,
        layers=tuple(
            LayerRecord(
                name=layer.name,
                op=layer.op,
                output_shape=layer.output_shape,
                dtype=layer.dtype,
                macs=layer.macs,
                params=layer.params,
                param_bytes=layer.param_bytes,
            )
            for layer in found
        ),
        groups=tuple(
            GroupRecord(
                name=group.name,
                size=group.size,
                params=tuple(f"{param}:{axis}" for param, axis in group.members),
                frozen=group.frozen,
            )
            for group in channel_groups
        ),
    )
