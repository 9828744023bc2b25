"""How a search looks while it goes on."""

from dataclasses import replace
from typing import TYPE_CHECKING

from cmtscale.cli.bars import Bars
from cmtscale.cli.console import duration
from cmtscale.cli.search_plan_view import print_plan
from cmtscale.record.row import Row
from cmtscale.search.plan import Plan
from cmtscale.search.watch import Progress

if TYPE_CHECKING:
    from cmtscale.deploy.winner_request import PreparedWinner


class SearchView:
    """Prints the plan, with what is trained of the choice, and each ended run; bars move."""

    def __init__(self, bars: Bars, winner: "PreparedWinner | None" = None) -> None:
        self.bars = bars
        self.winner = winner

    def planned(self, plan: Plan) -> None:
        print_plan(plan, self.bars.console)
        if self.winner is not None:
            from cmtscale.cli.winner_training_view import print_winner_plan

            print_winner_plan(self.winner, plan, self.bars.console)

    def noted(self, text: str) -> None:
        self.bars.print(text)

    def ended(self, row: Row) -> None:
        if row.val_loss is None or row.val_accuracy is None or row.images_per_second is None:
            result = f"{row.status}: {row.cause}"
        else:
            result = (
                f"loss {row.val_loss:.4f}  accuracy {100 * row.val_accuracy:.2f} %  "
                f"{row.images_per_second:.0f} img/s  {duration(row.seconds)}"
            )
        self.bars.print(f"{row.run_id}  {result}")

    def progressed(self, progress: Progress) -> None:
        parts = [("all", progress.part), *progress.running]
        self.bars.show(parts, _headline(progress))


class CheckView(SearchView):
    """The same of a check, which looks for no best network."""

    def progressed(self, progress: Progress) -> None:
        super().progressed(replace(progress, best=None))


def _headline(progress: Progress) -> str:
    parts = [f"{progress.done}/{progress.runs} runs"]
    best = progress.best
    if best is not None and best.loss is not None and best.accuracy is not None:
        parts.append(
            f"lowest on the budget {best.candidate} loss {best.loss:.4f} "
            f"accuracy {100 * best.accuracy:.2f} %"
        )
    if progress.images_per_second:
        parts.append(f"{progress.images_per_second:.0f} img/s")
    parts.append(f"about {duration(progress.seconds_left)} left")
    return ", ".join(parts)
