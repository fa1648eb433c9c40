"""Deciding for all kernels of a model together, by what was measured of them.

Each layer takes one point of its space; what they cost is least under the flash that may be spent. That is an integer program:
x[l, p] = 1 where layer l takes point p,

    minimize   sum of cost[l, p] * x[l, p]
    subject to sum over p of x[l, p] = 1 for each layer l,
               sum of extra[l, p] * x[l, p] + sum of bytes[r] * y[r] <= what may be spent and the defaults' routines take,
               x[l, p] <= y[r] for each routine r that point p calls.

What a point takes beyond the default is never counted too low, though parts of a program are shared: code that is smaller
counts once, since equal layers may share it, code that is larger for each of them; a call hands over each further workspace;
functions of the C library may be the first of their kind. Routines that kernels share are there once.

Equal layers take the same point, since they share the function, where a formula gave them the same one. A point may take more
workspace than the default only where the arena is not larger for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...passes._tvm import relax, tvm
from ..tuning_log import TuningLog
from .decisions import Choice, Decide, Decisions, by_default, point_key
from .integer_program import Item, least_cost
from .records import KernelRecord, final_records, read, unit_of, workload_module
from .use_kernels import Makers, Site, call_key, survey_kernels, use_kernels

_ARGUMENT_BYTES = 12
"""Of flash, for handing over a further workspace."""
_LIBRARY_BYTES = 320
"""Of flash: the largest of the functions of the C library that kernels call."""


_PADDING = {"helium": 12, "scalar": 4}
"""Bytes of flash before a function of a family: Helium's may lie at a multiple of 16 among others of the same options, and
numbers between the instructions of the smallest cores at a multiple of four."""


@dataclass(frozen=True)
class Tuned:
    """What tuning logs know of a core.

    Attributes:
        cores: What records are keyed by: the core that LLVM compiles for, before it a board with that core.
        logs: Those to ask, the first one first.
    """

    cores: Sequence[str]
    logs: Sequence[TuningLog] = ()

    def decide(
        self, mod: tvm.IRModule, makers: Callable[[Decide], Makers], *, spare: bool = True, spare_flash: int = 0
    ) -> Decide:
        """Who decides for the kernels of a module: its logs, or the formulas where they know nothing.

        Args:
            mod: Parameters are bound.
            makers: Given who decides.
            spare: As of `use_kernels`.
            spare_flash: Bytes of flash that may be spent beyond what the defaults take.
        """
        logs = [log for log in self.logs if len(log)]
        if not logs:
            return by_default
        sites = survey_kernels(mod, makers, spare)
        keys = {site.choice.workload.key: site for site in sites}
        for core in self.cores:
            records = {key: _records(logs, site.choice, core) for key, site in keys.items()}
            # Time, cycles and instructions are not added up: what knows one of the layers decides for all.
            if any(records.values()):
                return decide_together(sites, records, spare_flash)
        return by_default


def _records(logs: Sequence[TuningLog], choice: Choice, core: str) -> list[KernelRecord]:
    """What logs know of a choice on a core; single timings do not count, and times are in nanoseconds."""
    mod = workload_module(choice.workload, core)
    if unit_of({"core": core, "family": choice.workload.family}) != "s":
        return read(logs, mod)
    # The solver's tolerances are absolute.
    return [replace(found, cost=1e9 * (found.cost or 0.0)) for found in final_records(logs, mod, choice.default)]


def use_tuned_kernels(
    mod: tvm.IRModule,
    makers: Callable[[Decide], Makers],
    tuned: Tuned | None,
    *,
    spare: bool = True,
    spare_flash: int = 0,
) -> tvm.IRModule:
    """`use_kernels`, decided by logs where there are some; arguments as of `Tuned.decide`."""
    decide = by_default if tuned is None else tuned.decide(mod, makers, spare=spare, spare_flash=spare_flash)
    return use_kernels(mod, makers(decide), spare)


def decide_together(sites: Sequence[Site], records: Mapping[str, Sequence[KernelRecord]], spare_flash: int) -> Decide:
    """Decide by records; sites without any keep their defaults.

    Args:
        sites: Of the model.
        records: By the key of the workload.
        spare_flash: Bytes of flash that may be spent beyond what the defaults take.
    """
    # Of equal layers a formula may have taken different points: what others add is counted from each one's own.
    groups: dict[tuple[str, str], list[Site]] = {}
    for site in sites:
        groups.setdefault((site.choice.workload.key, point_key(site.choice.default)), []).append(site)
    known = {key: _options(group, records.get(key[0], ())) for key, group in groups.items()}
    measured = [(site, known[key][0]) for key in groups for site in groups[key] if known[key]]
    largest = max((site.alive + default.workspace_bytes for site, default in measured), default=0)
    options = {key: _within(groups[key], found, largest) for key, found in known.items()}
    known_groups = [(group, options[key]) for key, group in groups.items() if options[key]]
    decisions = _solve(known_groups, spare_flash, keep=len(known_groups) < len(groups))
    taken = {call_key(site.call): point for (group, _), point in zip(known_groups, decisions) for site in group}

    def decide(call: relax.Call, choice: Choice) -> Decisions:
        decided = taken.get(call_key(call))
        # The same layer may be asked for on its own and with a sum.
        return decided if decided is not None and decided in choice.space else choice.default

    return decide


def _within(sites: Sequence[Site], options: Sequence[KernelRecord], largest: int) -> list[KernelRecord]:
    """The default, then what leaves the arena no larger and costs less than anything with no more flash."""
    if not options:
        return []
    default, *others = options
    room = max(default.workspace_bytes, largest - max(site.alive for site in sites))
    found: list[KernelRecord] = []

    def flash(record: KernelRecord) -> int:
        return extra_flash(record, default, len(sites))

    def beats(other: KernelRecord, record: KernelRecord) -> bool:
        """Whether another costs no more, and takes no more flash, even if no other layer shares its routines."""
        saves = (other.cost or 0.0) <= (record.cost or 0.0)
        return saves and flash(other) + other.bytes_without(record) <= flash(record)

    for record in sorted(others, key=lambda record: (flash(record), record.cost)):
        if record.workspace_bytes <= room and not any(beats(other, record) for other in found):
            found.append(record)
    return [default, *found]


def _options(sites: Sequence[Site], records: Sequence[KernelRecord]) -> list[KernelRecord]:
    """The measured points that every one of equal sites may take, the default first; none where that was not measured."""
    choice = sites[0].choice
    space = set.intersection(*({point_key(point) for point in site.choice.space} for site in sites))
    known = [r for r in records if r.cost is not None and point_key(r.decisions) in space]
    default = next((record for record in known if record.decisions == choice.default), None)
    return [] if default is None else [default, *(record for record in known if record is not default)]


def extra_flash(option: KernelRecord, default: KernelRecord, layers: int) -> int:
    """Bytes of flash that a point takes at most beyond the default, in so many equal layers; without routines."""
    constants = option.constant_bytes - default.constant_bytes
    code = option.flash_bytes - default.flash_bytes - constants
    arguments = _ARGUMENT_BYTES * max(0, option.workspaces - default.workspaces)
    library = _LIBRARY_BYTES * len(set(option.library) - set(default.library) - {*map(_entry, option.routines.items())})
    return layers * (constants + arguments) + code * (layers if code > 0 else 1) + library


def _entry(routine: tuple[str, int]) -> str:
    """As a record's library has it."""
    return f"{routine[0]}:{routine[1]}"


def _solve(groups: Sequence[tuple[list[Site], list[KernelRecord]]], spare_flash: int, keep: bool) -> list[Decisions]:
    """The points that cost least together; where other layers may call the defaults' routines, these are to `keep`."""
    items = []
    for sites, options in groups:
        count = sum(site.count for site in sites)
        # Of the default nothing is moved.
        padding = _PADDING.get(sites[0].choice.workload.family, 0)
        flash = [extra_flash(option, options[0], len(sites)) + padding * (option is not options[0]) for option in options]
        items.append([Item(count * (o.cost or 0.0), own, o.routines) for o, own in zip(options, flash, strict=True)])
    there = {name: size for _, options in groups for name, size in options[0].routines.items()}
    taken = least_cost([*items, [Item(0.0, 0, there)]] if keep else items, spare_flash + sum(there.values()))
    return [options[index].decisions for (_, options), index in zip(groups, taken)]
