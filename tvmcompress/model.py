"""The model that goes in and out of every step: module, parameters, what its inputs mean, and where it comes from."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator

from .errors import UserError
from .files.whole_file import whole_file
from .passes import attach_params, detach_params, get_params
from .passes._tvm import TVM_VERSION, relax, tvm
from .passes.graph.adopt_module import with_named_params
from .passes.graph.interpreter import run
from .passes.graph.module_params import input_vars, static_shape
from .passes.pipeline import canonical_passes

_FORMAT = 2
_NAMED_BY_PARAMETER = 1
"""The format before, whose files of parameters were called like them."""


class Preprocessing(BaseModel):
    """How raw data becomes a model's input: (raw * scale - mean) / std, per channel or for all.

    Attributes:
        scale: Factor on the raw values, for instance 1 / 255.
        mean: Subtracted afterwards: one value, or one a channel.
        std: Divided by at last: one value, or one a channel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @field_validator("std")
    @classmethod
    def _no_zero(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(entry == 0 for entry in value):
            raise ValueError("std must not be zero")
        return value

    def __call__(self, raw: np.ndarray, channel_axis: int = 1) -> np.ndarray:
        """Apply to a batch of raw data.

        Args:
            raw: Any numeric dtype, axis 0 the samples.
            channel_axis: The axis that `mean` and `std` run along.

        Returns:
            float32, the shape of `raw`.
        """
        shape = [1] * raw.ndim
        if raw.ndim > 1:
            shape[channel_axis] = -1
        mean, std = (np.asarray(v, np.float32).reshape(shape if len(v) > 1 else [1]) for v in (self.mean, self.std))
        return ((raw.astype(np.float32) * np.float32(self.scale) - mean) / std).astype(np.float32)


class InputSpec(BaseModel):
    """One input of a model.

    Attributes:
        name: Its name.
        shape: Its shape, batch first.
        dtype: Its dtype, as NumPy names it.
        layout: What the axes mean, for instance "NCHW"; None where unknown.
        preprocessing: How raw data becomes this input; None where data is given as the model takes it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: str | None = None
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class Model:
    """A model with its weights: what every step takes and gives.

    Attributes:
        module: The IRModule; `main` takes the inputs, then one named parameter per weight, whose values are attached.
        inputs: The inputs of `main`, in order.
        outputs: Names of its outputs.
        provenance: What happened to the model so far, one sentence each.
    """

    SUFFIX: ClassVar[str] = ".tvmc"

    module: tvm.IRModule
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...] = ("output",)
    provenance: tuple[str, ...] = ()

    @staticmethod
    def from_module(
        module: tvm.IRModule,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        outputs: Sequence[str] | None = None,
        note: str = "made from a Relax module",
    ) -> Model:
        """A model from any Relax module of one straight-line function `main` with fixed shapes.

        Args:
            module: Its weights are parameters with values (attached, or as TVM's importers leave them), parameters whose
                values are given, or constants, which become named parameters.
            params: The values, by name, or in the order of the parameters behind the inputs, as
                `tvm.relax.frontend.detach_params` gives them.
            outputs: Names of the outputs; "output" and a number by default.
            note: The first sentence of the provenance.

        Returns:
            The model in canonical form, batch normalization folded.

        Raises:
            UserError: Values are missing, a shape is open, or `main` is no straight-line Relax function.
        """
        mod = tvm.transform.Sequential(canonical_passes())(with_named_params(module, params))
        main = mod["main"]
        result = main.ret_ty
        count = len(result.fields) if isinstance(result, relax.TupleType) else 1
        names = ["output"] if count == 1 else [f"output{index}" for index in range(count)]
        specs = tuple(
            InputSpec(
                name=var.name,
                shape=static_shape(var),
                dtype=str(var.ty.dtype),
                layout="NCHW" if len(static_shape(var)) == 4 else None,
            )
            for var in input_vars(main)
        )
        return Model(mod, specs, tuple(outputs or names), (note,))

    @property
    def params(self) -> dict[str, np.ndarray]:
        """The weights by name."""
        return get_params(self.module)

    def with_params(self, params: dict[str, np.ndarray]) -> Model:
        """The same model with other weights of the same shapes and dtypes."""
        bare, old = detach_params(self.module)
        return replace(self, module=attach_params(bare, {**old, **params}))

    def apply(self, *passes: Any, note: str | None = None) -> Model:
        """The model after `passes`, TVM passes of any kind that keep `main`'s inputs.

        Args:
            passes: Applied in order.
            note: A sentence for the provenance.
        """
        module = tvm.transform.Sequential(list(passes))(self.module)
        return replace(self, module=module, provenance=(*self.provenance, note) if note else self.provenance)

    def with_preprocessing(self, preprocessing: Preprocessing) -> Model:
        """The same model, its first input described as being made by `preprocessing`."""
        first = self.inputs[0].model_copy(update={"preprocessing": preprocessing})
        return replace(self, inputs=(first, *self.inputs[1:]))

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run on the host in NumPy, on any batch size, to see what the model computes; not to see how fast it is.

        Raises:
            ValueError: Number, shape or dtype of the inputs do not fit.
        """
        return run(self.module, inputs)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to one file. What stood there is replaced at the end, or not at all.

        Raises:
            UserError: The file cannot be written.
        """
        bare, params = detach_params(self.module)
        meta = {
            "format": _FORMAT,
            "tvm": TVM_VERSION,
            "inputs": [spec.model_dump() for spec in self.inputs],
            "outputs": self.outputs,
            "provenance": self.provenance,
            # Names of weights are whatever an exporter wrote; as names of files some are not the same when read back.
            "params": list(params),
        }
        with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("model.json", json.dumps(meta, indent=1))
            archive.writestr("module.json", tvm.ir.save_json(bare))
            for index, value in enumerate(params.values()):
                buffer = io.BytesIO()
                np.save(buffer, value, allow_pickle=False)
                archive.writestr(f"params/{index}.npy", buffer.getvalue())

    @staticmethod
    def load(path: str | PathLike[str]) -> Model:
        """Read a model that `save` wrote.

        Raises:
            UserError: The file is missing, damaged, or of another version.
        """
        place = Path(path)
        try:
            with zipfile.ZipFile(place) as archive:
                meta = json.loads(archive.read("model.json"))
                if meta["format"] not in (_FORMAT, _NAMED_BY_PARAMETER) or meta["tvm"] != TVM_VERSION:
                    raise UserError(
                        f"{place} was written by another version (format {meta['format']}, TVM {meta['tvm']}); "
                        "make it again from the original model"
                    )
                module = tvm.ir.load_json(archive.read("module.json").decode())
                if meta["format"] == _NAMED_BY_PARAMETER:
                    names = [name for name in archive.namelist() if name.startswith("params/")]
                    files = {name.removeprefix("params/").removesuffix(".npy"): name for name in names}
                else:
                    files = {name: f"params/{index}.npy" for index, name in enumerate(meta["params"])}
                params = {name: np.load(io.BytesIO(archive.read(file))) for name, file in files.items()}
            return Model(
                module=attach_params(module, params),
                inputs=tuple(InputSpec(**spec) for spec in meta["inputs"]),
                outputs=tuple(map(str, meta["outputs"])),
                provenance=tuple(map(str, meta["provenance"])),
            )
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{place} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # zip, JSON and NumPy each have errors of their own for damaged data
            raise UserError(f"{place} is damaged or not a model of ours; make it again from the original") from error

    def summary(self) -> str:
        """One line: inputs, parameters."""
        shapes: Sequence[str] = [f"{spec.name} {'x'.join(map(str, spec.shape))} {spec.dtype}" for spec in self.inputs]
        return f"{', '.join(shapes)}; {sum(value.size for value in self.params.values()):,} parameters"
