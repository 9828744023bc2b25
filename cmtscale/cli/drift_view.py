"""What a check of horizons found: noise and spread at each rung, and how rungs agree."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmtscale.cli.console import Column, counted, print_table, results
from cmtscale.search.agreement import Agreement
from cmtscale.search.check_drift import Drift


def print_drift(folder: Path, drift: Drift) -> None:
    """The rungs, how each two of them agree, and what the best at each is worth at the target."""
    out = results()
    target = f"{drift.target_images:,}"
    columns = {
        Column("images"): [f"{rung.images_seen:,}" for rung in drift.rungs],
        Column("networks", 2): [str(rung.networks) for rung in drift.rungs],
        Column("runs", 3): [str(rung.runs) for rung in drift.rungs],
        Column("noise", 1): [_number(rung.noise, 3) for rung in drift.rungs],
        Column("spread", 1): [_number(rung.spread, 3) for rung in drift.rungs],
        Column("best stays best"): [_number(rung.best, 2) for rung in drift.rungs],
        Column("regret"): [
            "–" if rung.regret is None else f"{100 * rung.regret:.1f} %" for rung in drift.rungs
        ],
    }
    print_table(out, list(columns), list(zip(*columns.values(), strict=True)))
    out.print(
        f"noise of a run between seeds and spread of the networks, in parts of the loss; best "
        f"stays best: the probability that the lowest there is the lowest at {target}, regret: "
        f"what it loses there, both by the forecast"
    )
    out.print()
    images = [rung.images_seen for rung in drift.rungs]
    for first, second, found in drift.pairs:
        out.print(f"{images[first]:,} and {images[second]:,} images: {_agreement(found)}")
    if not drift.pairs:
        out.print("all runs have one length: --ladder quick or standard trains longer ones")
    if drift.may_be_chosen < 2:
        out.print(
            f"no forecast: it takes two networks that may be chosen, and there "
            f"{'is one' if drift.may_be_chosen else 'are none'}: see cmtscale show {folder}",
            markup=False,
            soft_wrap=True,
        )
    elif drift.forecast_missing:
        out.print("no forecast: it takes two seeds of some network, and the losses of its images")
    if drift.tour:
        out.print("[bold]This is a tour: it says nothing of your images.[/bold]")
    out.print(f"the answer: cmtscale show {folder}", markup=False, soft_wrap=True)


def print_drift_json(folder: Path, drift: Drift) -> None:
    """The check as JSON; null for what is not measured."""
    pairs = [
        {
            "images_seen": [drift.rungs[first].images_seen, drift.rungs[second].images_seen],
            "agreement": None if found is None else _finite(asdict(found)),
        }
        for first, second, found in drift.pairs
    ]
    content = {**asdict(drift), "pairs": pairs}
    print(json.dumps({"folder": str(folder), "drift": content}, indent=1))


def _agreement(found: Agreement | None) -> str:
    if found is None:
        return "fewer than four networks have runs of both"
    low, high = found.tau_interval
    return (
        f"Kendall's τ {found.tau:.2f} ({low:.2f} to {high:.2f}, 95 %) over "
        f"{counted(found.networks, 'network')}"
    )


def _finite(table: dict[str, Any]) -> dict[str, Any]:
    """The table with None in place of nan."""

    def finite(value: Any) -> Any:
        if isinstance(value, tuple):
            return [finite(part) for part in value]
        return None if isinstance(value, float) and value != value else value

    return {name: finite(value) for name, value in table.items()}


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
