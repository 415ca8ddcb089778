"""Rows as a table of texts: how wide it is, and how it is printed side by side or one column a line."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

Layout = Literal["wide", "vertical"]
BORDER = 3  # characters between two columns of a table
UNBOUNDED = 10_000  # characters of a line of a file
FOLDED = 12  # characters of a column whose longer values go over several lines


@dataclass(frozen=True)
class TextTable:
    """Values as texts, in rows; the columns of `numbers`, by place, stand at the right."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()

    def column_width(self, at: int) -> int:
        """The characters that a column takes, its border among them."""
        return max(map(cell_len, (self.names[at], *(row[at] for row in self.rows)))) + BORDER

    def width(self, most: int | None = None) -> int:
        """The characters that all columns take, with `most` for the values of each."""
        widths = [self.column_width(at) for at in range(len(self.names))]
        return 1 + sum(width if most is None else min(width, most + BORDER) for width in widths)

    def chosen(self, places: Sequence[int]) -> TextTable:
        """The columns at these places, in their order."""
        numbers = frozenset(new for new, at in enumerate(places) if at in self.numbers)
        rows = [[row[at] for at in places] for row in self.rows]
        return replace(self, names=[self.names[at] for at in places], rows=rows, numbers=numbers)

    def print(self, file: IO[str], layout: Layout | None = None) -> None:
        """Prints the table, and how many rows it has. Without a layout, what has too many columns for this terminal is
        printed one column a line, like psql's expanded display.
        """
        width = shutil.get_terminal_size().columns if file.isatty() and layout != "wide" else UNBOUNDED
        # With a height rich takes the width, too, on any kind of terminal.
        console = Console(file=file, width=width, height=50, highlight=False, markup=False, emoji=False)
        if layout == "vertical" or (layout is None and self.width(most=FOLDED) > width):
            longest = max(map(len, self.names), default=0)
            for number, row in enumerate(self.rows, 1):
                console.print(f"-- row {number} ", style="bold")
                for name, value in zip(self.names, row, strict=True):
                    console.print(f"{name:{longest}}  {value}", soft_wrap=True)
        else:
            table = Table()
            for at, name in enumerate(self.names):
                table.add_column(name, justify="right" if at in self.numbers else "left", overflow="fold")
            for row in self.rows:
                table.add_row(*row)
            console.print(table)
        console.print(f"{len(self.rows):,} row{'' if len(self.rows) == 1 else 's'}")
