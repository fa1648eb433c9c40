"""Building, checking and measuring models on targets."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..compression import CompressionResult, compress
from ..data.dataset import DataLike, Dataset
from ..errors import DiskFullError, MissingToolError, ToolError, UserError
from ..files.manifest import MANIFEST
from ..model import Model
from ..passes._tvm import relax
from ..passes.graph.index_limits import index_limits, integer_range
from ..passes.graph.rebuild import bindings
from ..passes.quantization.kinds import is_float
from ..recipe.recipe import QuantizeRecipe, Recipe
from ..targets.base import Artifact
from ..targets.escaping import file_names
from ..targets.integer_io import core_and_specs, is_integer
from ..targets.objects import available_cpus
from ..targets.registry import get_target
from ..targets.remote.boards import BoardPool, Boards
from ..targets.x86.artifact import X86Artifact
from .building import build, build_for_boards, executable
from .effects import without_effect
from .measured_log import MeasuredLog, measuring_key
from .record import BuildRecord, RuntimeResult
from .runtimes import timed_in_turns
from .side_by_side import side_by_side

CHECKED_SAMPLES = 8
"""Samples on which every built model is compared with the model before its figures count."""

FLOAT_TOLERANCE = 1e-3
HALF_TOLERANCE = 3e-2
"""Allowed error of a float build, relative to the largest output; sums are taken in another order there."""

_ROUNDED_APART = 2
"""Steps of an output by which it may be off where floats are computed between integers."""

_QUANTIZING = ("calibrate", "choose_precisions", "quantize", "qat")
"""Steps that belong to quantization."""


class WrongBuildError(UserError):
    """A built model computes something else than the model."""

    exit_code = 1


OnBuild = Callable[[str, str, str], None]
"""Told the model, the target, and what is being done."""


def benchmark(
    models: Mapping[str, Model],
    targets: Sequence[str],
    *,
    samples: Dataset | None = None,
    output: Path | None = None,
    skip_missing: bool = False,
    build_options: Mapping[str, Mapping[str, Any]] | None = None,
    measure_options: Mapping[str, Mapping[str, Any]] | None = None,
    boards: BoardPool | None = None,
    compare: Sequence[str] = (),
    files: Mapping[str, Path] | None = None,
    log: MeasuredLog | None = None,
    on_build: OnBuild | None = None,
) -> list[BuildRecord]:
    """Build every model for every target, compare it with the model, and measure it.

    Args:
        models: By name.
        targets: Names of targets.
        samples: Inputs to compare on; random ones where not given.
        output: Folder in which builds are kept, `output/target` for one model, `output/model/target` for several;
            None throws them away.
        skip_missing: Record that a tool is missing instead of refusing.
        build_options, measure_options: Options by the family of the target, see its `build` and `measure`.
        boards: Where models run, of families that a TVM RPC server serves; here or under an emulator where not given.
        compare: Other runtimes that are timed on x86 in turns with each build, see `runtimes.check_runtimes`.
        files: Models by name as other runtimes read them.
        log: What was measured before is taken from it, without a build, and what is measured goes into it.
        on_build: Told how far it is.

    What an emulator runs is built and counted on all CPUs at once; what is timed on this machine comes behind it, alone.
    What cannot be built, does not fit, or computes something else than its model is recorded with the problem.

    Raises:
        UserError: There is no such target.
        MissingToolError: A tool of a target is missing.
    """
    chosen = {name: get_target(name) for name in targets}
    folders = _folders(models, {name: target.description.name for name, target in chosen.items()})
    missing = {name: target.missing_tools() for name, target in chosen.items()}
    if not skip_missing:
        for target in chosen.values():
            target.require_tools()
    records: dict[tuple[str, str], BuildRecord] = {}
    counted: dict[tuple[str, str], Callable[..., BuildRecord]] = {}
    timed: dict[tuple[str, str], Callable[..., BuildRecord]] = {}
    keys: dict[tuple[str, str], str] = {}

    def keep(place: tuple[str, str], record: BuildRecord) -> None:
        records[place] = record
        if log is not None:
            log.add(keys[place], record)

    for target_name, target in chosen.items():
        family = target.description.family
        for model_name, model in models.items():
            place = target_name, model_name
            if missing[target_name]:
                problem = " ".join(missing[target_name])
                records[place] = BuildRecord(model=model_name, target=target_name, problem=problem)
                continue
            options = {"build": (build_options or {}).get(family), "measure": (measure_options or {}).get(family)}
            board = boards.of(target.description).key if boards is not None and target.remote else None
            asked = {**options, "compare": list(compare), "board": board}
            keys[place] = "" if log is None else measuring_key(model, target.description, asked)
            known = None if log is None else log.find(keys[place], model_name)
            if known is not None:
                records[place] = known
                continue
            building = dict((build_options or {}).get(family, {}))
            measuring = dict((measure_options or {}).get(family, {}))
            pool = boards.of(target.description) if boards is not None and target.remote else None
            others = (compare, (files or {}).get(model_name)) if family == "x86" and pool is None else ((), None)
            measure = partial(
                _measured, model_name, model, target_name,
                samples=samples, build_options=building, measure_options=measuring, boards=pool, others=others,
            )  # fmt: skip
            emulated = pool is None and target.description.source == "qemu"
            recorded = partial(
                _recorded, measure, model_name, target_name, folders[model_name, target_name], output is not None
            )
            (counted if emulated else timed)[place] = recorded
    order = [(target_name, model_name) for target_name in chosen for model_name in models]
    with nullcontext(output) if output is not None else tempfile.TemporaryDirectory(prefix="tvmcompress-") as base:
        if len(counted) > 1 and available_cpus() > 1:
            _several(counted, Path(base), keep, on_build)
        else:
            timed |= counted
        # What is timed has the machine for itself.
        for place in filter(timed.__contains__, order):
            keep(place, timed[place](Path(base), _reporter(on_build, place[1], place[0])))
    return [records[place] for place in order]


def _several(
    jobs: Mapping[tuple[str, str], Callable[..., BuildRecord]],
    base: Path,
    keep: Callable[[tuple[str, str], BuildRecord], None],
    on_build: OnBuild | None,
) -> None:
    """Build and count several at once."""
    places = list(jobs)

    def done(number: int, record: BuildRecord) -> None:
        keep(places[number], record)
        _reporter(on_build, places[number][1], places[number][0])("build")

    side_by_side([partial(job, base, _silent) for job in jobs.values()], done)


def _silent(what: str) -> None:
    """Tell nobody."""


def ablation(
    model: Model, calibration: DataLike | Dataset | None, recipe: Recipe, **options: Any
) -> dict[str, CompressionResult]:
    """Each step of a recipe alone, and all together: what each is worth.

    Args:
        model: The original.
        calibration: As for `compress`.
        recipe: What to do.
        options: As for `compress`.

    Returns:
        Results by name: "pruned" ("sparse", "tuned"), the precision ("int8"), and both ("pruned + int8"), as far as the recipe
        asks. What is fine-tuned is what has been pruned.
    """
    names = {"prune": "pruned", "sparsify": "sparse", "finetune": "tuned"}
    smaller = next((name for step, name in names.items() if recipe.has(step)), "changed")
    tables = [table for _, table in recipe.entries() if isinstance(table, QuantizeRecipe)]
    parts: dict[str, Recipe] = {smaller: recipe.only(lambda name: name not in _QUANTIZING)}
    if tables:
        parts[tables[0].precision] = recipe.only(lambda name: name in _QUANTIZING)
        parts[f"{smaller} + {tables[0].precision}"] = recipe
    wanted = {name: part for name, part in parts.items() if part.entries()}
    if len(wanted) == 2:  # without one of the halves, the whole is the other
        wanted.popitem()
    return {name: compress(model, calibration, recipe=part, **options) for name, part in wanted.items()}


def check(
    model: Model, artifact: Artifact, inputs: Sequence[np.ndarray], what: str, tolerance: float = FLOAT_TOLERANCE
) -> float:
    """Compare a built model with the model.

    Args:
        model: What was built.
        artifact: The build.
        inputs: Float samples.
        what: The build, for the message.
        tolerance: Allowed error of floats, against the largest output or 1.

    Returns:
        The largest difference of any output; 0 for an integer model.

    Raises:
        WrongBuildError: It computes something else: any difference for an integer model, one beyond rounding for a float one.
            Where floats are computed between integers, their rounding may change a step of the output or two.
    """
    wanted = model.run(*inputs)
    # A model that gives integers itself, as one from TensorFlow Lite, is built as it is.
    integers = all(expected.dtype.kind in "iu" for expected in wanted)
    given = [spec.quantize(value) for spec, value in zip(artifact.inputs, inputs)]
    got = artifact.run(given) if integers else artifact.run_float(inputs)
    worst = 0.0
    scales = [spec.scale for spec in artifact.outputs if spec.scale is not None]
    step = 0.0 if not scales or not _has_floats(model) else 1.0 if integers else max(scales)
    for expected, found in zip(wanted, got, strict=True):
        error = float(np.abs(found.reshape(expected.shape).astype(np.float64) - expected).max(initial=0))
        limit = tolerance * max(1.0, float(np.abs(expected).max(initial=0)))
        if scales:
            limit = max(limit, _ROUNDED_APART * step) if step else 0.0
        if not error <= limit:
            if tolerance == HALF_TOLERANCE:
                raise UserError(f"{what} is off by {error:.3g} in float16, too much for the model; leave out --float16")
            raise WrongBuildError(
                f"{what} computes something else than the model (off by {error:.3g}); "
                "this is a bug: please report it with the model"
            )
        worst = max(worst, error)
    return worst


def _has_floats(model: Model) -> bool:
    """Whether an integer model computes anything in floats between its ends."""
    if not is_integer(model.module):
        return False
    core, _, _ = core_and_specs(model.module)
    calls = (value for _, value in bindings(core["main"]) if isinstance(value, relax.Call))
    return any(is_float(call) for call in calls)


def random_samples(model: Model, count: int, seed: int = 0) -> list[np.ndarray]:
    """Inputs of a model for when there is no data: normal for float inputs, ids of entries that there are for
    integers that look something up, else bytes over their whole range and wider integers of 0 and 1, as masks are."""
    rng = np.random.default_rng(seed)
    limits = index_limits(model.module)
    made = []
    for spec in model.inputs:
        shape = (spec.shape[0] * count, *spec.shape[1:])
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            made.append(rng.standard_normal(shape).astype(dtype))
        else:
            low, high = integer_range(dtype, limits.get(spec.name))
            made.append(rng.integers(low, high, shape, dtype=dtype, endpoint=True))
    return made


def _recorded(
    measure: Callable[..., BuildRecord],
    model_name: str,
    target: str,
    name: Path,
    kept: bool,
    base: Path,
    report: Callable[[str], None],
) -> BuildRecord:
    """What `measure` gives; what goes wrong is recorded, so that the other builds go on, and leaves only a log."""
    folder = base / name
    found = _or_problem(partial(measure, folder, report=report), model_name, target, folder, kept)
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _or_problem(measure: Callable[[], BuildRecord], model_name: str, target: str, folder: Path, kept: bool) -> BuildRecord:
    log: Path | None = None
    try:
        return measure()
    except (DiskFullError, MissingToolError, OSError):
        raise
    except ToolError as error:
        code, problem = error.exit_code, str(error) if kept else error.sentence
        log = error.log
    except UserError as error:
        code, problem = error.exit_code, str(error)
    except Exception as error:
        code, problem = 1, f"this is a bug ({type(error).__name__}); please report it with the model"
    written = log.read_bytes() if log is not None else b""
    shutil.rmtree(folder, ignore_errors=True)
    if log is not None:
        folder.mkdir(parents=True)
        log.write_bytes(written)
    # The folder is on its way to another place.
    problem = problem.replace(str(folder), folder.name)
    return BuildRecord(model=model_name, target=target, problem=problem, exit_code=code)


def _measured(
    model_name: str,
    model: Model,
    target: str,
    folder: Path,
    *,
    samples: Dataset | None,
    build_options: dict[str, Any],
    measure_options: dict[str, Any],
    boards: Boards | None,
    others: tuple[Sequence[str], Path | None],
    report: Callable[[str], None],
) -> BuildRecord:
    what = f"'{model_name}' built for {target}"
    model = executable(model)
    start = time.perf_counter()
    report("build")
    if boards is None:
        artifact = build(model, target, folder, **build_options)
    else:
        artifact = build_for_boards(model, target, folder, boards, **build_options)
    seconds = time.perf_counter() - start
    report("check")
    inputs = random_samples(model, CHECKED_SAMPLES) if samples is None else samples.read(0, min(CHECKED_SAMPLES, len(samples)))
    worst = check(model, artifact, inputs, what, HALF_TOLERANCE if build_options.get("float16") else FLOAT_TOLERANCE)
    report("measure")
    one = [value[: spec.shape[0]] for value, spec in zip(inputs, model.inputs)]
    quantized = [spec.quantize(value) for spec, value in zip(artifact.inputs, one)]
    runtimes: list[RuntimeResult] = []
    if others[0] and isinstance(artifact, X86Artifact):
        expected = model.run(*one)[0]
        latency, runtimes = timed_in_turns(artifact, quantized, expected, one, others[1], others[0], **measure_options)
        measurement = artifact.measured(quantized, runs=1, warm_up=0).model_copy(update={"latency": latency})
    else:
        measurement = artifact.measured(quantized, **measure_options)
    return BuildRecord(
        model=model_name,
        target=target,
        measurement=measurement,
        build_seconds=round(seconds, 3),
        checked_samples=len(inputs[0]),
        largest_error=worst,
        notes=without_effect(model, artifact.target, build_options, measurement),
        runtimes=tuple(runtimes),
    )


def _reporter(on_build: OnBuild | None, model: str, target: str) -> Callable[[str], None]:
    def report(what: str) -> None:
        if on_build is not None:
            on_build(model, target, what)

    return report


def _folders(models: Collection[str], targets: Mapping[str, str]) -> Mapping[tuple[str, str], Path]:
    """Where each build goes, by the names of model and target.

    Raises:
        UserError: Two targets have the same name.
    """
    for name, same in itertools.combinations(targets, 2):
        if targets[name] == targets[same]:
            raise UserError(f"{name} and {same} describe targets of the same name, {targets[name]}; rename one")
    taken = ["report.html", "report.json", MANIFEST]
    named = file_names([*taken, *(model.replace(" + ", "-") for model in models)])
    places = {model: Path(named[model.replace(" + ", "-")]) if len(models) > 1 else Path() for model in models}
    return {(model, name): places[model] / folder for model in models for name, folder in targets.items()}
