"""Where output goes: results to stdout, everything else to stderr."""

import shutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

GAP, NARROW_GAP = 2, 1  # between columns
PLAIN_WIDTH = 160  # of tables that are piped or redirected: nothing is cut off


def results() -> Console:
    """The console for results: stdout, coloured and fitted on a terminal only."""
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(width=width, highlight=False, emoji=False)


def messages() -> Console:
    """The console for everything else: stderr."""
    width = None if sys.stderr.isatty() else max(PLAIN_WIDTH, shutil.get_terminal_size().columns)
    return Console(stderr=True, width=width, highlight=False, emoji=False)


@dataclass(frozen=True)
class Column:
    """A column of a table; where space lacks, the one with the highest `rank` is left out first.

    Columns of rank 0 are never left out.
    """

    name: str
    rank: int = 0


def print_table(
    console: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    bold: Collection[int] = (),
) -> list[str]:
    """Print rows under columns: the first one left-aligned, the others right-aligned.

    Columns that do not fit the console are left out by rank, and a line says so; their names are
    returned. Where those that stay do not fit either, they move closer together. `bold` holds the
    numbers of rows to stress.
    """
    widths = [
        max(cell_len(cell) for cell in [column.name, *(row[number] for row in rows)])
        for number, column in enumerate(columns)
    ]

    def fits(shown: list[int], gap: int) -> bool:
        return sum(widths[number] + gap for number in shown) - gap <= console.width

    shown = list(range(len(columns)))
    ranked = sorted((n for n in shown if columns[n].rank), key=lambda n: columns[n].rank)
    while ranked and not fits(shown, GAP):
        shown.remove(ranked.pop())
    gap = GAP if fits(shown, GAP) else NARROW_GAP
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for number in shown:
        justify: JustifyMethod = "right" if number else "left"
        table.add_column(columns[number].name, justify=justify, no_wrap=True)
    for index, row in enumerate(rows):
        cells = [escape(row[number]) for number in shown]
        table.add_row(*cells, style="bold" if index in bold else None)
    console.print(table)
    left_out = [column.name for number, column in enumerate(columns) if number not in shown]
    if left_out:
        console.print(f"(a wider terminal also shows: {', '.join(left_out)})", style="dim")
    return left_out


def thousands(number: float) -> str:
    """`638,904,600`."""
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s` or `45 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def counted(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
