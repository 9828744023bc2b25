"""The search replayed on the table: its policy, and other ways to spend the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from deciding import DRAWS, anchor_numbers, run_draws, up_to
from truth import TARGET, TruthTable

from cmtscale.arch.lattice import nearest
from cmtscale.arch.scaling import Scaling
from cmtscale.record.row import Row
from cmtscale.search.curves import FloatArray
from cmtscale.search.evidence import Evidence
from cmtscale.search.forecast import Forecast, forecast
from cmtscale.search.ladder import REFERENCE_SEEDS, SURE
from cmtscale.search.policy import near_best, next_runs

Cell = tuple[int, int]  # twin, rung


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """The runs of each cell in the order in which a replayed search meets them."""

    runs: dict[Cell, list[Row]]

    def has(self, cell: Cell, number: int) -> bool:
        return number < len(self.runs[cell])


def shuffled(table: TruthTable, seed: int) -> Seeds:
    """The table's runs, the seeds of each cell in random order."""
    random = np.random.default_rng(seed)
    runs = {}
    for twin in range(len(table.twins)):
        for rung in range(TARGET + 1):
            cell = table.cell(twin, rung)
            runs[twin, rung] = [cell[i] for i in random.permutation(len(cell))]
    return Seeds(runs=runs)


class Spending:
    """One replayed search: the runs it has met, and what they cost."""

    def __init__(self, table: TruthTable, seeds: Seeds) -> None:
        self.table = table
        self.seeds = seeds
        self.cells: list[Cell] = []
        self.whole = REFERENCE_SEEDS * float(table.seconds[:, TARGET].sum())
        self.allowance = table.settings.ladder.spend * self.whole

    @property
    def spent(self) -> float:
        return float(sum(self.table.seconds[cell] for cell in self.cells))

    @property
    def share(self) -> float:
        """Of what all twins at 9T with three seeds would cost."""
        return self.spent / self.whole

    @property
    def rows(self) -> list[Row]:
        count: dict[Cell, int] = {}
        rows = []
        for cell in self.cells:
            rows.append(self.seeds.runs[cell][count.get(cell, 0)])
            count[cell] = count.get(cell, 0) + 1
        return rows

    def can_train(self, cell: Cell) -> bool:
        """The table has one more run of the cell, and the allowance suffices."""
        return (
            self.seeds.has(cell, self.cells.count(cell))
            and self.spent + self.table.seconds[cell] <= self.allowance
        )

    def train(self, cell: Cell) -> bool:
        """Train one more run of a cell, if that can be."""
        if possible := self.can_train(cell):
            self.cells.append(cell)
        return possible

    def mean(self, cell: Cell) -> float:
        """Mean ln loss of the cell's runs that were met."""
        runs = self.seeds.runs[cell][: self.cells.count(cell)]
        return float(np.mean([np.log(row.val_loss) for row in runs]))


@dataclass(frozen=True, kw_only=True)
class Replay:
    """One replayed search, judged by the means of all runs at 9T.

    `stated` is the probability of being within 1 % of the best that the search gives the twin it
    takes, and `is_near` whether it is. `stated_held_out` and `is_near_held_out` are the same of
    means of runs at 9T that the search did not meet, with their noise, among twins that have some.
    `covered` of `judged` 90 % intervals hold such means. None where a strategy states nothing.
    """

    strategy: str
    taken: int
    regret: float
    is_near: bool
    share: float
    stated: float | None = None
    near_set: tuple[int, ...] = ()
    stated_held_out: float | None = None
    is_near_held_out: bool | None = None
    covered: int | None = None
    judged: int | None = None
    runs_at_target: int | None = None


def policy_search(table: TruthTable, seeds: Seeds, seed: int) -> tuple[Spending, Forecast]:
    """The tool's own: first rung, anchors with replicates and at all rungs, then the forecast's."""
    ladder = table.settings.ladder
    search = Spending(table, seeds)
    twins, steady = range(len(table.twins)), anchor_numbers(table)
    for twin in twins:
        search.train((twin, 0))
    for extra in range(ladder.noise_degrees):
        search.train((steady[extra % len(steady)], 0))
    for rung in range(TARGET, 0, -1):
        for twin in steady:
            search.train((twin, rung))
    while True:
        evidence = table.evidence(search.rows)
        assert evidence.trained is not None, "the table has one seed of every cell"
        known = forecast(evidence.trained, seed=table.settings.seed)
        eligible = np.append(judged_twins(table), False)  # the paper's constants come last
        draws = known.draws(evidence.times[-1], count=DRAWS, seed=table.settings.seed)
        if near_best(draws, eligible, table.settings.tolerance).max() >= ladder.enough:
            return search, known
        seconds = np.full((len(table.twins) + 1, TARGET + 1), np.inf)
        for cell in seeds.runs:
            if search.can_train(cell):
                seconds[cell] = table.seconds[cell]
        if not np.isfinite(seconds).any():
            return search, known
        named = next_runs(
            known,
            target=evidence.times[-1],
            times=evidence.times,
            eligible=eligible,
            seconds=seconds,
            size=ladder.batch,
            seed=seed + len(search.cells),
        )
        if not [cell for cell in named if search.train(cell)]:
            return search, known


