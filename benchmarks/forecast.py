"""Is the forecast right as often as it says, and does its policy spend a budget well?

    python benchmarks/forecast.py run [--candidates 14] [--searches 100] [--scenario NAME]
    python benchmarks/forecast.py anchors [...]    # with anchors at fewer rungs: anchors.csv
    python benchmarks/forecast.py botorch [...]    # BoTorch's process on the same runs: botorch.csv
    python benchmarks/forecast.py report    # tables and figures from results/forecast/searches.csv

Each search has its own world (`oracle/worlds.py`): architectures with known losses at T, 3T, 9T and
27T images. It may spend 30 % of what training all candidates at 9T with three seeds would cost, and
decides for 9T. Strategies of one world meet the same runs: the k-th run of an architecture at a
rung is the same for all. The table grows by whole worlds; what it has is not repeated.
"""

import argparse
import csv
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
from oracle.strategies import (
    DRAWS,
    TOLERANCE,
    bent_alike,
    botorch_draws,
    forecast_search,
    promotion,
    random_search,
    single_fit,
    spent,
    textbook_draws,
    true_scales,
)
from oracle.worlds import BEYOND, SCENARIOS, TARGET, Run, World, world
from sklearn.exceptions import ConvergenceWarning

from cmtscale.search.curves import FloatArray
from cmtscale.search.forecast import Forecast, forecast
from cmtscale.search.policy import best, near_best

# Comparisons that take longer than the forecast's own search: in how many worlds of each thousand,
# by the number of candidates (among 64 a fit of highest likelihood may name hundreds of runs at T,
# for minutes).
COMPARED_WORLDS = {14: 40, 28: 4}
RESULTS = Path(__file__).parents[1] / "results" / "forecast"


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search by one strategy. Shares are of candidates; None where nothing is stated.

    `runs_of` says whose runs the decision is made from. `regret` and `spread` (standard deviation
    of the true values) are in ln loss at 9T. `stated` and `is_near` are of the taken one's being
    within 1 % of the best at 9T, `stated_best` and `is_best` of its being the best; `…_beyond` of
    what would be taken for 27T. `covered` is the share of 90 % intervals that hold the truth.
    """

    scenario: str
    candidates: int
    world: int
    strategy: str
    runs_of: str
    runs: int
    spent: float
    taken: int
    regret: float
    spread: float
    is_near: bool
    is_best: bool
    stated: float | None = None
    stated_best: float | None = None
    covered: float | None = None
    half_width: float | None = None
    stated_beyond: float | None = None
    is_near_beyond: bool | None = None
    covered_beyond: float | None = None
    effective_samples: float | None = None
    seconds: float | None = None


def searches_of(scenario: str, candidates: int, seed: int) -> Iterator[Search]:
    """All strategies on one world."""
    here = world(scenario, candidates, seed)
    record = partial(_record, here, scenario=scenario, world=seed)
    started = time.perf_counter()
    runs, sure_after = forecast_search(here, forecast, seed)
    trained = here.trained(runs)
    averaged = forecast(trained)
    seconds = time.perf_counter() - started
    yield record("forecast", runs, averaged, seconds=seconds)
    stopped = forecast(here.trained(runs[:sure_after]))
    yield record("forecast, stopped at .95", runs[:sure_after], stopped)
    no_images = replace(trained, image_covariance=np.zeros_like(trained.image_covariance))
    on_same_runs = {
        "highest posterior": single_fit(trained, with_prior=True),
        "without image noise": forecast(no_images),
        "bent alike": bent_alike(trained),
    }
    for strategy, fitted in on_same_runs.items():
        yield record(strategy, runs, fitted, runs_of="forecast")
    is_compared = seed % 1000 < COMPARED_WORLDS.get(candidates, 0)
    if is_compared:
        fitted = single_fit(trained, with_prior=False)
        yield record("highest likelihood", runs, fitted, runs_of="forecast")
        draws = textbook_draws(trained, (TARGET, BEYOND), count=DRAWS, seed=seed)
        yield record("scikit-learn", runs, draws, runs_of="forecast")
    knowing = true_scales(here)
    runs, _ = forecast_search(here, knowing, seed)
    yield record("true scales", runs, knowing(here.trained(runs)))
    if is_compared:
        fit = partial(single_fit, with_prior=False)
        runs, _ = forecast_search(here, fit, seed)
        yield record("highest likelihood", runs, fit(here.trained(runs)))
    yield record("promotion", *promotion(here)[::-1])
    yield record("random search", *random_search(here, seed)[::-1])


def anchored_searches_of(scenario: str, candidates: int, seed: int) -> Iterator[Search]:
    """The forecast, where the anchors are trained at all rungs, at T and 3T, or at T alone."""
    here = world(scenario, candidates, seed)
    for name, anchored in (("9T", (1, 2)), ("3T", (1,)), ("T", ())):
        runs, _ = forecast_search(here, forecast, seed, anchored=anchored)
        answer = forecast(here.trained(runs))
        strategy = f"anchors up to {name}"
        yield _record(here, strategy, runs, answer, scenario=scenario, world=seed)


def botorch_of(scenario: str, candidates: int, seed: int) -> Iterator[Search]:
    """BoTorch's process on the runs that the forecast asked for."""
    here = world(scenario, candidates, seed)
    runs, _ = forecast_search(here, forecast, seed)
    draws = botorch_draws(here.trained(runs), (TARGET, BEYOND), count=DRAWS, seed=seed)
    yield _record(here, "BoTorch", runs, draws, runs_of="forecast", scenario=scenario, world=seed)


