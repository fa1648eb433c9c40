"""What passes have to say: why something was left as it was, or what was done that a user would not expect.

Remarks travel with the module as an attribute, so that a pass inside a `tvm.transform.Sequential` can speak too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .._tvm import tvm

REMARKS_ATTR = "tvmcompress.remarks"


@dataclass(frozen=True)
class Remark:
    """One remark.

    Attributes:
        pass_name: The pass that speaks.
        subject: The layer, parameter or group it speaks of.
        message: One sentence.
    """

    pass_name: str
    subject: str
    message: str


def add_remarks(mod: tvm.IRModule, remarks: Iterable[Remark]) -> tvm.IRModule:
    """Return `mod` with more remarks behind those it has; a remark already there is not repeated."""
    known = get_remarks(mod)
    new = [remark for remark in dict.fromkeys(remarks) if remark not in known]
    if not new:
        return mod
    return mod.with_attr(REMARKS_ATTR, json.dumps([asdict(remark) for remark in [*known, *new]]))


def get_remarks(mod: tvm.IRModule) -> list[Remark]:
    """The remarks of all passes so far, oldest first."""
    if mod.attrs is None or REMARKS_ATTR not in mod.attrs:
        return []
    return [Remark(**entry) for entry in json.loads(str(mod.attrs[REMARKS_ATTR]))]
