"""Syne Tune's ASHA, BOHB and ASHA-CQR through its simulator, on the table of horizons.

    python3.11 -m venv ../syne-tune
    ../syne-tune/bin/pip install syne-tune==0.16.0 huggingface_hub fastparquet
    ../syne-tune/bin/python results/horizons/with_syne_tune.py [--searches 25]

The simulator imports the last two; nothing is downloaded. Reads `runs.csv`, which `analyse.py`
writes, and writes `syne_tune.csv`; run `analyse.py` again to see it beside the rest. A
configuration is a point of the triangle of shares, as cmtscale's samplers draw them; it trains the
nearest twin that may be chosen. Every method begins with each twin's own point, in random order,
and goes on as it likes; another trial of a twin is another seed while the table has one, then the
first again. Schedules are independent, so a trial that goes on from T to 3T and 9T is charged all
three. One worker: what a search takes is the sum of its trials. A search takes the twin with the
lowest mean loss at the longest horizon that any trial reached.
"""

import argparse
import contextlib
import csv
import io
import logging
import math
import os
import tempfile
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("SYNETUNE_FOLDER", tempfile.mkdtemp())  # what tuners write is not kept

from syne_tune import StoppingCriterion, Tuner
from syne_tune.backend.simulator_backend.simulator_callback import SimulatorCallback
from syne_tune.blackbox_repository.blackbox import Blackbox
from syne_tune.blackbox_repository.simulated_tabular_backend import UserBlackboxBackend
from syne_tune.config_space import randint, uniform
from syne_tune.constants import ST_TRIAL_ID, ST_TUNER_TIME
from syne_tune.optimizer.baselines import ASHA, ASHACQR, BOHB

HERE = Path(__file__).parent
HORIZONS = (1, 3, 9)  # in T images
SHARE = 0.3  # of the cost of all twins at 9T with three seeds, as in cmtscale.search.ladder
METHODS = {"ASHA": ASHA, "BOHB": BOHB, "ASHA-CQR": ASHACQR}
SPACE = {"u": uniform(0.0, 1.0), "v": uniform(0.0, 1.0)}  # as in cmtscale.search.points


@dataclass(frozen=True, kw_only=True)
class Runs:
    """`losses[twin][rung]` are ln losses by seed, `seconds[twin][rung]` what one run is charged."""

    shares: dict[str, tuple[float, ...]]
    losses: dict[str, dict[int, list[float]]]
    seconds: dict[str, dict[int, float]]
    allowance: float


def read_runs(path: Path) -> Runs:
    """The twins that may be chosen; the allowance is of all twins, as the search's is."""
    shares: dict[str, tuple[float, ...]] = {}
    losses: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, dict[int, float]] = defaultdict(dict)
    at_target: dict[str, float] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            twin, rung = row["twin"], int(row["rung"])
            seconds[twin][rung] = float(row["seconds"])
            at_target[twin] = float(row["seconds_at_9T"])
            if row["may_be_chosen"] == "True":
                shares[twin] = tuple(float(row[n]) for n in ("depth", "width", "resolution"))
                losses[twin][rung].append(float(row["ln_loss"]))
    allowance = SHARE * 3 * sum(at_target.values())
    return Runs(shares=shares, losses=losses, seconds=seconds, allowance=allowance)


