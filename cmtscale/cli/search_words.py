"""What the plan and the outcome of a search both say of candidates and of the recipe."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console

from cmtscale.arch.solve import BUDGET_TOLERANCE, is_within_tolerance
from cmtscale.data.epochs import batches_per_epoch
from cmtscale.search.candidates import Candidate
from cmtscale.search.screen import limit_text
from cmtscale.search.settings import Settings

FEW_STEPS = 100  # below, a training has hardly begun


@dataclass(frozen=True)
class Reason:
    """Why a candidate cannot be chosen: a word and a number for its line, and what they mean."""

    word: str
    meaning: str
    number: str = ""

    @property
    def cell(self) -> str:
        """`MACs +8.7 %`."""
        return f"{self.word} {self.number}".rstrip()


BASE = Reason("base", "what the others grow from")
DIVERGED = Reason("diverged", "with a seed; the other seeds would flatter it")
INFEASIBLE = Reason("infeasible: memory", "the device's is too small for one image in training")
UNTIMED = Reason("untimed", "its latency, which is limited, is not measured here")
FAILED = Reason("failed", "no run of it is complete")


def warn_of_few_steps(settings: Settings, console: Console) -> None:
    """Say so where a training is too short for its ranking to mean much."""
    epochs, train_images = settings.horizons[0]
    steps = epochs * batches_per_epoch(train_images, settings.recipe.batch_size)
    if steps < FEW_STEPS:
        console.print(
            f"[bold]warning[/bold]: a training of {steps} steps has hardly begun, and its ranking "
            f"says little; use --epochs or a smaller --batch-size for {FEW_STEPS} steps or more"
        )


def excluding(candidate: Candidate, settings: Settings) -> list[Reason]:
    """Why a candidate may not be chosen whatever its runs say: off the budget, or over a limit."""
    if candidate.on_budget:
        return [
            Reason(name, f"more than {limit_text(name, settings.limits[name])}")
            for name in candidate.over
        ]
    if candidate.role == "base":
        return [BASE]
    tolerance = f"{100 * BUDGET_TOLERANCE:.0f} %"
    if not is_within_tolerance(candidate.macs, settings.budget_macs):
        off = f"rounding leaves it more than {tolerance} off the budget"
        return [Reason("MACs", off, _deviation(candidate.macs, settings.budget_macs))]
    off = f"its twin is more than {tolerance} off the twins' MACs"
    return [Reason("twin", off, _deviation(candidate.trained_macs, settings.trained_macs))]


def explain(reasons: Iterable[Reason], console: Console) -> None:
    """One line on the reasons that are in use, each word once; nothing where none is."""
    meanings = dict.fromkeys(f"{reason.word} ({reason.meaning})" for reason in reasons)
    if meanings:
        console.print(f"excluded, cannot be chosen: {'; '.join(meanings)}")


def share_cell(candidate: Candidate) -> str:
    """`.30/.45/.25`: the shares of depth, width and resolution; `1/0/0` is depth alone."""
    if candidate.role == "base":
        return "–"
    shares = candidate.shares
    return "/".join(map(_fraction, [shares.depth, shares.width, shares.resolution]))


def _deviation(macs: int, wanted: int) -> str:
    return f"{100 * (macs / wanted - 1):+.1f} %"


def _fraction(share: float) -> str:
    text = f"{share:.2f}"
    return {"0.00": "0", "1.00": "1"}.get(text, text.removeprefix("0"))
