"""Where output goes: results to stdout, everything else to stderr."""

import shutil
import sys

from rich.console import Console
from rich.table import Table

PLAIN_WIDTH = 160  # of tables that are piped or redirected: nothing is cut off


def results() -> Console:
    """The console for results: stdout, coloured and fitted on a terminal only."""
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(width=width, highlight=False, soft_wrap=False)


def messages() -> Console:
    """The console for everything else: stderr."""
    width = None if sys.stderr.isatty() else max(PLAIN_WIDTH, shutil.get_terminal_size().columns)
    return Console(stderr=True, width=width, highlight=False)


def table(*columns: str, title: str | None = None) -> Table:
    """A table whose first column is text and whose others are right-aligned."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left", no_wrap=True)
    return made


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