def judged_twins(table: TruthTable) -> npt.NDArray[np.bool_]:
    """(K,): those that may be chosen and have runs at 9T."""
    return table.eligible & (table.seeds(TARGET) > 0)


def replay_policy(table: TruthTable, number: int) -> Replay:
    """The tool's search on the table, its seeds in the order `number`."""
    search, known = policy_search(table, shuffled(table, number), number)
    twins = len(table.twins)
    eligible = judged_twins(table)
    time = float(TARGET)
    draws = known.draws(time, count=DRAWS, seed=0)[:, :twins]
    near = near_best(draws, eligible, table.settings.tolerance)
    taken = int(near.argmax())
    held_out = [
        np.log([row.val_loss for row in search.seeds.runs[twin, TARGET][used:]]).astype(float)
        for twin in range(twins)
        for used in [search.cells.count((twin, TARGET))]
    ]
    has_some = np.array([len(cell) > 0 for cell in held_out])
    means = np.array([cell.mean() if len(cell) else np.nan for cell in held_out])
    noisy = run_draws(known, TARGET, time, [max(1, len(cell)) for cell in held_out])
    low, high = np.quantile(noisy, [0.05, 0.95], axis=0)
    stated_held_out = is_near_held_out = None
    among = eligible & has_some
    if among[taken] and among.sum() > 1:
        tolerance = table.settings.tolerance
        stated_held_out = float(near_best(noisy, among, tolerance)[taken])
        is_near_held_out = bool(means[taken] <= means[among].min() + tolerance)
    return _judged(
        table,
        search,
        "the search",
        taken,
        stated=float(near[taken]),
        near_set=tuple(int(t) for t in np.flatnonzero(near >= SURE)) or (taken,),
        stated_held_out=stated_held_out,
        is_near_held_out=is_near_held_out,
        covered=int(((low <= means) & (means <= high))[has_some].sum()),
        judged=int(has_some.sum()),
    )


def _judged(
    table: TruthTable,
    search: Spending,
    strategy: str,
    taken: int,
    **stated: float | tuple[int, ...] | None,
) -> Replay:
    truth = table.means(TARGET)
    best = float(truth[judged_twins(table)].min())
    return Replay(
        strategy=strategy,
        taken=taken,
        regret=float(truth[taken]) - best,
        is_near=bool(truth[taken] <= best + table.settings.tolerance),
        share=search.share,
        runs_at_target=sum(rung == TARGET for _, rung in search.cells),
        **stated,  # type: ignore[arg-type]
    )


def replay_random(table: TruthTable, number: int, share: float | None = None) -> Replay:
    """Twins in random order, one seed each, at 9T alone, as far as the share of the cost goes."""
    search = Spending(table, shuffled(table, number))
    if share is not None:
        search.allowance = share * search.whole
    order = np.random.default_rng(number).permutation(np.flatnonzero(judged_twins(table)))
    trained = [int(twin) for twin in order if search.train((int(twin), TARGET))]
    taken = min(trained, key=lambda twin: search.mean((twin, TARGET)))
    return _judged(table, search, "random search at 9T", taken)


