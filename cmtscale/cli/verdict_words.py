"""The verdict of a search in plain words."""

from collections import Counter

from cmtscale.cli.console import counted, duration
from cmtscale.search.choose import EQUAL_COST, Choice
from cmtscale.search.ladder import SURE
from cmtscale.search.outcome import Outcome

_UNITS = {  # of a second cost, and how many of them one is
    "latency": ("ms", 1e3),
    "params": ("M", 1e-6),
    "activations": ("M", 1e-6),
    "macs": ("G", 1e-9),
}


def verdict(outcome: Outcome, choice: Choice) -> str:
    """*Clear*, *a tie*, *undecided* with what would decide it, or why nothing can be said."""
    if choice.probability is None or choice.verdict == "nothing learned yet":
        return f"[bold]{choice.verdict.capitalize()}[/bold]: {choice.reason}"
    within = (
        f"within {100 * choice.tolerance:g} % of the lowest loss after "
        f"{choice.target_images:,} images"
    )
    longest = outcome.settings.images_seen[-1]
    if choice.target_images > longest:
        within += f" (forecast: nothing has seen more than {longest:,})"
    taken = f"{choice.taken} is {within} with probability {choice.probability:.2f}"
    if choice.verdict == "undecided":
        return f"[bold]Undecided[/bold]: {taken}; {_more(outcome, choice)}"
    if choice.verdict == "clear":
        others = f"no other reaches {SURE}"
        if sum(standing.may_win for standing in choice.standings) == 1:
            others = "no other can be chosen (--trials adds candidates)"
        return f"[bold]Clear[/bold]: {taken}; {others}"
    tie = f"[bold]A tie[/bold] of {len(choice.near)}: {', '.join(choice.near)} are each {within} "
    tie += f"with probability {SURE} or more; {choice.taken} ({choice.probability:.2f}) is taken"
    if len(choice.costs) < len(choice.near):
        return f"{tie} as the most probable, for the {choice.prefer} of all is not measured"
    unit, scale = _UNITS[choice.prefer]
    costs = ", ".join(f"{name} {scale * choice.costs[name]:.3g} {unit}" for name in choice.near)
    is_equal = choice.costs[choice.taken] > min(choice.costs.values())
    if is_equal and choice.prefer in ("latency", "activations"):
        return (
            f"{tie} for its params, the smallest of those whose {choice.prefer} is equal within "
            f"{100 * (EQUAL_COST - 1):.0f} % ({costs})"
        )
    return f"{tie} for its {choice.prefer} ({costs})"


def _more(outcome: Outcome, choice: Choice) -> str:
    """What would probably decide it."""
    if choice.more is None:
        return "forty more runs would probably not decide it"
    images = outcome.settings.images_seen
    counts = Counter(run.rung for run in choice.more)
    rungs = " and ".join(
        f"{counted(count, 'run')} of {images[rung]:,}" for rung, count in counts.items()
    )
    minutes = duration(60 * max(1, round(choice.more_seconds / outcome.workers / 60)))
    return f"about {minutes} more ({rungs} images) would probably decide it"
