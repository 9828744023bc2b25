"""How much the ranking of the twins moves between horizons, beside the noise."""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, kendalltau
from truth import RUNGS, TARGET, TruthTable

from cmtscale.search.agreement import agreement, noise_of, spread_of


@dataclass(frozen=True, kw_only=True)
class Rung:
    """The twins at one horizon, in ln loss.

    `noise` is the standard deviation of one run between seeds, pooled over twins with two or more
    (`degrees` of freedom, 90 % interval `noise_low` to `noise_high`; nan without); `spread` that of
    the twins' means, `true_spread` with the noise taken out of it.
    """

    rung: int
    twins: int
    runs: int
    noise: float
    degrees: int
    noise_low: float
    noise_high: float
    spread: float
    true_spread: float


def describe(table: TruthTable, rung: int) -> Rung:
    """The twins at one rung."""
    cells = [cell for cell in table.log_losses(rung) if len(cell)]
    noise, degrees = noise_of(cells)
    low, high = (
        noise * np.sqrt(degrees / chi2.ppf([0.95, 0.05], degrees)) if degrees else (noise,) * 2
    )
    spread, true_spread = spread_of(cells)
    return Rung(
        rung=rung,
        twins=len(cells),
        runs=sum(map(len, cells)),
        noise=noise,
        degrees=degrees,
        noise_low=float(low),
        noise_high=float(high),
        spread=spread,
        true_spread=true_spread,
    )


def seed_in_common(table: TruthTable, rung: int) -> tuple[float, float, int] | None:
    """What the second seed adds to ln loss in the mean of all twins, its error, and the twins.

    Twins of one seed see the same images in the same order. None with fewer than four twins.
    """
    cells = [cell for cell in table.log_losses(rung) if len(cell) > 1]
    if len(cells) < 4:
        return None
    steps = np.array([cell[1] - cell[0] for cell in cells])
    return float(steps.mean()), float(steps.std(ddof=1) / np.sqrt(len(steps))), len(steps)


def print_without_depth(table: TruthTable) -> None:
    """What remains without the depth corner, which is far from all others; how curves bend."""
    roles = np.array([twin.role for twin in table.twins])
    means = np.array([table.means(rung) for rung in range(TARGET + 1)])
    present = np.isfinite(means).all(axis=0)
    kept = present & (roles != "depth")
    if kept.sum() < 4:
        return
    print("Without depth only:")
    for first, second in itertools.combinations(range(TARGET + 1), 2):
        tau = kendalltau(means[first, kept], means[second, kept]).statistic
        print(f"τ of {RUNGS[first]} and {RUNGS[second]}: {tau:.2f}")
    spread = means[TARGET, kept & table.eligible].std(ddof=1)
    print(f"spread at 9T of those that may be chosen: {spread:.3f}")
    second_differences = (means[2] - 2 * means[1] + means[0])[present]
    depths = np.array([twin.shares.depth for twin in table.twins])[present]
    correlation = np.corrcoef(depths, second_differences)[0, 1]
    print(f"second differences (all twins): {np.round(second_differences, 3).tolist()}")
    print(f"their correlation with the share of depth: {correlation:.2f}\n")


def winners(table: TruthTable, rung: int) -> list[int]:
    """The eligible twins that have runs at a rung, the lowest mean loss first."""
    means = np.where(table.eligible, table.means(rung), np.nan)
    return [int(twin) for twin in np.argsort(means) if np.isfinite(means[twin])]


def print_drift(table: TruthTable) -> None:
    """The tables of the README's first section."""
    print("## Twins and rungs: mean loss (seeds)\n")
    print("| twin | depth/width/resolution | " + " | ".join(RUNGS) + " |")
    print("|---|---|" + "---|" * len(RUNGS))
    order = np.argsort(np.nan_to_num(table.means(TARGET), nan=9.0), kind="stable")
    best = [winners(table, rung)[:1] for rung in range(len(RUNGS))]
    for twin in order:
        candidate = table.twins[twin]
        shares = (candidate.shares.depth, candidate.shares.width, candidate.shares.resolution)
        cells = []
        for rung in range(len(RUNGS)):
            values = table.log_losses(rung)[twin]
            text = f"{np.exp(values.mean()):.3f}" if len(values) else "–"
            text = f"**{text}**" if [twin] == best[rung] else text
            cells.append(f"{text} ({len(values)})" if len(values) else text)
        label = "/".join(f"{100 * share:.0f}" for share in shares)
        role = "" if candidate.role == "compound" else f", {candidate.role} only"
        over = "" if table.eligible[twin] else ", not on the budget"
        print(f"| {candidate.name}{role}{over} | {label} | " + " | ".join(cells) + " |")
    print("\n## Noise and spread of ln loss\n")
    print(
        "| | twins | runs | σ of seeds (90 %), degrees | spread | without noise | σ/spread | "
        "second seed less first, mean of twins |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for rung, name in enumerate(RUNGS):
        if (table.seeds(rung) > 0).sum() < 2:
            continue
        r = describe(table, rung)
        noise = (
            f"{r.noise:.4f} ({r.noise_low:.4f} to {r.noise_high:.4f}), {r.degrees} | "
            f"{r.spread:.4f} | {r.true_spread:.4f} | {r.noise / r.true_spread:.2f}"
            if r.degrees and r.true_spread
            else f"– | {r.spread:.4f} | – | –"
        )
        common = seed_in_common(table, rung)
        shared = f"{common[0]:+.4f} ± {common[1]:.4f} ({common[2]})" if common else "–"
        print(f"| {name} | {r.twins} | {r.runs} | {noise} | {shared} |")
    print("\n## Agreement between horizons\n")
    print("| | twins | correlation | without noise | Kendall's τ |")
    print("|---|---|---|---|---|")
    for first, second in itertools.combinations(range(len(RUNGS)), 2):
        a = agreement(table.log_losses(first), table.log_losses(second))
        if a is not None:
            print(
                f"| {RUNGS[first]}, {RUNGS[second]} | {a.networks} | "
                f"{_cell(a.correlation, a.correlation_interval)} | "
                f"{_cell(a.corrected, a.corrected_interval)} | {_cell(a.tau, a.tau_interval)} |"
            )
    print()
    print_without_depth(table)
    print("## Falls of ln loss from rung to rung (mean, sd over twins), and curvature\n")
    steps = [table.means(rung + 1) - table.means(rung) for rung in range(len(RUNGS) - 1)]
    for rung, step in enumerate(steps):
        if np.isfinite(step).sum() > 1:
            values = step[np.isfinite(step)]
            print(
                f"{RUNGS[rung]} to {RUNGS[rung + 1]}: {values.mean():+.3f} "
                f"(sd {values.std(ddof=1):.3f}, n {len(values)})"
            )
    for rung in range(len(steps) - 1):
        values = steps[rung + 1] - steps[rung]
        present = np.isfinite(values)
        values = values[present]
        if len(values) > 1:
            weights = np.array([1.0, 4.0, 1.0])
            noises = [noise_of(table.log_losses(rung + step))[0] for step in range(3)]
            seeds = np.array([table.seeds(rung + step)[present] for step in range(3)])
            by_noise = np.sqrt((weights * np.square(noises) @ (1 / seeds)).mean())
            by_seeds = f", of which seeds {by_noise:.3f}" if np.isfinite(by_noise) else ""
            print(
                f"second difference at {RUNGS[rung + 1]}: {values.mean():+.3f} "
                f"(sd {values.std(ddof=1):.3f}{by_seeds}; n {len(values)})"
            )
    print()


def _cell(value: float, interval: tuple[float, float]) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"
