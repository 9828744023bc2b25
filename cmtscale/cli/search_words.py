"""What the plan and the outcome of a search both say of candidates and of the recipe."""

from rich.console import Console

from cmtscale.data.batches import batches_per_epoch
from cmtscale.search.candidates import Candidate
from cmtscale.search.request import Settings

OFF_BUDGET = "* cannot be chosen: it, or its twin, is off the budget, or it diverged with a seed"
FEW_STEPS = 100  # below, a training has hardly begun


def warn_of_few_steps(settings: Settings, console: Console) -> None:
    recipe = settings.recipe
    steps = recipe.epochs * batches_per_epoch(recipe.train_images, recipe.batch_size)
    if steps < FEW_STEPS:
        console.print(
            f"[bold]warning[/bold]: a training of {steps} steps has hardly begun, and its ranking "
            f"says little; use --epochs or a smaller --batch-size for {FEW_STEPS} steps or more"
        )


def marked(name: str, on_budget: bool) -> str:
    return name if on_budget else f"{name} *"


def share_cells(candidate: Candidate) -> list[str]:
    if candidate.role == "base":
        return ["", "", ""]
    shares = candidate.shares
    return [f"{part:.2f}" for part in (shares.depth, shares.width, shares.resolution)]
