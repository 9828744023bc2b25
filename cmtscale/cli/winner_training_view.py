"""How the training of a search's choice looks: what is planned, and each training in turn."""

from typing import Any

from rich.console import Console
from rich.markup import escape

from cmtscale.arch.budget import format_macs
from cmtscale.cli.bars import Bars
from cmtscale.cli.console import counted
from cmtscale.cli.full_view import FullView
from cmtscale.deploy.winner_request import PreparedWinner
from cmtscale.record.folder import WINNER
from cmtscale.record.winner import read_winner
from cmtscale.search.plan import Plan
from cmtscale.train.full import FullPlan
from cmtscale.train.named_recipe import NamedRecipe


def print_winner_plan(prepared: PreparedWinner, plan: Plan, console: Console) -> None:
    """What is trained once the search has chosen, how, and where it goes."""
    choice, *others = prepared.plans
    recipe = choice.run.recipe
    images = recipe.epochs * choice.steps_per_epoch * choice.batch_images
    console.print(
        f"then the network chosen is trained at its real size, with "
        f"{escape(prepared.recipe.words)}: {counted(recipe.epochs, 'epoch')} of "
        f"{counted(choice.steps_per_epoch, 'step')} of {choice.batch_images} images, on "
        f"{choice.device}"
    )
    if others:
        names = ", ".join(
            f"{other.run.network.name} ({format_macs(other.size.macs)} MACs at "
            f"{other.run.network.resolution_px} px)"
            for other in others
        )
        console.print(f"beside it, alike: {escape(names)}")
    console.print(
        f"each sees {images:,} images, and its first steps tell how long that takes: on ImageNet, "
        f"days on a GPU; in {escape(str(plan.folder / WINNER))}"
    )
    record = read_winner(plan.folder)
    if record is not None and record.alike == choice.run.alike:
        complete = [one.network for one in record.networks if one.status == "complete"]
        if complete:
            console.print(f"trained already: {escape(', '.join(complete))}")
    if plan.settings.tour:
        console.print("what a tour takes is trained all the same: it shows how that goes")


class WinnerView:
    """Prints each training's plan and validations; in between bars move."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self._training: FullView | None = None

    def begun(self, number: int, count: int, network: str, recipe: NamedRecipe) -> None:
        self.bars.print(f"full training {number} of {count}: {network}")
        self._training = FullView(self.bars, recipe.words)

    def planned(self, plan: FullPlan) -> None:
        assert self._training is not None
        self._training.planned(plan)

    def logged(self, line: dict[str, Any]) -> None:
        assert self._training is not None
        self._training.logged(line)

    def measuring(self, text: str) -> None:
        self.bars.show([], f"latencies: {text}")
