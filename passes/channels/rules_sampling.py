"""Operators of detectors and warps, and those along whose axes nothing can be removed, each with its reason."""

from __future__ import annotations

from .axes import Axes, Value, from_pairs
from .registry import Flow, NotCovered, axis_in, rule


@rule("relax.image.grid_sample", "relax.vision.roi_align", "relax.vision.roi_pool")
def _sample(flow: Flow) -> Axes:
    """Places of an image, given by the second argument: channels pass, and what is zero everywhere stays zero."""
    data, places = flow.operand(0), flow.operand(1)
    layout = str(flow.attrs.layout)
    channel = axis_in(layout, "C")
    for axis, ids in enumerate(data.ids):
        if axis != channel:
            flow.freeze(ids)
    for ids in places.ids:
        flow.freeze(ids, f"{flow.name} reads places from it")
    passing = data.pairs()[channel]
    return from_pairs([passing if axis == channel else flow.fixed(dim) for axis, dim in enumerate(flow.out_shape)])


_WHY_FIXED = {
    "relax.call_tir": "calls a function of its own, into which channels are not followed",
    "relax.dynamic_strided_slice": "cuts it by bounds that are computed",
    "relax.eye_like": "numbers its positions",
    "relax.gather_elements": "looks single elements up in it by index",
    "relax.gather_nd": "looks single elements up in it by index",
    "relax.image.affine_grid": "makes places of an image of it",
    "relax.nonzero": "finds as many positions as the values say",
    "relax.one_hot": "makes positions of its values",
    "relax.scatter_elements": "writes single elements into it by index",
    "relax.scatter_nd": "writes single elements into it by index",
    "relax.shape_of": "computes with its shape",
    "relax.shape_to_tensor": "computes with a shape",
    "relax.size": "computes with its size",
    "relax.tensor_to_shape": "makes a shape of it",
    "relax.unique": "finds as many positions as the values say",
    "relax.vision.all_class_non_max_suppression": "chooses boxes by their positions",
    "relax.vision.get_valid_counts": "chooses boxes by their positions",
    "relax.vision.multibox_transform_loc": "chooses boxes by their positions",
    "relax.vision.non_max_suppression": "chooses boxes by their positions",
}
"""What hinders a removal from any operand."""


@rule(*_WHY_FIXED)
def _fixed(flow: Flow) -> Value:
    raise NotCovered(f"{flow.name} {_WHY_FIXED[flow.call.op.name]}")
