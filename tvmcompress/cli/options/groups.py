"""Groups of options: a parameter of a command whose type is a group stands for all its options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from .essential import ESSENTIAL, HelpAllOption


def with_groups(function: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter whose type is a dataclass of options by these options; the command gets the dataclass.

    A field is an option as Typer takes it, `name: Annotated[type, typer.Option(...)] = default`, and is called in the
    command as in the group.
    """
    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)
    groups = {name: hints[name] for name in signature.parameters if is_dataclass(hints[name])}
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name in groups:
            parameters += _options(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name]))
    if function.__name__ in ESSENTIAL:
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter("help_all", kind, default=False, annotation=HelpAllOption))

    @functools.wraps(function)
    def run(**given: Any) -> None:
        given.pop("help_all", None)
        values = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)}) for name, group in groups.items()
        }
        function(**values, **given)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    return run


def _options(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(group)
    ]
