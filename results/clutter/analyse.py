"""What a share of resolution does to the loss in each arm, and to the answer; see README.md.

python results/clutter/analyse.py    # prints what the README has, and draws effect.png
"""

import itertools
import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy import stats

from cmtscale.record.folder import TRIALS
from cmtscale.record.row import Row, read_rows
from cmtscale.report.frames import load_standings
from cmtscale.report.layout import BLACK, COLUMN_IN, GREY, PALE, styled
from cmtscale.search.agreement import agreement, noise_of, spread_of

HERE = Path(__file__).parent
ARMS = ("enlarged", "coarse", "cluttered")  # what pixels above 64 show: nothing, nothing, detail
FIRST_PX = 64  # the input side of twins that have no share of resolution

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One search: `cells` are the ln losses of each network's runs, `rows` its first run.

    `share_of_best` is the share of resolution that the forecast expects of the best candidate.
    """

    name: str
    rows: tuple[Row, ...]
    cells: tuple[FloatArray, ...]
    accuracies: FloatArray
    share_of_best: float

    @property
    def means(self) -> FloatArray:
        return np.array([cell.mean() for cell in self.cells])

    @property
    def counts(self) -> FloatArray:
        return np.array([len(cell) for cell in self.cells], dtype=float)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What growth by resolution alone, instead of width alone, adds to ln loss, with its 95 %.

    `at_width` is what width alone has, `residual` the standard deviation that the fit leaves.
    """

    resolution: float
    low: float
    high: float
    at_width: float
    residual: float

    def __str__(self) -> str:
        return f"{self.resolution:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def main() -> None:
    arms = read_arms(HERE)
    print_losses(arms)
    print_arms(arms)
    print_pairs(arms)
    draw(arms).savefig(HERE / "effect.png", dpi=200)


def read_arms(root: Path) -> list[Arm]:
    """The searches there are, with the networks that have complete runs in all; not the base."""
    tables = {arm: read_rows(root / arm / TRIALS) for arm in ARMS if (root / arm / TRIALS).exists()}
    runs = {
        arm: [row for row in rows if row.status == "complete" and row.role != "base"]
        for arm, rows in tables.items()
    }
    common = set.intersection(*({row.candidate for row in rows} for rows in runs.values()))
    return [read_arm(root / arm, rows, common) for arm, rows in runs.items()]


def read_arm(folder: Path, rows: Sequence[Row], names: Set[str]) -> Arm:
    """The arm in a folder; its networks are `names`, in the order of the grid."""
    ordered = [name for name in dict.fromkeys(row.candidate for row in rows) if name in names]
    own = [[row for row in rows if row.candidate == name] for name in ordered]
    standings = load_standings(folder)
    probable = standings["best"].to_numpy(float) * standings["may_win"].to_numpy(float)
    shares = standings["resolution"].to_numpy(float)
    return Arm(
        name=folder.name,
        rows=tuple(runs[0] for runs in own),
        cells=tuple(np.array([log_loss(row) for row in runs]) for runs in own),
        accuracies=np.array([np.mean([row.val_accuracy for row in runs]) for runs in own]),
        share_of_best=float(probable @ shares / probable.sum()) if len(shares) else float("nan"),
    )


def log_loss(row: Row) -> float:
    assert row.val_loss is not None  # complete runs have one
    return math.log(row.val_loss)


def effect_of_resolution(rows: Sequence[Row], values: FloatArray, weights: FloatArray) -> Effect:
    """Weighted least squares of level, depth, depth² and resolution; width alone is the level.

    The interval has in it what these terms cannot say of a network.
    """
    depth, resolution = np.array([[row.shares.depth, row.shares.resolution] for row in rows]).T
    terms = np.stack([np.ones_like(depth), depth, depth**2, resolution], axis=1)
    root = np.sqrt(weights / weights.mean())
    terms *= root[:, None]
    coefficients = np.linalg.lstsq(terms, values * root, rcond=None)[0]
    errors = values * root - terms @ coefficients
    degrees = len(values) - terms.shape[1]
    residual = float(np.sqrt(errors @ errors / degrees))
    error = residual * float(np.sqrt(np.linalg.inv(terms.T @ terms)[-1, -1]))
    reach = float(stats.t.ppf(0.975, degrees)) * error
    found = float(coefficients[-1])
    return Effect(
        resolution=found,
        low=found - reach,
        high=found + reach,
        at_width=float(coefficients[0]),
        residual=residual,
    )


