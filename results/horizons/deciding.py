"""Deciding for 9T from shorter runs, and forecasting 9T and 27T, against what was trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.stats import kendalltau
from truth import BEYOND, RUNGS, TARGET, TruthTable

from cmtscale.record.row import Row
from cmtscale.search.curves import Curves, FloatArray, Values
from cmtscale.search.evidence import Evidence
from cmtscale.search.forecast import Forecast, forecast, square_root
from cmtscale.search.policy import near_best
from cmtscale.search.runs import anchors
from cmtscale.search.scales import common_noise_variance, noise_variance, scales_of

DRAWS = 4000
TRIES = 20  # draws of one seed a cell
Z90 = NormalDist().inv_cdf(0.95)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How well one way to decide for 9T does, over `tries` draws of the seeds it sees.

    `tau` is over all twins with runs at 9T; `regret` (ln loss above the best) over those that may
    be chosen, and `right` how often it is the best. `taken` are the twins it took, commonest first.
    """

    name: str
    tries: int
    tau: float
    tau_sd: float
    regret: float
    regret_sd: float
    right: float
    taken: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What runs of a twin at a horizon were forecast to show, and what they showed, in ln loss.

    `low` and `high` bound the 90 % interval of the mean of `runs` runs: of the true loss, and of
    the noises of its seeds and of the validation images. `z` is the error in standard deviations,
    `z_apart` that of the twin's distance from the mean of all: what is common drops out.
    """

    twin: int
    rung: int
    median: float
    low: float
    high: float
    measured: float
    runs: int
    z: float
    z_apart: float

    @property
    def error_in_widths(self) -> float:
        """Measured less median, in half widths of the interval."""
        return (self.measured - self.median) / ((self.high - self.low) / 2)

    @property
    def is_covered(self) -> bool:
        return self.low <= self.measured <= self.high


def run_moments(
    known: Forecast, rung: int, time: float, runs: Sequence[int]
) -> tuple[FloatArray, FloatArray]:
    """Mean (S, K) and covariance (S, K, K) of the means of so many (K,) new runs at a rung.

    The runs have the image noise of the twin's longest runs; infinitely many have that alone.
    """
    trained, cells = known.trained, known.trained.cells
    twins = len(runs)
    shares = np.zeros((twins, len(cells.arms)))
    for twin in range(twins):
        shares[twin, np.flatnonzero(cells.arms == twin)[-1]] = 1  # sorted by rung
    scales, rungs = scales_of(known.normal_scales), np.full(twins, rung)
    values = Values(
        arms=np.arange(twins),
        times=np.full(twins, time),
        images=shares,
        rungs=rungs,
        seeds=np.full(twins, -1),
    )
    mean, covariance = Curves(scales=scales, trained=trained).posterior(values)
    counts = np.array(runs)
    # twins have the first seeds in common
    common = np.minimum(counts[:, None], counts) / (counts[:, None] * counts)
    covariance += common_noise_variance(scales, rungs)[:, :, None] * common
    covariance += noise_variance(scales, rungs)[:, :, None] * np.diag(1 / counts)
    return mean, covariance


def run_draws(
    known: Forecast, rung: int, time: float, runs: Sequence[int], *, seed: int = 0
) -> FloatArray:
    """(DRAWS, K): joint draws of what `run_moments` describes."""
    mean, covariance = run_moments(known, rung, time, runs)
    sets, twins = mean.shape
    random = np.random.default_rng(seed)
    normal = random.standard_normal((sets, -(-DRAWS // sets), twins))
    draws: FloatArray = mean[:, None] + normal @ square_root(covariance).transpose(0, 2, 1)
    return draws.transpose(1, 0, 2).reshape(-1, twins)[:DRAWS]


def predict(
    table: TruthTable, evidence: Evidence, rung: int, measured: Sequence[FloatArray]
) -> list[Predicted]:
    """The forecast of a rung for the twins that have measured ln losses there (K cells)."""
    assert evidence.trained is not None
    known = forecast(evidence.trained)
    seen = table.long_settings.images_seen[rung]
    time = evidence.time(seen)
    draws = run_draws(known, rung, time, [max(1, len(cell)) for cell in measured])
    low, median, high = np.quantile(draws, [0.05, 0.5, 0.95], axis=0)
    twins = [twin for twin, cell in enumerate(measured) if len(cell)]
    means = np.array([measured[twin].mean() for twin in twins])
    own = draws[:, twins]
    apart = own - own.mean(axis=1, keepdims=True)
    z = (means - own.mean(axis=0)) / own.std(axis=0)
    z_apart = (means - means.mean() - apart.mean(axis=0)) / np.maximum(apart.std(axis=0), 1e-12)
    return [
        Predicted(
            twin=twin,
            rung=rung,
            median=float(median[twin]),
            low=float(low[twin]),
            high=float(high[twin]),
            measured=float(means[place]),
            runs=len(measured[twin]),
            z=float(z[place]),
            z_apart=float(z_apart[place]),
        )
        for place, twin in enumerate(twins)
    ]


def up_to(table: TruthTable, last_rung: int) -> list[Row]:
    """All runs of the table at the rungs to this one."""
    return [
        row
        for twin in range(len(table.twins))
        for rung in range(last_rung + 1)
        for row in table.cell(twin, rung)
    ]


def anchor_numbers(table: TruthTable) -> list[int]:
    """Which twins a search trains at all rungs."""
    return [table.twins.index(anchor) for anchor in anchors(table.twins)]


def decisions(table: TruthTable) -> list[Decision]:
    """Every way to decide for 9T, against the means of all its runs there."""
    truth = table.means(TARGET)
    candidates = table.eligible & np.isfinite(truth)
    random = np.random.default_rng(0)
    first, second = (table.log_losses(rung) for rung in (0, 1))

    def judged(name: str, predict_once: Callable[[], FloatArray], tries: int) -> Decision:
        taus, regrets, taken = [], [], []
        for _ in range(tries):
            predicted = predict_once()
            both = np.isfinite(predicted) & np.isfinite(truth)
            taus.append(float(kendalltau(predicted[both], truth[both]).statistic))
            choice = int(np.nanargmin(np.where(candidates, predicted, np.nan)))
            taken.append(choice)
            regrets.append(truth[choice] - truth[candidates].min())
        names, counts = np.unique(taken, return_counts=True)
        return Decision(
            name=name,
            tries=tries,
            tau=float(np.mean(taus)),
            tau_sd=float(np.std(taus)),
            regret=float(np.mean(regrets)),
            regret_sd=float(np.std(regrets)),
            right=float(np.mean(np.array(regrets) == 0)),
            taken=tuple(int(twin) for twin in names[np.argsort(-counts, kind="stable")]),
        )

    def one(cells: list[FloatArray]) -> FloatArray:
        return np.array([random.choice(cell) if len(cell) else np.nan for cell in cells])

    def forecast_of(rows: list[Row]) -> FloatArray:
        trained = table.evidence(rows).trained
        assert trained is not None
        mean, _ = forecast(trained).moments(2.0)
        return mean.mean(axis=0)[: len(table.twins)]

    def one_seed_rows() -> list[Row]:
        """One run a cell at T and 3T, and all replicates that the anchors have at T."""
        rows = [
            table.cell(twin, rung)[random.integers(table.seeds(rung)[twin])]
            for twin in range(len(table.twins))
            for rung in (0, 1)
        ]
        replicates = [row for twin in anchor_numbers(table) for row in table.cell(twin, 0)]
        return list({row.run_id: row for row in [*rows, *replicates]}.values())

    many = 10 * TRIES
    ways: list[tuple[str, Callable[[], FloatArray], int]] = [
        ("T, one seed", lambda: one(first), many),
        ("T, all seeds", lambda: table.means(0), 1),
        ("3T, one seed", lambda: one(second), many),
        ("3T, all seeds", lambda: table.means(1), 1),
        ("line through T and 3T, one seed", lambda: _line(one(first), one(second)), many),
        ("line, all seeds", lambda: _line(table.means(0), table.means(1)), 1),
    ]
    if (table.seeds(0) > 1).any():
        ways += [
            ("forecast from T and 3T, one seed", lambda: forecast_of(one_seed_rows()), TRIES),
            ("forecast, all seeds", lambda: forecast_of(up_to(table, 1)), 1),
        ]
    if (table.seeds(TARGET) > 1).any():
        ways.append(("9T itself, one seed", lambda: one(table.log_losses(TARGET)), many))
    return [judged(*way) for way in ways]


def _line(at_first: FloatArray, at_second: FloatArray) -> FloatArray:
    """ln loss at 9T on the straight line over ln images."""
    return 2 * at_second - at_first


def print_deciding(table: TruthTable) -> None:
    """The tables of the README's second and third section."""
    truth = table.means(TARGET)
    if not np.isfinite(truth).any():
        print("No runs at 9T yet.\n")
        return
    candidates = table.eligible & np.isfinite(truth)
    spread = float(np.std(truth[candidates], ddof=1)) if candidates.sum() > 1 else float("nan")
    by_lot = np.expm1(truth[candidates] - truth[candidates].min()).mean()
    print(
        f"## Deciding for 9T: {candidates.sum()} twins that may be chosen, spread {spread:.4f}; "
        f"a twin drawn by lot: {100 * by_lot:.1f} %\n"
    )
    print("| by | draws | τ with 9T | regret, % of the loss | in spreads | best taken | takes |")
    print("|---|---|---|---|---|---|---|")
    for d in decisions(table):
        print(
            f"| {d.name} | {d.tries} | {d.tau:.2f}{_sd(d.tau_sd, d.tries)} | "
            f"{100 * np.expm1(d.regret):.1f}{_sd(100 * d.regret_sd, d.tries, 1)} | "
            f"{d.regret / spread:.2f} | {d.right:.2f} | "
            f"{', '.join(table.twins[twin].name for twin in d.taken[:3])} |"
        )
    print()
    for last, rung in ((1, TARGET), (TARGET, BEYOND), (1, BEYOND)):
        measured = table.log_losses(rung)
        evidence = table.evidence(up_to(table, last))
        if evidence.trained is None or not any(map(len, measured)):
            continue
        predicted = predict(table, evidence, rung, measured)
        print(f"## {RUNGS[rung]} forecast from all runs up to {RUNGS[last]}\n")
        print(
            "| twin | forecast loss, 90 % interval | measured (runs) | error | in half widths | "
            "z | z apart |"
        )
        print("|---|---|---|---|---|---|---|")
        for p in predicted:
            print(
                f"| {table.twins[p.twin].name} | {np.exp(p.median):.3f}, {np.exp(p.low):.3f} to "
                f"{np.exp(p.high):.3f} | {np.exp(p.measured):.3f} ({p.runs}) | "
                f"{100 * np.expm1(p.measured - p.median):+.1f} % | "
                f"{p.error_in_widths:+.2f} | {p.z:+.2f} | {p.z_apart:+.2f} |"
            )
        apart = np.array([p.z_apart for p in predicted])
        errors = np.array([p.measured - p.median for p in predicted])
        print(
            f"\n{sum(p.is_covered for p in predicted)} of {len(predicted)} inside; apart from the "
            f"common error {sum(abs(apart) <= Z90)} within ±{Z90:.2f}, mean square "
            f"{np.mean(apart**2):.2f}; mean error {errors.mean():+.3f} in ln loss, sd "
            f"{errors.std(ddof=1) if len(errors) > 1 else 0:.3f}\n"
        )
    print_scales(table)


