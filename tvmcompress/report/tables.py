"""Tables as all of ours look, of which no terminal is too narrow."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table

_LEAST = 12
"""A column that may be folded keeps so many characters, else its rows are blocks."""


class FoldedTable(Table):
    """A table that cuts nothing away.

    Columns that may be folded are; where the others (`no_wrap`: figures) still take more than the terminal has, each row
    becomes a block of lines "heading  value".
    """

    def add_column(self, *args: Any, **kwargs: Any) -> None:
        """As in `Table`; what does not fit is folded where it would be cut."""
        super().add_column(*args, **{"overflow": "fold", **kwargs})

    def add_figures(self, *headings: str) -> None:
        """Columns of figures: to the right, and never folded."""
        for heading in headings:
            self.add_column(heading, justify="right", no_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A table, or blocks."""
        fits = self._narrowest(console) <= options.max_width
        yield from (super().__rich_console__(console, options) if fits else self._blocks(console, options))

    def _narrowest(self, console: Console) -> int:
        total = self._extra_width
        for index, column in enumerate(self.columns):
            wide = max(console.measure(cell).maximum for cell in (column.header, *column.cells))
            total += (wide if column.no_wrap else min(wide, _LEAST)) + self._get_padding_width(index)
        return total

    def _blocks(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield from console.render(self.title, options)
        for number, cells in enumerate(zip(*(column.cells for column in self.columns))):
            shown = [(column.header, cell) for column, cell in zip(self.columns, cells) if console.measure(cell).maximum]
            if not self.show_header:
                for _, cell in shown:
                    yield from console.render(cell, options)
                continue
            block = plain_grid(padding=(0, 1))
            for heading, cell in shown:
                block.add_row(heading, cell, style=self.rows[number].style)
            yield from console.render(Group(*([""] if number else []), block), options)


def plain_table(title: str | None = None) -> FoldedTable:
    """A table as all of ours look."""
    return FoldedTable(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        header_style="bold",
    )


def open_table(*headings: str) -> FoldedTable:
    """A table without lines."""
    return FoldedTable(*headings, box=None, pad_edge=False)


def plain_grid(padding: tuple[int, int] = (0, 2)) -> FoldedTable:
    """A name in bold and what is to say of it, without lines."""
    grid = FoldedTable(box=None, padding=padding, collapse_padding=True, show_header=False, pad_edge=False)
    grid.add_column(style="bold")
    grid.add_column()
    return grid
