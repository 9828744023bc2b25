"""What the plan and the outcome of a search both say of candidates and of the recipe."""

from collections.abc import Collection

from rich.console import Console

from cmtscale.arch.solve import BUDGET_TOLERANCE, is_within_tolerance
from cmtscale.data.epochs import batches_per_epoch
from cmtscale.search.candidates import Candidate
from cmtscale.search.settings import Settings

FEW_STEPS = 100  # below, a training has hardly begun
# Why a candidate cannot be chosen: the tag in its line, and what the tag means.
BASE, OFF_BUDGET, TWIN_OFF = "base", "off budget", "twin off"
DIVERGED, FAILED = "diverged", "failed"
_MEANINGS = {
    BASE: "what the others grow from",
    OFF_BUDGET: f"rounding leaves it more than {100 * BUDGET_TOLERANCE:.0f} % away",
    TWIN_OFF: f"its twin is more than {100 * BUDGET_TOLERANCE:.0f} % off the twins' MACs",
    DIVERGED: "with a seed; the other seeds would flatter it",
    FAILED: "no run of it is complete",
}


def warn_of_few_steps(settings: Settings, console: Console) -> None:
    """Say so where a training is too short for its ranking to mean much."""
    epochs, train_images = settings.horizons[0]
    steps = epochs * batches_per_epoch(train_images, settings.recipe.batch_size)
    if steps < FEW_STEPS:
        console.print(
            f"[bold]warning[/bold]: a training of {steps} steps has hardly begun, and its ranking "
            f"says little; use --epochs or a smaller --batch-size for {FEW_STEPS} steps or more"
        )


def off_budget_tag(candidate: Candidate, settings: Settings) -> str:
    """Why a candidate does not count as on the budget."""
    if candidate.role == "base":
        return BASE
    is_on = is_within_tolerance(candidate.macs, settings.budget_macs)
    return TWIN_OFF if is_on else OFF_BUDGET


def explain_tags(tags: Collection[str], console: Console) -> None:
    """One line on those of the tags that are in use; nothing where none is."""
    meanings = [f"{tag} ({meaning})" for tag, meaning in _MEANINGS.items() if tag in tags]
    if meanings:
        console.print(f"excluded, cannot be chosen: {'; '.join(meanings)}")


def share_cell(candidate: Candidate) -> str:
    """`.30/.45/.25`: the shares of depth, width and resolution; `1/0/0` is depth alone."""
    if candidate.role == "base":
        return "–"
    shares = candidate.shares
    return "/".join(map(_fraction, [shares.depth, shares.width, shares.resolution]))


def _fraction(share: float) -> str:
    text = f"{share:.2f}"
    return {"0.00": "0", "1.00": "1"}.get(text, text.removeprefix("0"))