def print_losses(arms: Sequence[Arm]) -> None:
    """Mean loss of each network in each arm; the lowest of the last arm first."""
    print(f"| depth/width/resolution, % | twin | {' | '.join(arm.name for arm in arms)} |")
    print("|---|---|" + "---|" * len(arms))
    for number in np.argsort(arms[-1].means):
        row = arms[0].rows[number]
        losses = " | ".join(f"{np.exp(arm.means[number]):.3f}" for arm in arms)
        print(f"| {share_label(row)} | {row.candidate} | {losses} |")
    print()


def print_arms(arms: Sequence[Arm]) -> None:
    """What each arm has learned, its noise, the effect, and the share that its answer has."""
    print(
        "| arm | accuracy | σ of a seed | spread | effect of resolution (95 %) | residual | "
        "expected share of the best |\n|---|---|---|---|---|---|---|"
    )
    for arm in arms:
        effect = effect_of_resolution(arm.rows, arm.means, arm.counts)
        print(
            f"| {arm.name} | {arm.accuracies.min():.3f} to {arm.accuracies.max():.3f} | "
            f"{noise_of(arm.cells)[0]:.3f} | {spread_of(arm.cells)[0]:.3f} | {effect} | "
            f"{effect.residual:.3f} | {arm.share_of_best:.2f} |"
        )
    print()


def print_pairs(arms: Sequence[Arm]) -> None:
    """How alike two arms rank, and how the effect moves from the one to the other."""
    print(
        "| from, to | Kendall's τ (95 %) | correlation | move of the effect (95 %) | "
        "move of the share | ln loss at 64 px |\n|---|---|---|---|---|---|"
    )
    for one, other in itertools.combinations(arms, 2):
        moves = other.means - one.means
        weights = 1 / (1 / one.counts + 1 / other.counts)
        effect = effect_of_resolution(one.rows, moves, weights)
        alike = agreement(one.cells, other.cells)
        assert alike is not None
        low, high = alike.tau_interval
        share = other.share_of_best - one.share_of_best
        at_first = moves[[row.proxy_resolution_px == FIRST_PX for row in one.rows]]
        print(
            f"| {one.name}, {other.name} | {alike.tau:.2f} ({low:.2f} to {high:.2f}) | "
            f"{alike.correlation:.2f} | {effect} | {share:+.2f} | "
            f"{at_first.mean():+.3f} ± {stats.sem(at_first):.3f} |"
        )


def share_label(row: Row) -> str:
    """`24/33/43`: depth, width and resolution in %."""
    shares = (row.shares.depth, row.shares.width, row.shares.resolution)
    return "/".join(f"{100 * share:.0f}" for share in shares)


@styled
def draw(arms: Sequence[Arm]) -> Figure:
    """Loss against the share of resolution, a panel per arm; lines are the fit without depth."""
    figure = Figure(figsize=(0.85 * COLUMN_IN * len(arms), 2.6), layout="constrained")
    axes = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for ax, arm in zip(axes, arms, strict=True):
        effect = effect_of_resolution(arm.rows, arm.means, arm.counts)
        level = arm.means.mean()
        points = ax.scatter(
            [row.shares.resolution for row in arm.rows],
            100 * np.expm1(arm.means - level),
            c=[row.shares.depth for row in arm.rows],
            vmin=0,
            vmax=1,
            s=30,
            ec=BLACK,
            lw=0.4,
            zorder=3,
        )
        ends = effect.at_width + effect.resolution * np.array([0.0, 1.0])
        ax.plot([0, 1], 100 * np.expm1(ends - level), color=GREY, lw=0.9)
        ax.axhline(0, color=PALE, lw=0.6, zorder=0)
        ax.set(xlabel="share of resolution")
        ax.set_title(f"{arm.name}, mean loss {np.exp(level):.3f}\nslope of ln loss {effect}")
    axes[0].set_ylabel("validation loss against the mean (%)")
    figure.colorbar(points, ax=axes[-1], label="share of depth")
    return figure


if __name__ == "__main__":
    main()
