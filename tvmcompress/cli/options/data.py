"""The options that say how data is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ...data.dataset import Dataset
    from ...model import InputSpec, Preprocessing

_data = partial(typer.Option, rich_help_panel="Data")


@dataclass(frozen=True)
class ReadOptions:
    """How files of samples are read, all files of a command alike."""

    data_key: Annotated[str | None, _data(help="Name of the data in an .npz file.")] = None
    label_key: Annotated[str | None, _data(help="Name of the labels in an .npz file.")] = None
    layout: Annotated[str | None, _data(help="Layout of the data: NCHW or NHWC; seen from its shape by default.")] = None
    scale: Annotated[float | None, _data(help="Raw data is multiplied by this, e.g. 0.00392157 for 1/255.")] = None
    mean: Annotated[str | None, _data(help="Then this is subtracted: one value, or one a channel (0.485,0.456,0.406).")] = None
    std: Annotated[str | None, _data(help="Then it is divided by this: one value, or one a channel.")] = None

    def preprocessing(self, inputs: tuple[InputSpec, ...]) -> Preprocessing | None:
        """What --scale, --mean and --std say for these inputs of a model; None where none was given.

        Raises:
            UserError: Values are no numbers, or not one a channel.
        """
        if self.scale is None and self.mean is None and self.std is None:
            return None
        from ...errors import UserError
        from ...model import Preprocessing

        values: dict[str, Any] = {}
        if self.scale is not None:
            values["scale"] = _finite("scale", self.scale)
        for name, text in (("mean", self.mean), ("std", self.std)):
            if text is not None:
                values[name] = tuple(_finite(name, part) for part in text.split(","))
        if not values.get("scale", 1.0) or 0.0 in values.get("std", ()):
            raise UserError("--scale and --std must not be zero")
        steps = Preprocessing(**values)
        shape = inputs[0].shape
        channels = shape[1] if len(shape) > 1 else 1
        for name, given in (("mean", steps.mean), ("std", steps.std)):
            if len(given) not in (1, channels):
                raise UserError(f"--{name} has {len(given)} values, but input '{inputs[0].name}' has {channels} channels")
        return steps

    def load(self, path: Path, inputs: tuple[InputSpec, ...], *, limit: int | None = None) -> Dataset:
        """The samples of a file for a model's inputs.

        Args:
            path: The file or folder.
            inputs: Of the model.
            limit: At most so many.

        Raises:
            UserError: The data cannot be read, or does not fit.
        """
        from ...data.dataset import load_data

        return load_data(
            path,
            inputs,
            key=self.data_key,
            label_key=self.label_key,
            layout=self.layout,
            preprocessing=self.preprocessing(inputs),
            limit=limit,
        )


def _finite(name: str, text: str | float) -> float:
    from ...errors import UserError

    try:
        value = float(text)
    except ValueError:
        what = "a number" if name == "scale" else "a number or a list of numbers with commas"
        raise UserError(f"--{name} {text} is not {what}") from None
    if not abs(value) < 3.4e38 or 0 < abs(value) < 1.2e-38:
        raise UserError(f"--{name} {text} is no number of float32")
    return value


@dataclass(frozen=True)
class PartOptions:
    """Which of the samples are used."""

    limit: Annotated[int | None, typer.Option(min=1, help="Use at most so many samples.")] = None
    skip: Annotated[int, typer.Option(min=0, help="Leave out the first samples (those calibrated on).")] = 0

    @property
    def given(self) -> bool:
        """Whether any was given."""
        return self.limit is not None or self.skip > 0

    def of(self, samples: Dataset) -> Dataset:
        """These of the samples.

        Raises:
            UserError: None is left.
        """
        from ...errors import UserError

        left = skipping(samples, self.skip, "--skip").first(self.limit)
        if not len(left):
            raise UserError(f"--limit {self.limit} is less than the model's batch of {samples.specs[0].shape[0]}")
        return left


def skipping(samples: Dataset, count: int, option: str) -> Dataset:
    """All but the first samples.

    Raises:
        UserError: None is left; the sentence names the option.
    """
    from ...errors import UserError

    if count >= len(samples):
        raise UserError(f"{option} {count} leaves none of the {len(samples)} samples of {samples.source}")
    return samples.between(count, None)