def _record(
    here: World,
    strategy: str,
    runs: list[Run],
    answer: Forecast | list[FloatArray] | int,
    *,
    scenario: str,
    world: int,
    runs_of: str = "",
    seconds: float | None = None,
) -> Search:
    """What a strategy took and stated; an answer is a forecast, draws at 9T and 27T, or an arm."""
    truth, beyond = here.truth[:, 2], here.truth[:, 3]
    everyone = np.ones(len(truth), dtype=bool)
    stated: dict[str, float | bool | None] = {}
    if isinstance(answer, int):
        taken = answer
    else:
        if isinstance(answer, Forecast):
            stated["effective_samples"] = answer.effective_samples
            answer = [answer.draws(t, count=DRAWS, seed=world) for t in (TARGET, BEYOND)]
        near, later = (near_best(draws, everyone, TOLERANCE) for draws in answer)
        taken, taken_later = int(near.argmax()), int(later.argmax())
        low, high = np.quantile(answer[0], [0.05, 0.95], axis=0)
        stated |= {
            "stated": near[taken],
            "stated_best": best(answer[0], everyone)[taken],
            "covered": np.mean((low <= truth) & (truth <= high)),
            "half_width": np.mean(high - low) / 2,
            "stated_beyond": later[taken_later],
            "is_near_beyond": bool(beyond[taken_later] <= beyond.min() + TOLERANCE),
        }
        low, high = np.quantile(answer[1], [0.05, 0.95], axis=0)
        stated["covered_beyond"] = np.mean((low <= beyond) & (beyond <= high))
    return Search(
        scenario=scenario,
        candidates=len(truth),
        world=world,
        strategy=strategy,
        runs_of=runs_of or strategy,
        runs=len(runs),
        spent=spent(runs),
        taken=taken,
        regret=truth[taken] - truth.min(),
        spread=truth.std(),
        is_near=bool(truth[taken] <= truth.min() + TOLERANCE),
        is_best=taken == int(truth.argmin()),
        seconds=seconds,
        **stated,
    )


def run(
    search: Callable[[str, int, int], Iterator[Search]],
    path: Path,
    scenarios: list[str],
    candidates: int,
    worlds: range,
) -> None:
    """Add the worlds that the table lacks, scenario by scenario in turn."""
    done = set()
    if path.exists():
        with path.open(newline="") as file:
            done = {
                (row["scenario"], int(row["candidates"]), int(row["world"]))
                for row in csv.DictReader(file)
            }
    warnings.simplefilter("ignore", ConvergenceWarning)  # scikit-learn's, at its bounds
    for seed in worlds:
        for scenario in scenarios:
            if (scenario, candidates, seed) in done:
                continue
            rows = list(search(scenario, candidates, seed))
            with path.open("a", newline="") as file:
                names = [field.name for field in fields(Search)]
                writer = csv.DictWriter(file, names, lineterminator="\n")
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerows({k: _cell(v) for k, v in asdict(row).items()} for row in rows)


def _cell(value: object) -> object:
    if isinstance(value, bool | np.bool_):
        return int(value)
    return f"{value:.5g}" if isinstance(value, float) else value


SEARCHES = {
    "run": (searches_of, "searches.csv"),
    "anchors": (anchored_searches_of, "anchors.csv"),
    "botorch": (botorch_of, "botorch.csv"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=[*SEARCHES, "report"])
    parser.add_argument("--candidates", type=int, default=14)
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="seed of the first world")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.action == "report":
        from oracle.report import report  # matplotlib and pandas

        report(options.folder)
        return
    scenarios = options.scenario or list(SCENARIOS)
    worlds = range(options.first, options.first + options.searches)
    search, table = SEARCHES[options.action]
    run(search, options.folder / table, scenarios, options.candidates, worlds)


if __name__ == "__main__":
    main()
