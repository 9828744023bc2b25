"""What the table of horizons says: drift, deciding early, forecasts, and the search replayed.

    python results/horizons/analyse.py [--replays 100]    # prints what the README has

Reads `table/`; writes `ranking.csv`, `replays.csv`, `runs.csv`
(for `with_syne_tune.py`) and the figures. What `with_syne_tune.py` left is put beside the replays.
"""

import argparse
import csv
from pathlib import Path

import figures
import numpy as np
from deciding import print_deciding
from drift import print_drift
from misfit import print_misfit
from replay import (
    Part,
    Spending,
    judged_twins,
    parts,
    regret_by_all_runs,
    replays,
    shuffled,
    spread_at_target,
    summary,
)
from truth import RUNGS, TARGET, TruthTable, read_truth

from cmtscale.search.curves import FloatArray

HERE = Path(__file__).parent
SYNE_TUNE = "syne_tune.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE, help="with the table")
    parser.add_argument("--replays", type=int, default=100)
    parser.add_argument("--no-replays", action="store_true")
    args = parser.parse_args()
    table = read_truth(args.folder)
    print(f"{len(table.rows)} runs of {len(table.twins)} twins\n")
    write_ranking(table, args.folder / "ranking.csv")
    write_runs(table, args.folder / "runs.csv")
    print_drift(table)
    print_deciding(table)
    for name, draw in (("curves", figures.curves), ("ranks", figures.ranks)):
        figures.save(draw(table), args.folder / f"{name}.png")
    if (table.seeds(0) < 2).all() or not judged_twins(table).any():
        print("A replay needs two seeds of some twin at T, and runs at 9T.")
    elif not args.no_replays:
        print_replays(table, args.folder, args.replays)
        print_parts(table)
        print_misfit(table)


def write_ranking(table: TruthTable, path: Path) -> None:
    """Mean ln loss and the number of seeds of each twin at each rung."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [f"{what}_{name}" for name in RUNGS for what in ("mean_ln_loss", "seeds")]
        writer.writerow(["twin", "role", "on_budget", "depth", "width", "resolution", *columns])
        for number, twin in enumerate(table.twins):
            cells: list[object] = []
            for rung in range(len(RUNGS)):
                values = table.log_losses(rung)[number]
                cells += [f"{values.mean():.5f}" if len(values) else "", len(values)]
            shares = (twin.shares.depth, twin.shares.width, twin.shares.resolution)
            shown = [f"{share:.4f}" for share in shares]
            writer.writerow([twin.name, twin.role, twin.on_budget, *shown, *cells])


def write_runs(table: TruthTable, path: Path) -> None:
    """The runs that searches are replayed on, and what each is charged."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = ("twin", "may_be_chosen", "depth", "width", "resolution", "rung", "replicate")
        writer.writerow([*names, "ln_loss", "seconds", "seconds_at_9T"])
        for number, twin in enumerate(table.twins):
            shares = (twin.shares.depth, twin.shares.width, twin.shares.resolution)
            shown = [f"{share:.4f}" for share in shares]
            head = [twin.name, bool(judged_twins(table)[number]), *shown]
            at_target = f"{table.seconds[number, TARGET]:.2f}"
            for rung in range(TARGET + 1):
                charged = f"{table.seconds[number, rung]:.2f}"
                for replicate, loss in enumerate(table.log_losses(rung)[number]):
                    writer.writerow([*head, rung, replicate, f"{loss:.6f}", charged, at_target])


def print_replays(table: TruthTable, folder: Path, count: int) -> None:
    """Every strategy's cost and regret; also into `replays.csv`."""
    eligible = judged_twins(table)
    truth = table.means(TARGET)[eligible]
    by_lot = float(np.mean(truth - truth.min()))
    spread = spread_at_target(table)
    minutes = Spending(table, shuffled(table, 0)).allowance / 60
    print(
        f"## The search replayed: {eligible.sum()} twins that may be chosen, {count} orders of the "
        f"seeds, {minutes:.0f} min; by lot {100 * np.expm1(by_lot):.1f} % = "
        f"{by_lot / spread:.2f} spreads, spread {spread:.4f}\n"
    )
    expected = regret_by_all_runs(table)
    done = replays(table, count)
    rows = [summary(table, name, found, expected) for name, found in done.items()]
    if (folder / SYNE_TUNE).exists():
        rows += from_syne_tune(table, folder / SYNE_TUNE, expected)
    with (folder / "replays.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _csv_cell(v) for k, v in row.items()} for row in rows)
    shown = [name for name in rows[0] if name != "strategy"]
    print("| strategy | " + " | ".join(shown) + " |")
    print("|---|" + "---|" * len(shown))
    for row in rows:
        print(f"| {row['strategy']} | " + " | ".join(_cell(row.get(n)) for n in shown) + " |")
    print()


def from_syne_tune(table: TruthTable, path: Path, expected: FloatArray) -> list[dict[str, object]]:
    """What `with_syne_tune.py` took, judged by the same truth."""
    truth = table.means(TARGET)
    best = truth[judged_twins(table)].min()
    names = [twin.name for twin in table.twins]
    whole = Spending(table, shuffled(table, 0)).whole
    with path.open(newline="") as file:
        searches = list(csv.DictReader(file))
    rows: list[dict[str, object]] = []
    for method in dict.fromkeys(search["method"] for search in searches):
        own = [search for search in searches if search["method"] == method]
        taken = [names.index(search["taken"]) for search in own]
        regrets = np.array([truth[twin] - best for twin in taken])
        twins, counts = np.unique(taken, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        rows.append(
            {
                "strategy": method,
                "replays": len(own),
                "share": float(np.mean([float(s["seconds"]) for s in own])) / whole,
                "regret_percent": float(100 * np.expm1(regrets).mean()),
                "regret_spreads": float(regrets.mean() / spread_at_target(table)),
                "regret_by_all_runs": float(100 * expected[taken].mean()),
                "is_near": float(np.mean(regrets <= table.settings.tolerance)),
                "runs_at_target": float(np.mean([float(s["runs_at_target"]) for s in own])),
                "taken": ", ".join(
                    f"{names[twins[i]]} {counts[i] / len(own):.2f}" for i in order[:3]
                ),
            }
        )
    return rows


def print_parts(table: TruthTable) -> None:
    """Five disjoint parts of the validation images, beside all of them."""
    whole, pieces = parts(table)

    def describe(part: Part) -> str:
        names = [table.twins[twin].name for twin in part.near_set]
        cells = (", ".join(names), table.twins[part.taken].name, f"{part.stated:.2f}")
        return " | ".join((*cells, table.twins[part.lowest].name, table.twins[part.searched].name))

    print("## Five disjoint parts of the validation images\n")
    print("| images | set | taken | probability | lowest mean at 9T | a search takes |")
    print("|---|---|---|---|---|---|")
    print(f"| all | {describe(whole)} |")
    for number, part in enumerate(pieces):
        print(f"| part {number + 1} | {describe(part)} |")
    same_set = sum(set(part.near_set) == set(whole.near_set) for part in pieces)
    same = sum(part.taken == whole.taken for part in pieces)
    lowest = sum(part.lowest == whole.lowest for part in pieces)
    searched = sum(part.searched == whole.searched for part in pieces)
    print(f"\nsame set {same_set}, taken {same}, lowest {lowest}, searched {searched} of 5\n")


def _csv_cell(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