def _sd(value: float, tries: int, digits: int = 2) -> str:
    return f" ± {value:.{digits}f}" if tries > 1 else ""


def print_scales(table: TruthTable) -> None:
    """The forecast's scales: their priors, and what all runs up to 9T make of them."""
    evidence = table.evidence(up_to(table, TARGET))
    if evidence.trained is None:
        return
    known = forecast(evidence.trained)
    print(f"## Scales of the forecast ({known.effective_samples:.0f} effective samples)\n")
    print("| scale | prior: median (5 to 95 %) | after all runs: median (5 to 95 %) |")
    print("|---|---|---|")
    prior_normal = np.repeat([[-Z90], [0.0], [Z90]], known.normal_scales.shape[1], axis=1)
    prior, after = scales_of(prior_normal), scales_of(known.normal_scales)
    for name in vars(prior):
        low, middle, high = np.sort(getattr(prior, name))
        quantiles = np.quantile(getattr(after, name), [0.05, 0.5, 0.95])
        print(
            f"| {name} | {middle:.3f} ({low:.3f} to {high:.3f}) | {quantiles[1]:.3f} "
            f"({quantiles[0]:.3f} to {quantiles[2]:.3f}) |"
        )
    draws = known.draws(2.0, count=DRAWS, seed=0)[:, : len(table.twins)]
    near = near_best(draws, table.eligible, table.settings.tolerance)
    order = [int(twin) for twin in np.argsort(-near) if near[twin] >= 0.01]
    named = ", ".join(f"{table.twins[twin].name} {near[twin]:.2f}" for twin in order)
    print(f"\nAll runs up to 9T: within 1 % of the best at 9T with p: {named}\n")
