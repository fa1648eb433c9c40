"""The record of a run: which models there were, what they are worth, and what was measured where."""

from __future__ import annotations

import os
import platform
from html import escape
from pathlib import Path
from typing import Literal

from pydantic import computed_field

from .. import __version__
from ..compression import CompressionResult, is_quantized
from ..data.dataset import Dataset
from ..evaluation.accuracy import Evaluation
from ..evaluation.noise import LayerNoise, layer_noise
from ..files.whole_file import whole_file
from ..measuring.record import BuildRecord
from ..model import Model
from ..passes._tvm import TVM_VERSION
from ..passes.graph.analysis import count_macs, param_bytes, param_sizes
from ..recipe.gate import GateRecipe
from ..recipe.recipe import PruneRecipe, Recipe
from ..search.precision_choice import PrecisionChoice
from ..sensitivity.channels import Sensitivity
from ..targets.record import Record
from .gate import gate_failure
from .layers import LayerFigures, layer_figures
from .surgery import SurgeryRecord

ACCURACY = 4
"""The exit code where a result does not pass its gate."""


NOISE_SAMPLES = 16
"""Samples on which the noise at layers is measured for reports; more change it little."""


class ModelRecord(Record):
    """One model.

    Attributes:
        name: What it is called in the tables.
        macs: Multiply-accumulate operations of one inference.
        params: Weights and biases (what requantization adds is not counted).
        weight_bytes: Bytes of all its constants.
        evaluation: Its quality; None where there was no data.
        layers: The noise at its layers against the original; empty where that was not asked for.
        figures: What each of its layers costs, and in which numbers it computes.
        provenance: What happened to it, one sentence each.
    """

    name: str
    macs: int
    params: int
    weight_bytes: int
    evaluation: Evaluation | None = None
    layers: tuple[LayerNoise, ...] = ()
    figures: tuple[LayerFigures, ...] = ()
    provenance: tuple[str, ...] = ()


class StepRecord(Record):
    """One step of the compression: what, how long, what came of it."""

    name: str
    seconds: float
    message: str


class RemarkRecord(Record):
    """What a pass had to say."""

    pass_name: str
    subject: str
    message: str


class Host(Record):
    """Where the command ran.

    Attributes:
        cpu: Name of the processor.
        cores: Cores that this process may use.
        system: Operating system and architecture.
        python: Version of Python.
        tvm: Version of Apache TVM.
        tvmcompress: Version of this package.
    """

    cpu: str
    cores: int
    system: str
    python: str
    tvm: str
    tvmcompress: str

    @staticmethod
    def this() -> Host:
        """This machine."""
        return Host(
            cpu=_cpu_name(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            system=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            tvm=TVM_VERSION,
            tvmcompress=__version__,
        )


class Verdict(Record):
    """Whether all that was asked for is there.

    Attributes:
        exit_code: That of the command line: 0 where it is, else that of the first build which failed, or 4 where the last
            model does not pass the gate.
        sentence: What it comes to; empty where nothing was built.
    """

    exit_code: int
    sentence: str


class Report(Record):
    """Everything that came out of one command.

    Attributes:
        version: Of this form. Attributes may come to be, and readers pass over those that they do not know; a change that
            would break a reader makes it another version.
        source: The model that went in.
        host: Where it ran.
        models: The models, the original first.
        builds: What was measured.
        recipe: What was asked for; None where nothing was compressed.
        steps: What was done, with times.
        surgery: What was pruned; None where nothing was.
        precisions: How the precision of layers was chosen; None where it was not to be.
        remarks: What the passes had to say.
        files: What was written, relative to the output folder.
        gate: How good the last model must be; None where it is taken as it is.
        command: The command line; empty where there was none.
        sensitivity: What `tvmcompress sensitivity` had measured, where pruning went by it.
    """

    version: Literal[1] = 1
    source: str
    host: Host
    models: tuple[ModelRecord, ...] = ()
    builds: tuple[BuildRecord, ...] = ()
    recipe: Recipe | None = None
    steps: tuple[StepRecord, ...] = ()
    surgery: SurgeryRecord | None = None
    precisions: PrecisionChoice | None = None
    remarks: tuple[RemarkRecord, ...] = ()
    files: tuple[str, ...] = ()
    gate: GateRecipe | None = None
    command: str = ""
    sensitivity: Sensitivity | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """Whether every build succeeded, and the result is good enough."""
        failed = [build for build in self.builds if build.exit_code]
        refused = None
        if self.gate is not None:
            last = self.models[-1]
            refused = gate_failure(self.gate, last.name, last.evaluation, self.models[0].evaluation)
        if failed:
            first = failed[0]
            count = "" if len(self.builds) == 1 else f"{len(failed)} of {len(self.builds)} builds failed: "
            also = "" if refused is None else f"; and {refused}"
            return Verdict(exit_code=first.exit_code, sentence=f"{count}{first.model} on {first.target}: {first.problem}{also}")
        if refused is not None:
            return Verdict(exit_code=ACCURACY, sentence=refused)
        checked = sum(build.checked_samples > 0 for build in self.builds)
        if not checked:
            return Verdict(exit_code=0, sentence="")
        which = "every build" if checked == len(self.builds) else f"{checked} of {len(self.builds)} builds"
        return Verdict(exit_code=0, sentence=f"{which} was run and compared with its model")

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets, in the order of the builds."""
        return tuple(dict.fromkeys(build.target for build in self.builds))

    def _repr_html_(self) -> str:
        """As notebooks show it: the page, in a frame of its own."""
        from .html import html_page

        return f'<iframe srcdoc="{escape(html_page(self))}" style="width:100%;height:900px;border:0"></iframe>'

    def save(self, path: Path) -> None:
        """Write the report as JSON.

        Raises:
            UserError: The file cannot be written.
        """
        with whole_file(path) as partial:
            partial.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def model_record(
    name: str, model: Model, evaluation: Evaluation | None = None, layers: tuple[LayerNoise, ...] = ()
) -> ModelRecord:
    """The record of a model."""
    return ModelRecord(
        name=name,
        macs=count_macs(model.module),
        params=count_weights(model),
        weight_bytes=param_bytes(model.module),
        evaluation=evaluation,
        layers=layers,
        figures=layer_figures(model),
        provenance=model.provenance,
    )


def used_sensitivity(recipe: Recipe) -> Sensitivity | None:
    """What pruning went by, where a recipe names it."""
    tables = [table for _, table in recipe.entries() if isinstance(table, PruneRecipe)]
    named = [table.sensitivity for table in tables if table.sensitivity is not None]
    return Sensitivity.load(named[0]) if named else None


def layers_against(original: Model, model: Model, samples: Dataset | None) -> tuple[LayerNoise, ...]:
    """The noise at the layers of a version on a few samples; none without samples."""
    return () if samples is None or model is original else tuple(layer_noise(original, model, samples, samples=NOISE_SAMPLES))


def count_weights(model: Model) -> int:
    """Weights and biases of a model, without the constants that integer operators have besides."""
    own = (".multiplier", ".multipliers", ".shift", ".exponentials") if is_quantized(model) else ()
    return sum(size for name, size in param_sizes(model.module).items() if not name.endswith(own))


def compression_records(result: CompressionResult) -> tuple[tuple[StepRecord, ...], tuple[RemarkRecord, ...]]:
    """The steps and remarks of a compression."""
    return (
        tuple(StepRecord(name=s.name, seconds=round(s.seconds, 3), message=s.message) for s in result.steps),
        tuple(RemarkRecord(pass_name=r.pass_name, subject=r.subject, message=r.message) for r in result.remarks),
    )


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