class NearestTwin(Blackbox):
    """The table over the triangle of shares: every point is the twin nearest to it."""

    def __init__(self, runs: Runs, seed: int) -> None:
        super().__init__(
            configuration_space=SPACE,
            fidelity_space={"images": randint(1, HORIZONS[-1])},
            objectives_names=["ln_loss", "elapsed_time"],
        )
        self.runs = runs
        random = np.random.default_rng(seed)
        self.orders = {
            (twin, rung): random.permutation(len(runs.losses[twin][rung]))
            for twin in runs.shares
            for rung in range(len(HORIZONS))
        }
        self.met: list[str] = []

    @property
    def fidelity_values(self) -> np.ndarray:
        return np.array(HORIZONS)

    def twin(self, configuration: dict[str, Any]) -> str:
        root = math.sqrt(configuration["u"])
        shares = (1 - root, root * (1 - configuration["v"]), root * configuration["v"])
        return min(self.runs.shares, key=lambda twin: math.dist(self.runs.shares[twin], shares))

    def _objective_function(
        self,
        configuration: dict[str, Any],
        fidelity: dict[str, Any] | None = None,
        seed: int | None = None,  # noqa: ARG002, the order of seeds is the search's own
    ) -> np.ndarray:
        assert fidelity is None
        twin = self.twin(configuration)
        number = self.met.count(twin)
        self.met.append(twin)
        losses = [self.loss(twin, rung, number) for rung in range(len(HORIZONS))]
        times = np.cumsum([self.runs.seconds[twin][rung] for rung in range(len(HORIZONS))])
        return np.array([losses, times]).T

    def loss(self, twin: str, rung: int, number: int) -> float:
        values, order = self.runs.losses[twin][rung], self.orders[twin, rung]
        return values[order[number % len(order)]]

    def hyperparameter_objectives_values(self, predict_curves: bool = False) -> Any:
        raise NotImplementedError


def point_of(shares: tuple[float, ...]) -> dict[str, float]:
    """The point of `SPACE` of depth, width and resolution shares; as in cmtscale.search.points."""
    root = 1 - shares[0]
    rest = shares[1] + shares[2]
    return {"u": root**2, "v": shares[2] / rest if rest > 0 else 0.5}


def search(method: str, runs: Runs, seed: int) -> dict[str, object]:
    """One search: the twin that it takes, and what it spent."""
    blackbox = NearestTwin(runs, seed)
    np.random.seed(seed)  # Syne Tune draws brackets from the global state
    points = [point_of(shares) for shares in runs.shares.values()]
    order = np.random.default_rng(seed).permutation(len(points))
    scheduler = METHODS[method](
        config_space=SPACE,
        metric="ln_loss",
        do_minimize=True,
        time_attr="images",
        max_t=HORIZONS[-1],
        grace_period=1,
        reduction_factor=3,
        random_seed=seed,
        points_to_evaluate=[points[i] for i in order],
    )
    backend = UserBlackboxBackend(blackbox=blackbox, elapsed_time_attr="elapsed_time")
    recorder = SimulatorCallback()
    tuner = Tuner(
        trial_backend=backend,
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_wallclock_time=runs.allowance),
        n_workers=1,
        sleep_time=0,
        callbacks=[recorder],
        save_tuner=False,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        tuner.run()
    reached: dict[int, int] = {}
    for result in recorder.results:
        if result[ST_TUNER_TIME] <= runs.allowance:
            trial = int(result[ST_TRIAL_ID])
            reached[trial] = max(reached.get(trial, 0), int(result["images"]))
    return judge(blackbox, reached)


def judge(blackbox: NearestTwin, reached: dict[int, int]) -> dict[str, object]:
    """What is taken, from the longest horizon that each trial reached, in the order of trials."""
    spent, losses = 0.0, defaultdict(lambda: defaultdict(list))
    for trial, images in sorted(reached.items()):
        twin = blackbox.met[trial]
        number = blackbox.met[:trial].count(twin)
        for rung in range(HORIZONS.index(images) + 1):
            spent += blackbox.runs.seconds[twin][rung]
            losses[rung][twin].append(blackbox.loss(twin, rung, number))
    longest = losses[max(losses)]
    taken = min(longest, key=lambda twin: np.mean(longest[twin]))
    return {
        "taken": taken,
        "seconds": round(spent, 1),
        "trials": len(reached),
        "runs_at_target": sum(images == HORIZONS[-1] for images in reached.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--searches", type=int, default=25)
    parser.add_argument("--folder", type=Path, default=HERE)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # pandas announces another default
    runs = read_runs(args.folder / "runs.csv")
    with (args.folder / "syne_tune.csv").open("w", newline="", encoding="utf-8") as file:
        columns = ("method", "search", "taken", "seconds", "trials", "runs_at_target")
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for seed in range(args.searches):
            for method in METHODS:
                writer.writerow({"method": method, "search": seed, **search(method, runs, seed)})
            file.flush()


if __name__ == "__main__":
    main()
