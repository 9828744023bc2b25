"""`show --follow`: a search of another terminal as it goes, on a screen that is written anew."""

import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cmtscale.cli.console import duration, results
from cmtscale.record.scores import Score
from cmtscale.search.follow import Follower, Going, Planning
from cmtscale.search.settings import required_settings

LOOK_SECONDS = 1.0
BEST = 8  # networks that are shown


def watch(folder: Path) -> bool:
    """Show the search until it ends: True; False where Ctrl-C leaves it, which stops nothing."""
    console, follower = results(), Follower(folder)
    try:
        going = follower.look()
        if going is None:
            required_settings(folder)
            console.print(f"no search is at work in {folder}; what it answers:", markup=False)
            return True
        if console.is_terminal:
            with Live(screen_of(going, console), console=console, auto_refresh=False) as live:
                for now in _looks(follower, going):
                    live.update(screen_of(now, console), refresh=True)
        else:  # into a file or a pipe: one below the other, as runs end
            shown: int | None = None
            for now in _looks(follower, going):
                ended = now.ended if isinstance(now, Going) else -1
                if ended != shown:
                    console.print(screen_of(now, console), "")
                shown = ended
    except KeyboardInterrupt:
        return False
    return True


def _looks(follower: Follower, first: Going | Planning) -> Iterator[Going | Planning]:
    """What is seen of the search, from time to time, until it ends."""
    going: Going | Planning | None = first
    while going is not None:
        yield going
        time.sleep(LOOK_SECONDS)
        going = follower.look()


def screen_of(going: Going | Planning, console: Console) -> Group:
    """The workers, the lowest losses and the last failures, with a headline above."""
    if isinstance(going, Planning):
        return Group(Text(f"the search is being planned: {going.holder}"))
    left = "" if going.seconds_left is None else f", about {duration(going.seconds_left)} left"
    head = Text(f"{going.ended}/{going.runs} runs{left}; {going.holder}", overflow="ellipsis")
    head.no_wrap = True
    return Group(head, _workers(going, console), *_ranking(going.ranking), *_failures(going))


def _workers(going: Going, console: Console) -> Table:
    table = Table.grid(padding=(0, 2))
    for one in going.under_way:
        bar = ProgressBar(total=1.0, completed=one.part, width=min(20, console.width // 5))
        speed = f"{one.images_per_second:.0f} img/s"
        where = Text(str(one.worker or ""), overflow="ellipsis")
        table.add_row(where, Text(one.run_id), bar, f"{100 * one.part:.0f} %", speed)
    idle = going.workers - len(going.under_way)
    if idle:
        words = "1 worker waits" if idle == 1 else f"{idle} workers wait"
        table.add_row(Text(words, style="dim"))
    return table


def _ranking(ranking: tuple[Score, ...]) -> list[Table]:
    """The lowest means at the longest length that has runs."""
    scores = [score for score in ranking if score.loss is not None][:BEST]
    if not scores:
        return []
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("lowest losses so far", no_wrap=True)
    for name in ("val loss", "accuracy", "seeds"):
        table.add_column(name, justify="right", no_wrap=True)
    for score in scores:
        assert score.accuracy is not None
        unsound = {"diverged": score.diverged, "infeasible": score.infeasible}
        counts = [f"{count} {status}" for status, count in unsound.items() if count]
        seeds = ", ".join([str(len(score.seeds)), *counts])
        cells = f"{score.loss:.4f}", f"{100 * score.accuracy:.2f} %", seeds
        table.add_row(Text(score.candidate), *cells)
    return [table]


def _failures(going: Going) -> list[Text]:
    if not going.failures:
        return []
    lines = [Text("not complete, the last ones:", style="bold")]
    for row in going.failures:
        line = Text(f"{row.run_id}  {row.status}: {row.cause}", style="red", overflow="ellipsis")
        line.no_wrap = True
        lines.append(line)
    return lines