def replay_promotion(table: TruthTable, number: int) -> Replay:
    """The best quarter by rank goes on from T to 3T to 9T, at least two of them.

    Each rung has a third of the cost, spent on seeds as far as the table has them.
    """
    search = Spending(table, shuffled(table, number))
    allowance = search.allowance
    keep = [int(twin) for twin in np.flatnonzero(judged_twins(table))]
    for rung in range(TARGET + 1):
        search.allowance = search.spent + (allowance - search.spent) / (TARGET + 1 - rung)
        while [twin for twin in keep if search.train((twin, rung))]:
            pass
        trained = [twin for twin in keep if (twin, rung) in search.cells]
        ranked = sorted(trained, key=lambda twin: search.mean((twin, rung)))
        if rung < TARGET:
            keep = ranked[: max(2, -(-len(keep) // 4))]
    return _judged(table, search, "promotion of the best quarter", ranked[0])


def fixed_choices(table: TruthTable) -> list[Replay]:
    """What needs no training here: the paper's constants, and each axis alone."""
    idle = Spending(table, shuffled(table, 0))
    paper = nearest(
        [t for t, ok in zip(table.twins, judged_twins(table), strict=True) if ok],
        Scaling(0.0).shares.normalised(),
    )
    assert paper is not None
    choices = [_judged(table, idle, "the paper's constants (nearest)", table.twins.index(paper))]
    for twin, candidate in enumerate(table.twins):
        if candidate.role in ("depth", "width", "resolution") and table.seeds(TARGET)[twin]:
            over = "" if table.eligible[twin] else " (not on the budget)"
            choices.append(_judged(table, idle, f"{candidate.role} only{over}", twin))
    return choices


def replays(table: TruthTable, count: int) -> dict[str, list[Replay]]:
    """Every strategy on `count` orders of the seeds."""
    ways: list[Callable[[TruthTable, int], Replay]] = [
        replay_policy,
        replay_random,
        replay_promotion,
    ]
    done: dict[str, list[Replay]] = {}
    for way in ways:
        results = [way(table, number) for number in range(count)]
        done[results[0].strategy] = results
    at_fifth = [replay_random(table, number, share=0.2) for number in range(count)]
    done["random search at 9T, 20 %"] = at_fifth
    for choice in fixed_choices(table):
        done[choice.strategy] = [choice]
    return done


def answer_of(table: TruthTable, evidence: Evidence) -> tuple[tuple[int, ...], int, float]:
    """The set near the best at 9T, the most probable twin, and its probability."""
    assert evidence.trained is not None
    known = forecast(evidence.trained, seed=table.settings.seed)
    draws = known.draws(float(TARGET), count=DRAWS, seed=0)[:, : len(table.twins)]
    near = near_best(draws, judged_twins(table), table.settings.tolerance)
    taken = int(near.argmax())
    return (
        tuple(int(t) for t in np.flatnonzero(near >= SURE)) or (taken,),
        taken,
        float(near[taken]),
    )


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one of five disjoint parts of the validation images answers.

    From all runs up to 9T of the table, and from a replayed search of its own.
    """

    near_set: tuple[int, ...]
    taken: int
    stated: float
    lowest: int
    searched: int


def parts(table: TruthTable, *, number: int = 5, seed: int = 0) -> tuple[Part, list[Part]]:
    """The answer by all validation images, and by each of five disjoint parts of them."""
    images = len(next(iter(table.image_losses.values())))
    order = np.random.default_rng(seed).permutation(images)
    pieces = [np.arange(images), *np.array_split(order, number)]
    answers = [_part(table.part(np.sort(piece))) for piece in pieces]
    return answers[0], answers[1:]


def _part(table: TruthTable) -> Part:
    near_set, taken, stated = answer_of(table, table.evidence(up_to(table, TARGET)))
    truth = np.where(judged_twins(table), table.means(TARGET), np.inf)
    return Part(
        near_set=near_set,
        taken=taken,
        stated=stated,
        lowest=int(truth.argmin()),
        searched=replay_policy(table, 0).taken,
    )


def summary(
    table: TruthTable, name: str, found: Sequence[Replay], by_all_runs: FloatArray
) -> dict[str, object]:
    """One strategy's row of the table of replays; `by_all_runs` is of `regret_by_all_runs`."""
    regrets = np.array([replay.regret for replay in found])
    spread = spread_at_target(table)
    taken, counts = np.unique([replay.taken for replay in found], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    commonest = [f"{table.twins[taken[i]].name} {counts[i] / len(found):.2f}" for i in order[:3]]

    def mean(values: list[float | None]) -> float | None:
        numbers = [value for value in values if value is not None]
        return float(np.mean(numbers)) if numbers else None

    judged = sum(replay.judged or 0 for replay in found)
    return {
        "strategy": name,
        "replays": len(found),
        "share": float(np.mean([replay.share for replay in found])),
        "regret_percent": float(100 * np.expm1(regrets).mean()),
        "regret_spreads": float(regrets.mean() / spread),
        "regret_by_all_runs": float(100 * np.mean([by_all_runs[r.taken] for r in found])),
        "is_near": float(np.mean([replay.is_near for replay in found])),
        "stated": mean([replay.stated for replay in found]),
        "stated_held_out": mean([replay.stated_held_out for replay in found]),
        "is_near_held_out": mean([replay.is_near_held_out for replay in found]),
        "covered": sum(replay.covered or 0 for replay in found) / judged if judged else None,
        "runs_at_target": mean([replay.runs_at_target for replay in found]),
        "taken": ", ".join(commonest),
    }


def regret_by_all_runs(table: TruthTable) -> FloatArray:
    """(K,): ln loss at 9T above the best, as the forecast from all runs up to 9T expects it.

    Means of two runs flatter the best of twelve; this is free of their noise, but the model's word.
    """
    trained = table.evidence(up_to(table, TARGET)).trained
    if trained is None:
        return np.full(len(table.twins), np.nan)
    known = forecast(trained, seed=table.settings.seed)
    draws = known.draws(float(TARGET), count=DRAWS, seed=0)[:, : len(table.twins)]
    regret: FloatArray = (draws - draws[:, judged_twins(table)].min(axis=1, keepdims=True)).mean(0)
    return regret


def spread_at_target(table: TruthTable) -> float:
    """Of the ln losses at 9T of the twins that may be chosen."""
    return float(np.std(table.means(TARGET)[judged_twins(table)], ddof=1))
