"""Bars on a terminal for what goes on; elsewhere a line at times."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cmtscale.cli.console import messages

PLAIN_SECONDS = 30.0  # between lines where there is no terminal


class Bars:
    """Lines that stay on stderr, above bars that move."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self.console = console
        self._live = live
        self._last_line = time.monotonic()

    def print(self, text: str) -> None:
        """A line that stays, as it is."""
        self.console.print(text, markup=False)

    def show(self, parts: Sequence[tuple[str, float]], headline: str) -> None:
        """Named parts from 0 to 1 as bars, with a headline below; without a terminal that alone."""
        if self._live is None:
            if time.monotonic() - self._last_line >= PLAIN_SECONDS:
                self._last_line = time.monotonic()
                self.print(headline)
            return
        rows = Table.grid(padding=(0, 1))
        for name, part in parts:
            bar = ProgressBar(total=1.0, completed=part, width=min(30, self.console.width // 3))
            rows.add_row(name, bar, f"{100 * part:.0f} %")
        self._live.update(Group(rows, Text(headline)))


@contextmanager
def make_bars() -> Iterator[Bars]:
    """Bars on stderr that vanish at the end, however it comes.

    What libraries print meanwhile, such as Ray of its nodes, goes there too.
    """
    console = messages()
    if not console.is_terminal:
        with redirect_stdout(sys.stderr):
            yield Bars(console, None)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield Bars(console, live)
