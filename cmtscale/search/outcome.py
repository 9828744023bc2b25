"""What a search leaves behind: `choice.json` and `best.toml`."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.solve import Solution
from cmtscale.arch.variant import Variant
from cmtscale.record.choice import DECIDED
from cmtscale.record.files import write_json, write_text_atomically
from cmtscale.record.folder import BEST, CHOICE
from cmtscale.record.forecast import write_forecast
from cmtscale.record.rate_check import RateCheck
from cmtscale.record.reads import Reading
from cmtscale.record.row import Row
from cmtscale.record.twin_check import TwinCheck
from cmtscale.search.candidates import Candidate
from cmtscale.search.choose import Choice
from cmtscale.search.family import Member
from cmtscale.search.settings import Settings
from cmtscale.search.standings import Standing, by_first_rung, reached

_MEMBER_FILE = re.compile(r"best-[0-9.]+[kMG]?\.toml")  # `Member.file_name`


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a search answers: its folder, candidates, all rows of its record, and the choice.

    `choice` is None where no run on the budget is complete. `readings` are all that this folder's
    log has of the test split; `paper` is the paper's constants solved to the same budget (None:
    they cannot be); `family` the smaller budgets with the shares of the network taken. `workers` is
    how many runs go on at a time; `spend_needed` what the ladder's `spend` must be for the runs
    that would probably decide an undecided search, `seconds_needed` what its time must be where it
    has a limit (None: no such). `twin_check` is what a check of
    its twins found, `rate_check` one of its learning rate (None: there was none). `untimed` are
    candidates that a limit on latency excludes because theirs is not measured on this machine;
    `damaged` says which checks cannot be read, and why.
    """

    folder: Path
    settings: Settings
    candidates: tuple[Candidate, ...]
    rows: tuple[Row, ...]
    choice: Choice | None
    readings: tuple[Reading, ...]
    paper: Solution | None
    workers: int
    spend_needed: float | None
    seconds_needed: float | None
    family: tuple[Member, ...]
    twin_check: TwinCheck | None
    rate_check: RateCheck | None
    untimed: tuple[str, ...]
    damaged: tuple[str, ...]

    @property
    def standings(self) -> tuple[Standing, ...]:
        """Every candidate of the record, the most probable first, or the lowest at first rung."""
        if self.choice is not None:
            return self.choice.standings
        return tuple(by_first_rung(reached(self.settings, self.rows, self.candidates)))

    @property
    def winner(self) -> Candidate | None:
        """The candidate that is taken."""
        if self.choice is None:
            return None
        return self.candidate(self.choice.taken)

    @property
    def winner_name(self) -> str:
        """What `best.toml` calls the network that is taken; "" without one."""
        return "" if self.winner is None else _file_name(self.settings.base, self.winner.real)

    def candidate(self, name: str) -> Candidate:
        """The candidate of this name."""
        return next(candidate for candidate in self.candidates if candidate.name == name)


def save_choice(outcome: Outcome) -> None:
    """Write the network taken, those of its family, how sure that is, and the forecast."""
    choice, winner = outcome.choice, outcome.winner
    assert choice is not None
    assert winner is not None
    settings = outcome.settings
    if settings.tour:
        remark = "a tour on toy images: it recommends nothing"
    elif choice.verdict not in DECIDED:
        remark = f"{choice.verdict}: the most probable of {len(choice.standings)} candidates"
    else:
        remark = f"one of {len(choice.near)} that are as good as the best; see choice.json"
    budgets = [*settings.family, settings.budget_macs]
    command = f"search --budget {','.join(map(format_macs, budgets))} --data {settings.data}"
    _write_network(outcome.folder / BEST, settings.base, winner.real, f"{command}: {remark}")
    for path in outcome.folder.glob("best-*.toml"):
        if _MEMBER_FILE.fullmatch(path.name):  # of an earlier choice
            path.unlink()
    for member in outcome.family:
        if member.solution is not None:
            _write_network(
                outcome.folder / member.file_name,
                member.base,
                member.solution.variant,
                f"{command}: the shares of {BEST} at {format_macs(member.budget_macs)}, not "
                f"searched at that budget; {remark}",
            )
    write_forecast(outcome.folder, choice.curves)
    write_json(outcome.folder / CHOICE, described(outcome))


def _write_network(path: Path, base: Variant, network: Variant, remark: str) -> None:
    named = replace(network, name=_file_name(base, network))
    write_text_atomically(path, f"# cmtscale {remark}\n{named.to_toml()}")


def _file_name(base: Variant, network: Variant) -> str:
    """What a network's file calls it, which says what it grows from."""
    return f"{base.name}-{network.name}"


def described(outcome: Outcome) -> dict[str, Any] | None:
    """The answer as `choice.json` has it; None where nothing can be chosen."""
    choice, winner = outcome.choice, outcome.winner
    if choice is None or winner is None:
        return None
    answer = asdict(replace(choice, curves=(), standings=()))
    del answer["curves"]  # in forecast.csv
    table = {
        "tour": outcome.settings.tour,
        "images_seen": outcome.settings.images_seen,
        **answer,
        "standings": _flat(choice.standings),
        "test_readings": [_without_data(reading) for reading in outcome.readings],
        "shares": asdict(winner.shares),
        "alpha": winner.shares.alpha,
        "beta": winner.shares.beta,
        "gamma": winner.shares.gamma,
        "phi": winner.phi,
        "macs": winner.macs,
        "stray": winner.stray,
        "paper": outcome.paper
        and {
            "phi": outcome.paper.phi,
            "macs": outcome.paper.macs,
            "stray": outcome.paper.stray,
            "dims": outcome.paper.variant.dims,
            "depths": outcome.paper.variant.depths,
            "resolution_px": outcome.paper.variant.resolution_px,
        },
    }
    if outcome.family:
        table["family"] = [_described_member(member) for member in outcome.family]
    return table


def _described_member(member: Member) -> dict[str, Any]:
    """A budget of the family as `choice.json` has it: its network, or why it has none."""
    table: dict[str, Any] = {"budget_macs": member.budget_macs, "base": member.base.name}
    solution = member.solution
    if solution is None:
        return {**table, "network": None, "reason": member.reason}
    network = solution.variant
    return {
        **table,
        "network": network.name,
        "file": member.file_name,
        "macs": solution.macs,
        "params": cost(network).params,
        "phi": solution.phi,
        "stray": solution.stray,
        "dims": network.dims,
        "depths": network.depths,
        "resolution_px": network.resolution_px,
    }


def _flat(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """What is said of each candidate; what its runs reached is in `trials.csv`."""
    return [
        {
            "candidate": standing.candidate,
            "loss": standing.loss and asdict(standing.loss),
            "may_win": standing.may_win,
            "near": standing.near,
            "best": standing.best,
            "runs": standing.runs,
            "accuracy": standing.longest.accuracy,
            "accuracy_images": standing.longest_images,
        }
        for standing in standings
    ]


def _without_data(reading: Reading) -> dict[str, Any]:
    """A reading as a search makes it: always of its own images."""
    return {name: value for name, value in asdict(reading).items() if name != "data"}
