"""What a search may combine: how the parameters of a trial become a recipe and options of the build.

Parameters depend on one another (how channels are shared out on whether any go), so the space is a tree, as Optuna's
define-by-run has it (Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from typing import Any, Protocol

import numpy as np

from ..model import Model
from ..passes.channels.graph import analyze
from ..passes.pruning.cost_model import CostModel
from ..passes.quantization.units import QuantizationUnit, quantization_units
from ..recipe.recipe import Recipe
from ..targets.base import TargetDescription
from .goal import Goal

MOST_GROUPS = 16
"""Groups of channels whose ratio is a parameter of its own, those with the most work first; the others share one."""

_SHARES = (0.9, 0.8, 0.65, 0.5, 0.4, 0.3)
"""Shares of the multiply-accumulates that a search begins with."""

_RATE = 0.012
"""Of the first points that train; at half of it ResNet8 learns less in as many epochs."""

_AUGMENTS = ("", "crop", "flip crop")
_COLOURS = 3
_SPENT_FLASH = (0, 4096, 16384, 65536)


class Suggest(Protocol):
    """What gives values to parameters: a trial of Optuna."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        """A number between two."""


@dataclass(frozen=True)
class Point:
    """One combination.

    Attributes:
        recipe: What is done with the model.
        build: Options of the build.
    """

    recipe: Recipe
    build: dict[str, Any]

    @property
    def key(self) -> str:
        """Equal for points that are the same."""
        return f"{self.recipe.model_dump_json()} {sorted(self.build.items())}"

    def words(self) -> str:
        """It in a few words."""
        parts = []
        if (prune := self.recipe.prune) is not None:
            if prune.target_macs is not None:
                parts.append(f"{prune.target_macs:.0%} of the MACs")
            else:
                parts.append("channels by layer")
            parts.append(prune.importance or "")
            if (prune.rounds or 1) > 1:
                parts.append(f"{prune.rounds} rounds")
        if (tuning := self.recipe.finetune) is not None:
            changed = "".join(f", {name}s" for name in tuning.augment)
            parts.append(f"{tuning.epochs} epochs" + (", teacher" if tuning.distill else "") + changed)
        if (quantize := self.recipe.quantize) is not None:
            several = f", {len(quantize.layers)} layers otherwise" if quantize.layers else ""
            parts.append(f"{quantize.precision}{several}")
            parts += [f"repair {name}" for name in quantize.repair or ()]
        else:
            parts.append("float32")
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in self.build.items()]
        return ", ".join(part for part in parts if part)


class Space:
    """The combinations for a model, a target and a goal.

    Args:
        model: Float.
        target: That it is compressed for.
        goal: Parameters that cannot serve it are left out.
        calibration: Whether there are samples to calibrate on; without them nothing is quantized.
        epochs: Numbers of epochs of fine-tuning to choose among, without 0; empty where there is no training data.
        labelled: Whether the training data has labels, so that the original is a teacher only if asked for.
    """

    def __init__(
        self,
        model: Model,
        target: TargetDescription,
        goal: Goal,
        *,
        calibration: bool = True,
        epochs: tuple[int, ...] = (),
        labelled: bool = True,
    ) -> None:
        graph = analyze(model.module)
        costs = CostModel(model.module, graph.groups, "int8")
        savings = costs.savings(np.zeros(len(graph.groups)))["macs"] if graph.groups else np.zeros(0)
        order = sorted(range(len(graph.groups)), key=lambda index: -float(savings[index]) * graph.groups[index].size)
        self.groups = tuple(graph.groups[index].name for index in order[:MOST_GROUPS])
        self._others = len(order) > MOST_GROUPS
        self._prunable = bool(graph.groups)
        self._units = sorted((u for u in quantization_units(model.module) if u.weighted), key=lambda unit: -unit.params)
        self._precisions = _precisions(target, calibration)
        self._criteria = ("output_energy", "reconstruction", "l2") if calibration else ("l2", "l1")
        self._epochs, self._labelled = epochs, labelled
        shapes = [spec.shape for spec in model.inputs]
        self._images = all(len(shape) == 4 for shape in shapes)
        self._colour = self._images and all(shape[1] == _COLOURS for shape in shapes)
        smaller = goal.minimize == "flash" or goal.max_flash is not None
        self._int4 = smaller and calibration and target.family != "x86"
        micro = target.family == "cortex-m"
        self._spend = micro and target.dsp and not target.helium and goal.minimize == "latency"
        self._plenty = self._spend and goal.max_flash is None
        self._patches = micro and (goal.minimize == "ram" or goal.max_ram is not None)

    def point(self, trial: Suggest) -> Point:
        """The combination of a trial."""
        recipe: dict[str, Any] = {}
        pruned = self._pruning(trial)
        if pruned is not None:
            recipe["prune"] = pruned
        if self._epochs and (epochs := trial.suggest_categorical("epochs", (0, *self._epochs))):
            rate = trial.suggest_float("learning_rate", 1e-3, 3e-2, log=True)
            recipe["finetune"] = {"epochs": epochs, "learning_rate": float(f"{rate:.3g}")}
            if self._labelled:
                recipe["finetune"]["distill"] = trial.suggest_categorical("distill", (False, True))
            if self._images and (changes := trial.suggest_categorical("augment", _AUGMENTS)):
                recipe["finetune"]["augment"] = changes.split()
        precision = trial.suggest_categorical("precision", self._precisions)
        if precision != "float32":
            recipe["quantize"] = self._quantization(trial, precision)
        return Point(Recipe.of(recipe), self._build(trial))

    def starts(self) -> list[dict[str, Any]]:
        """Parameters to begin with: what a person would try first, cheap ones before those that train."""
        plain = {
            "allocation": "none",
            "epochs": 0,
            "precision": self._precisions[0],
            "observer": "mse",
            "quant_repair": "none",
            "int4_share": 0.0,
            "spend_flash": 0,
            "patch_wise": False,
        }
        found = [plain]
        quick = {**plain, "spend_flash": _SPENT_FLASH[-1]} if self._plenty else plain
        if self._plenty:
            found.append(quick)
        pruned = {**quick, "allocation": "budget", "criterion": self._criteria[0], "rounds": 1}
        if self._prunable:
            found += [{**pruned, "macs": share} for share in _SHARES]
        if self._epochs:
            # What a mirror shows is a thing of the same kind in photographs, and another letter in what is written.
            changes = "flip crop" if self._colour else ""
            trained = {"epochs": max(self._epochs), "learning_rate": _RATE, "distill": True, "augment": changes}
            found += [{**start, **trained} for start in found if start["allocation"] != "none"]
        if self._int4:
            found.append({**plain, "int4_share": 1.0, "quant_repair": "gptq"})
        return found

    def near(self, point: Mapping[str, Any], removed: Mapping[str, float], draw: Any) -> dict[str, Any]:
        """Parameters beside a point that is known: the channels of its layers shared out a little otherwise.

        Args:
            point: Its parameters.
            removed: By group, the fraction of its channels that is gone there.
            draw: A generator of random numbers (`numpy.random.Generator`).
        """
        kept = {name: value for name, value in point.items() if name not in ("macs", "rounds")}
        ratios = {f"ratio.{name}": removed.get(name, 0.0) for name in self.groups}
        for name in draw.choice(list(ratios), size=min(len(ratios), 2), replace=False).tolist():
            ratios[name] += float(draw.choice([-0.2, -0.1, 0.1, 0.2]))
        found = {**kept, "allocation": "layers", **{name: _stepped(value) for name, value in ratios.items()}}
        if self._others:
            found["ratio.others"] = _stepped(sum(removed.values()) / max(len(removed), 1))
        return {"criterion": self._criteria[0], **found}

    def _pruning(self, trial: Suggest) -> dict[str, Any] | None:
        if not self._prunable:
            return None
        allocation = trial.suggest_categorical("allocation", ("none", "budget", "layers"))
        if allocation == "none":
            return None
        criterion = {"importance": trial.suggest_categorical("criterion", self._criteria)}
        if allocation == "budget":
            share = round(trial.suggest_float("macs", 0.1, 0.95, step=0.05), 2)
            return {**criterion, "target_macs": share, "rounds": trial.suggest_categorical("rounds", (1, 2, 4))}
        ratios = {escape(name): _stepped(trial.suggest_float(f"ratio.{name}", 0.0, 0.9, step=0.05)) for name in self.groups}
        others = _stepped(trial.suggest_float("ratio.others", 0.0, 0.9, step=0.05)) if self._others else 0.0
        if not any((*ratios.values(), others)):
            return None
        return {**criterion, "ratio": others or 0.01, "ratios": ratios}

    def _quantization(self, trial: Suggest, precision: str) -> dict[str, Any]:
        table: dict[str, Any] = {"precision": precision}
        table["observer"] = trial.suggest_categorical("observer", ("mse", "minmax", "percentile"))
        repair = trial.suggest_categorical("quant_repair", ("none", "bias", "gptq"))
        share = trial.suggest_float("int4_share", 0.0, 1.0, step=0.25) if self._int4 else 0.0
        narrow = _first(self._units, share)
        if narrow:
            table["layers"] = {pattern: {"precision": "int4"} for unit in narrow for pattern in unit.patterns}
        if repair != "none":
            table["repair"] = [repair]
        return table

    def _build(self, trial: Suggest) -> dict[str, Any]:
        build: dict[str, Any] = {}
        if self._spend and (spent := trial.suggest_categorical("spend_flash", _SPENT_FLASH)):
            build["spend_flash"] = spent
        if self._patches and trial.suggest_categorical("patch_wise", (False, True)):
            build["patch_wise"] = True
        return build


def _precisions(target: TargetDescription, calibration: bool) -> tuple[str, ...]:
    if not calibration:
        return ("float32",)
    floats = target.family != "cortex-m" or target.fpu
    return ("int8", "int16x8", *(("float32",) if floats else ()))


def _first(units: list[QuantizationUnit], share: float) -> list[QuantizationUnit]:
    """The largest layers, which together hold about a share of the weights."""
    total, found, have = sum(unit.params for unit in units), [], 0
    for unit in units:
        if have >= share * total:
            break
        found.append(unit)
        have += unit.params
    return found


def _stepped(ratio: float) -> float:
    return round(min(max(20 * ratio, 0), 18)) / 20
