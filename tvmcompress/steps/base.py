"""What a step of a compression is: options, needs, and a function from state to state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, ClassVar, Generic, Literal, TypeVar

from ..data.dataset import Dataset
from ..model import Model
from ..passes import Range
from ..recipe.quantize import QuantizeRecipe
from ..recipe.table import Table
from .progress import ProgressReporter

O = TypeVar("O", bound=Table)  # noqa: E741

Data = Literal["calibration", "training", "search"]
Need = Data | Literal["torch"]


@dataclass(frozen=True)
class State:
    """What steps hand on.

    Attributes:
        model: The model as it is now.
        original: The model that went in.
        float_model: The model before quantization and the repairs that prepare it.
        qdq_model: The quantized model in QDQ form; None where it is not quantized.
        ranges: The ranges of the activations of `model` by tensor; empty where they are not known.
        chosen: How to quantize, where precisions were chosen.
        records: What else steps have found, by name: values that JSON can hold.
    """

    model: Model
    original: Model
    float_model: Model
    qdq_model: Model | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
    chosen: QuantizeRecipe | None = None
    records: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(model: Model) -> State:
        """The state before the first step."""
        return State(model, model, model)

    def with_model(self, model: Model) -> State:
        """The state with another float model, whose ranges are not known yet."""
        return replace(self, model=model, float_model=model, ranges={}, chosen=None)


@dataclass(frozen=True)
class Context:
    """What a step may use besides the state; None where it was not given.

    Attributes:
        calibration: Unlabelled samples of what the model will see.
        training: Samples to learn from.
        search: Samples to choose on, none of them in `calibration`.
        target: The microcontroller whose flash and RAM limits of the recipe mean.
        multiple: Of which numbers of channels suit the kernels of the targets.
        checkpoint: A folder in which training, and repairs that learn for long, keep their state.
        search_log: A file in which a search keeps what it has tried.
        ahead: The steps that follow.
        progress: Told what is done.
    """

    calibration: Dataset | None = None
    training: Dataset | None = None
    search: Dataset | None = None
    target: str | None = None
    multiple: int = 1
    checkpoint: str | PathLike[str] | None = None
    search_log: str | PathLike[str] | None = None
    ahead: Sequence[Step[Any]] = ()
    progress: ProgressReporter = field(default_factory=ProgressReporter)


class Step(ABC, Generic[O]):
    """One step. Another package's is a subclass, named in the entry points of the group `tvmcompress.steps`:

        class Clip(Step[ClipOptions]):
            name, Options = "clip", ClipOptions

            def run(self, state: State, context: Context) -> State:
                return state.with_model(state.model.apply(ClipWeights(self.options.limit), note="weights clipped"))

    Attributes:
        name: What recipes call it.
        activity: What it does, for messages: "pruning".
        Options: The table of its options in a recipe.
        reads: The data that it may look at; a cached result counts for the same data only.
        takes_integers: Whether it works on quantized models, too.
        quantizes: Whether what it gives is a quantized model.
        leaves_integers: Whether what it gives is a float model, though a quantized one came in.
        keeps_ranges: Whether it leaves the float model, and with it the ranges, as they are.
    """

    name: ClassVar[str]
    activity: ClassVar[str] = ""
    Options: ClassVar[type[Table]] = Table
    reads: ClassVar[frozenset[Data]] = frozenset({"calibration", "training", "search"})
    takes_integers: ClassVar[bool] = False
    quantizes: ClassVar[bool] = False
    leaves_integers: ClassVar[bool] = False
    keeps_ranges: ClassVar[bool] = False

    def __init__(self, options: O) -> None:
        self.options = options

    @classmethod
    def planned(cls, options: O, before: Sequence[Step[Any]], following: str) -> list[Step[Any]]:
        """The steps that an entry of a recipe stands for.

        Args:
            options: Of the entry.
            before: The steps before it.
            following: The name of the entry behind it; empty for the last.

        Raises:
            UserError: The entry makes no sense there.
        """
        return [cls(options)]

    @property
    def needs(self) -> frozenset[Need]:
        """What must be there for it to run."""
        return frozenset()

    def key(self, context: Context) -> dict[str, Any]:
        """All that its result depends on, besides the state and the data that it reads: values that JSON can hold."""
        return self.options.model_dump(mode="json")

    def unjudged(self, calibration: Dataset, training: Dataset) -> Dataset:
        """The calibration samples that any step of the recipe may look at: those on which this one does not choose.

        Args:
            calibration: What was given, or other steps have left of it.
            training: Samples to learn from.
        """
        return calibration

    @abstractmethod
    def run(self, state: State, context: Context) -> State:
        """Do it.

        Raises:
            UserError: It cannot be done with this model or data.
        """
