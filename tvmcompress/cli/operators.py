"""`tvmcompress operators`: what is known of each operator."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import JsonOption, output, print_json


def operators(
    pattern: Annotated[str, typer.Argument(help="Only these, for instance 'nn.*'.", show_default=False)] = "*",
    json: JsonOption = False,
) -> None:
    """List the operators of models, what each can do (be pruned, quantized, trained, exported), and why not."""
    from fnmatch import fnmatchcase

    from ..errors import UserError
    from ..report.operators import COLUMNS, INTEGER_COLUMNS, integer_operators, operators, row
    from ..report.tables import open_table

    def chosen(name: str) -> bool:
        return fnmatchcase(name.partition(".")[2], pattern) or fnmatchcase(name, pattern)

    relax = [record for record in operators() if chosen(record.name)]
    integer = [record for record in integer_operators() if chosen(record.name)]
    if not relax and not integer:
        raise UserError(f"no operator is called '{pattern}'; see them all with: tvmcompress operators")
    if json:
        records = {"relax": [r.model_dump() for r in relax], "integer": [r.model_dump() for r in integer]}
        print_json(records)
        return
    tables = (
        (COLUMNS, {record.name: row(record, COLUMNS) for record in relax}),
        (INTEGER_COLUMNS, {record.name: row(record, INTEGER_COLUMNS) for record in integer}),
    )
    for columns, rows in tables:
        if rows:
            table = open_table("operator", *columns.values())
            for name, cells in rows.items():
                table.add_row(name, *cells)
            output().print(table)
    if len(relax) == 1:
        for column, why in relax[0].reasons.items():
            output().print(f"{COLUMNS[column]}: {why}", highlight=False)
