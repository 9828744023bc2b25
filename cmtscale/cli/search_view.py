"""How a search looks while it goes on: its plan, each run that ends, and bars below."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cmtscale.cli.console import duration, messages
from cmtscale.cli.search_plan_view import print_plan
from cmtscale.record.row import Row
from cmtscale.search.driver import Progress
from cmtscale.search.plan import Plan

PLAIN_SECONDS = 30.0  # between lines of progress without a terminal


class View:
    """Prints the plan and each ended run; on a terminal keeps bars below, else a line at times."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self.console = console
        self.live = live
        self.last_line = time.monotonic()

    def planned(self, plan: Plan) -> None:
        print_plan(plan, self.console)

    def noted(self, text: str) -> None:
        self.console.print(text, markup=False)

    def ended(self, row: Row) -> None:
        if row.val_loss is None or row.val_accuracy is None or row.images_per_second is None:
            result = f"{row.status}: {row.cause}"
        else:
            result = (
                f"loss {row.val_loss:.4f}  accuracy {100 * row.val_accuracy:.2f} %  "
                f"{row.images_per_second:.0f} img/s  {duration(row.seconds)}"
            )
        self.console.print(f"{row.run_id}  {row.role:<10}  {result}", markup=False)

    def progressed(self, progress: Progress) -> None:
        if self.live is not None:
            self.live.update(_bars(progress))
        elif time.monotonic() - self.last_line >= PLAIN_SECONDS:
            self.last_line = time.monotonic()
            self.console.print(_headline(progress))


@contextmanager
def make_view() -> Iterator[View]:
    """A view on stderr; the bars vanish when the search ends, however it does."""
    console = messages()
    if not console.is_terminal:
        yield View(console, None)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield View(console, live)


def _headline(progress: Progress) -> str:
    parts = [f"{progress.done}/{progress.runs} runs"]
    best = progress.best
    if best is not None and best.loss is not None and best.accuracy is not None:
        parts.append(
            f"best on the budget {best.candidate} loss {best.loss:.4f} "
            f"accuracy {100 * best.accuracy:.2f} %"
        )
    if progress.images_per_second:
        parts.append(f"{progress.images_per_second:.0f} img/s")
    if progress.seconds_left is not None:
        parts.append(f"about {duration(progress.seconds_left)} left")
    return ", ".join(parts)


def _bars(progress: Progress) -> Group:
    rows = Table.grid(padding=(0, 1))
    done = progress.done + sum(part for _, part in progress.running)
    for name, part in [("all", done / max(1, progress.runs)), *progress.running]:
        rows.add_row(name, ProgressBar(total=1.0, completed=part, width=30), f"{100 * part:.0f} %")
    return Group(rows, Text(_headline(progress)))
