"""What is trained after the fixed runs: decided in batches, recorded first, and replayed."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmtscale.arch.errors import ResultsError
from cmtscale.record.folder import DECISIONS, TRIALS
from cmtscale.record.losses import read_losses
from cmtscale.record.row import Row, read_rows
from cmtscale.search.decide import Batch, next_batch, read_decisions, write_decisions
from cmtscale.search.driver import search
from cmtscale.search.evidence import Evidence, gather
from cmtscale.search.ladder import Ladder
from cmtscale.search.outcome import Outcome
from cmtscale.search.request import SearchRequest
from cmtscale.search.runs import RungRun, fixed_runs, run_id
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.settings import Settings, stored_settings
from cmtscale.search.timings import allowance
from cmtscale.search.watch import NullWatcher, Progress

LADDER = Ladder(rungs=3, noise_degrees=4, spend=0.6, batch=2, enough=0.999)
Make = Callable[..., Any]


def run(request: SearchRequest, out: Path, **arguments: Any) -> Outcome:
    outcome = search(replace(request, out=out), **arguments)
    assert outcome is not None
    return outcome


def rows_of(folder: Path) -> list[Row]:
    path = folder / TRIALS
    return read_rows(path) if path.exists() else []


def decided_in(folder: Path) -> list[Batch]:
    """The batches of a folder's search, as it was last asked."""
    settings = stored_settings(folder)
    assert settings is not None
    return read_decisions(folder, settings)


@pytest.fixture(scope="module")
def climbing(tiny_request: SearchRequest) -> SearchRequest:
    """Seven candidates on three rungs, and decisions until 60 % of the whole are spent."""
    return replace(
        tiny_request,
        proxy_base=None,
        proxy_macs=14_427_200,
        trials=3,
        seeds=1,
        ladder=LADDER,
        tolerance=0.003,
    )


@pytest.fixture(scope="module")
def whole(
    climbing: SearchRequest, fake_training_class: Make, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    """The search that was not interrupted. Tests must not change its folder."""
    out = tmp_path_factory.mktemp("climbing") / "whole"
    return run(climbing, out, executor=fake_training_class())


@pytest.fixture(scope="module")
def evidence(whole: Outcome) -> Evidence:
    """What was known when the fixed runs had ended."""
    certain = {run_id(whole.settings, one) for one in fixed(whole)}
    rows = [row for row in whole.rows if row.run_id in certain]
    return gather(whole.settings, rows, read_losses(whole.folder), NOT_TIMED)


def fixed(outcome: Outcome) -> list[RungRun]:
    return fixed_runs(outcome.settings, outcome.candidates)


def seconds_of_rungs(evidence: Evidence) -> Any:
    return np.array([[1.0, 3.0, 9.0]] * len(evidence.arms))


# --- one batch


def test_a_batch_is_a_few_runs_of_candidates_that_can_be_taken_with_fresh_seeds(
    whole: Outcome, evidence: Evidence
) -> None:
    batch = next_batch(
        whole.settings, evidence, fixed(whole), seconds_of_rungs(evidence), allowance_seconds=1e9
    )
    assert len(batch) == LADDER.batch
    assert len(set(batch)) == len(batch)
    assert not set(batch) & set(fixed(whole))
    assert {one.candidate for one in batch} <= {arm.name for arm in evidence.arms}
    for one in batch:
        assert 100 * one.rung <= one.seed < 100 * (one.rung + 1)


def test_the_same_evidence_decides_the_same_and_more_runs_asked_for_may_not(
    whole: Outcome, evidence: Evidence
) -> None:
    arguments = (seconds_of_rungs(evidence), 1e9)
    first, again = (
        next_batch(whole.settings, evidence, fixed(whole), *arguments) for _ in range(2)
    )
    assert first == again
    asked = [*fixed(whole), *first]  # failed for good: no evidence came of them
    assert not set(next_batch(whole.settings, evidence, asked, *arguments)) & set(first)


def test_runs_beyond_the_allowance_are_left_out(whole: Outcome, evidence: Evidence) -> None:
    seconds = seconds_of_rungs(evidence)
    batch = next_batch(whole.settings, evidence, fixed(whole), seconds, 1e9)
    costs = [float(seconds[0, one.rung]) for one in batch]
    for count in range(len(batch) + 1):
        for short, left in ((0.0, count), (0.5, count - 1)):
            if left < 0:
                continue
            enough = sum(costs[:count]) - short
            cut = next_batch(whole.settings, evidence, fixed(whole), seconds, enough)
            assert cut == batch[:left]


@pytest.mark.parametrize("allowance_seconds", [0.0, -5.0])
def test_nothing_is_decided_once_the_allowance_is_spent(
    whole: Outcome, evidence: Evidence, allowance_seconds: float
) -> None:
    seconds = seconds_of_rungs(evidence)
    assert next_batch(whole.settings, evidence, fixed(whole), seconds, allowance_seconds) == ()


def test_nothing_is_decided_once_the_answer_is_sure_enough(
    whole: Outcome, evidence: Evidence
) -> None:
    asked, seconds = fixed(whole), seconds_of_rungs(evidence)
    easily = replace(whole.settings, tolerance=1.0)
    assert next_batch(easily, evidence, asked, seconds, 1e9) == ()
    generous = replace(whole.settings, tolerance=1.0)  # all are as good as the best
    assert next_batch(generous, evidence, asked, seconds, 1e9) == ()


def test_nothing_is_decided_between_fewer_than_two_or_without_noise(
    whole: Outcome, evidence: Evidence
) -> None:
    asked, seconds = fixed(whole), seconds_of_rungs(evidence)
    alone = replace(evidence, eligible=np.arange(len(evidence.arms)) == 1)
    unknown = replace(evidence, trained=None)
    for poor in (alone, unknown):
        assert next_batch(whole.settings, poor, asked, seconds, 1e9) == ()


def test_a_candidate_that_cannot_be_taken_is_not_trained_for_its_own_sake(
    whole: Outcome, evidence: Evidence
) -> None:
    off = {arm.name for arm, may in zip(evidence.arms, evidence.eligible, strict=True) if not may}
    assert off  # pure resolution strays from the budget
    decided = [one for batch in decided_in(whole.folder) for one in batch]
    assert sum(one.candidate in off for one in decided) < len(decided) / 4


def test_where_a_run_is_dear_another_is_made(whole: Outcome, evidence: Evidence) -> None:
    seconds = seconds_of_rungs(evidence)
    batch = next_batch(whole.settings, evidence, fixed(whole), seconds, 1e12)
    dear = seconds.copy()
    dear[:, batch[0].rung] *= 1e6
    others = next_batch(whole.settings, evidence, fixed(whole), dear, 1e12)
    assert batch[0].rung not in {one.rung for one in others}


# --- the record


def test_decisions_are_read_back(tmp_path: Path, whole: Outcome) -> None:
    assert read_decisions(tmp_path, whole.settings) == []
    batches = [
        (RungRun(candidate="a", rung=2, seed=201), RungRun(candidate="b", rung=0, seed=3)),
        (RungRun(candidate="a", rung=1, seed=100),),
    ]
    write_decisions(tmp_path, whole.settings, batches)
    assert read_decisions(tmp_path, whole.settings) == batches


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"batches": 3}',
        '{"batches": [3]}',
        '{"batches": [[3]]}',
        '{"batches": [[{"candidate": "a", "rung": 1}]]}',
        '{"batches": [[{"candidate": "a", "epochs": 1, "train_images": 9, "seed": 0, "x": 1}]]}',
        '{"batches": [[{"candidate": "a", "epochs": "top", "train_images": 9, "seed": 0}]]}',
        '{"batches": [[{"candidate": "a", "epochs": -1, "train_images": 9, "seed": 0}]]}',
        '{"batches": [[{"candidate": ["a"], "epochs": 1, "train_images": 9, "seed": 0}]]}',
        '{"batches": [[{"candidate": "a", "epochs": 1, "train_images": 9, "seed": null}]]}',
    ],
    ids=[
        "empty", "list", "nothing", "number", "batch", "run", "part", "more", "rung", "negative",
        "candidate", "seed",
    ],
)  # fmt: skip
def test_damaged_decisions_are_one_line_and_nothing_is_trained(
    tmp_path: Path, whole: Outcome, climbing: SearchRequest, fake_training_class: Make, text: str
) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "copy"))
    (folder / DECISIONS).write_text(text)
    executor = fake_training_class()
    with pytest.raises(ResultsError, match=r"decisions\.json is damaged.*remove it") as caught:
        run(replace(climbing, ladder=replace(LADDER, spend=9)), folder, executor=executor)
    assert "\n" not in str(caught.value)
    assert executor.started == []


def test_decisions_are_of_lengths_whatever_number_their_rungs_have(
    tmp_path: Path, whole: Outcome
) -> None:
    name = whole.candidates[1].name
    batch = (
        RungRun(candidate=name, rung=0, seed=7),
        RungRun(candidate=name, rung=1, seed=107),
        RungRun(candidate=name, rung=2, seed=207),
    )
    write_decisions(tmp_path, whole.settings, [batch])
    shorter = replace(whole.settings, ladder=Ladder(rungs=2))
    assert read_decisions(tmp_path, shorter) == [batch[:2]]
    epochs = whole.settings.horizons[1][0]
    later = replace(whole.settings, recipe=replace(whole.settings.recipe, epochs=epochs))
    assert later.horizons[0] == whole.settings.horizons[1]
    assert read_decisions(tmp_path, later) == [
        (replace(batch[1], rung=0), replace(batch[2], rung=1)),
    ]


def test_a_batch_is_recorded_before_its_runs_start(
    tmp_path: Path, climbing: SearchRequest, fake_training_class: Make
) -> None:
    folder = tmp_path / "out"
    started: list[str] = []

    class Checking(fake_training_class):  # type: ignore[misc]
        def submit(self, job: Any) -> None:
            super().submit(job)
            if len(self.started) > len(started):
                started.append(self.started[-1])
                decided = [run_id(settings[0], one) for b in decided_in(folder) for one in b]
                assert started[-1] in {*certain, *decided}

    settings: list[Settings] = []
    certain: set[str] = set()

    class Watcher(NullWatcher):
        def planned(self, plan: Any) -> None:
            settings.append(plan.settings)
            certain.update(
                run_id(plan.settings, r) for r in fixed_runs(plan.settings, plan.candidates)
            )

    run(climbing, folder, executor=Checking(), watcher=Watcher())
    assert set(started) > certain


# --- whole searches


def test_a_search_ends_when_its_allowance_is_spent(whole: Outcome) -> None:
    settings, folder = whole.settings, whole.folder
    decided = [one for batch in decided_in(folder) for one in batch]
    assert decided
    names = {row.run_id for row in whole.rows}
    assert names == {run_id(settings, one) for one in [*fixed(whole), *decided]}
    assert len({run_id(settings, one) for one in decided}) == len(decided)
    seconds = [row.seconds for row in whole.rows]
    longest = [max(seconds)] * sum(candidate.role != "base" for candidate in whole.candidates)
    allowed = allowance(settings, longest, slots=1)
    # runs are timed to a millisecond; less than the longest run is left
    assert 0.999 * allowed - max(seconds) < sum(seconds) < 1.001 * allowed
    assert whole.choice is not None
    assert whole.choice.target_images == settings.images_seen[-1] == 9 * 128


def state(folder: Path) -> dict[str, bytes]:
    """What must not depend on interruptions."""
    names = ("trials.csv", "decisions.json", "choice.json", "best.toml", "val_losses.npz")
    return {name: (folder / name).read_bytes() for name in names}


def test_a_search_interrupted_after_every_single_run_ends_as_the_uninterrupted_one(
    tmp_path: Path, whole: Outcome, climbing: SearchRequest, fake_training_class: Make
) -> None:
    folder = tmp_path / "out"
    started: list[str] = []
    for count in range(len(whole.rows)):
        executor = fake_training_class(stop_after=1)
        if count < len(whole.rows) - 1:
            with pytest.raises(KeyboardInterrupt):
                run(climbing, folder, executor=executor)
        else:
            run(climbing, folder, executor=executor)
        assert len(rows_of(folder)) == count + 1
        started += executor.started[:1]
    assert sorted(started) == sorted(row.run_id for row in whole.rows)  # and none of them twice
    assert state(folder) == state(whole.folder)


def test_a_search_interrupted_once_at_any_edge_ends_as_the_uninterrupted_one(
    tmp_path: Path, whole: Outcome, climbing: SearchRequest, fake_training_class: Make
) -> None:
    certain = len(fixed(whole))
    ends = np.cumsum([certain, *map(len, decided_in(whole.folder))])
    counts = {0, 1, *ends - 1, *ends, *ends + 1} - {ends[-1], ends[-1] + 1}
    for count in map(int, counts):
        folder = tmp_path / str(count)
        with pytest.raises(KeyboardInterrupt):
            run(climbing, folder, executor=fake_training_class(stop_after=count))
        assert len(rows_of(folder)) == count
        run(climbing, folder, executor=fake_training_class())
        assert state(folder) == state(whole.folder), count


def test_an_interruption_while_it_decides_changes_nothing(
    tmp_path: Path,
    whole: Outcome,
    climbing: SearchRequest,
    fake_training_class: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "out"

    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    for name in ("next_batch", "write_decisions"):
        with monkeypatch.context() as patch:
            patch.setattr(import_module("cmtscale.search.training"), name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                run(climbing, folder, executor=fake_training_class())
        assert decided_in(folder) == []
    run(climbing, folder, executor=fake_training_class())
    assert state(folder) == state(whole.folder)


def test_a_finished_search_repeats_and_decides_nothing(
    tmp_path: Path, whole: Outcome, climbing: SearchRequest, fake_training_class: Make
) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "copy"))
    executor = fake_training_class()
    run(climbing, folder, executor=executor)
    assert executor.started == executor.timed == []
    assert state(folder) == state(whole.folder)


EXTENSIONS: dict[str, dict[str, Any]] = {
    "spend": {"ladder": replace(LADDER, spend=0.8)},
    "rungs": {"ladder": replace(LADDER, rungs=4)},
    "rungs, spend": {"ladder": replace(LADDER, rungs=4, spend=0.8)},
    "degrees": {"ladder": replace(LADDER, noise_degrees=8)},
    "seeds": {"seeds": 2},
    "trials": {"trials": 4},
}


@pytest.mark.parametrize("change", EXTENSIONS)
def test_a_search_that_is_asked_for_more_goes_on_and_repeats_nothing(
    tmp_path: Path, whole: Outcome, climbing: SearchRequest, fake_training_class: Make, change: str
) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "copy"))
    executor = fake_training_class()
    outcome = run(replace(climbing, **EXTENSIONS[change]), folder, executor=executor)
    before, after = ({row.run_id: row for row in rows} for rows in (whole.rows, rows_of(folder)))
    assert before.items() <= after.items()
    assert set(executor.started) == after.keys() - before.keys() != set()
    assert len(executor.started) == len(set(executor.started))
    had, has = decided_in(whole.folder), decided_in(folder)
    assert has[: len(had)] == had
    assert outcome.choice is not None
    assert outcome.choice.target_images == outcome.settings.images_seen[-1]
    if "rungs" in change:
        assert outcome.choice.target_images == 27 * 128
        anchors = {row.candidate for row in after.values() if row.seed >= 300}
        assert len(anchors) >= 4
    if change == "spend":
        assert len(has) > len(had)


def test_a_search_that_is_asked_for_less_keeps_what_it_has(
    tmp_path: Path, whole: Outcome, climbing: SearchRequest, fake_training_class: Make
) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "copy"))
    for less in (replace(LADDER, rungs=2), replace(LADDER, rungs=1, spend=0), LADDER):
        executor = fake_training_class()
        outcome = run(replace(climbing, ladder=less), folder, executor=executor)
        assert {row.run_id for row in rows_of(folder)} >= {row.run_id for row in whole.rows}
        assert outcome.choice is not None
        assert outcome.choice.target_images == 128 * 3 ** (less.rungs - 1)
        before = {run for batch in decided_in(whole.folder) for run in batch}
        now = {run for batch in decided_in(folder) for run in batch}
        assert now >= {run for run in before if run.rung < less.rungs}


def test_progress_counts_what_is_decided_and_names_the_best_of_the_longest_runs(
    tmp_path: Path, whole: Outcome, climbing: SearchRequest, fake_training_class: Make
) -> None:
    reports: list[Progress] = []

    class Watcher(NullWatcher):
        def progressed(self, progress: Progress) -> None:
            reports.append(progress)

    run(climbing, tmp_path / "out", executor=fake_training_class(), watcher=Watcher())
    counts = [(progress.done, progress.runs) for progress in reports]
    ends = np.cumsum([len(fixed(whole)), *map(len, decided_in(whole.folder))])
    assert [done for done, _ in counts] == list(range(1, len(whole.rows) + 1))
    assert list(dict.fromkeys(runs for _, runs in counts)) == list(ends)
    parts = [progress.part for progress in reports]
    assert parts == sorted(parts)
    assert 0 < parts[0] < 0.1 < 0.9 < parts[-1] <= 1
    left = [progress.seconds_left for progress in reports]
    assert left == sorted(left, reverse=True)
    first, last = reports[0].best, reports[-1].best
    assert first is None  # of the base alone
    assert last is not None
    assert min(last.seeds) >= 200
    assert whole.choice is not None
    losses = {
        standing.candidate: standing.longest.loss or 0.0
        for standing in whole.choice.standings
        if standing.runs[-1] and standing.score.may_win
    }
    assert last.candidate == min(losses, key=lambda name: losses[name])


def test_what_is_decided_is_never_a_run_that_the_record_has(
    tmp_path: Path, climbing: SearchRequest, fake_training_class: Make
) -> None:
    # a first search repeats anchors that the second one does not ask for
    folder = tmp_path / "out"
    often = replace(LADDER, rungs=1, noise_degrees=12, spend=0)
    first = run(replace(climbing, ladder=often), folder, executor=fake_training_class())
    executor = fake_training_class()
    seldom = replace(LADDER, noise_degrees=0)
    second = run(replace(climbing, ladder=seldom), folder, executor=executor)
    decided = [run_id(second.settings, r) for batch in decided_in(folder) for r in batch]
    assert decided
    assert set(decided) <= set(executor.started)
    assert not set(decided) & {row.run_id for row in first.rows}
    seconds = [row.seconds for row in second.rows]
    longest = [max(seconds)] * sum(candidate.role != "base" for candidate in second.candidates)
    assert sum(seconds) < 1.001 * allowance(second.settings, longest, slots=1)


def test_a_longer_ladder_interrupted_anywhere_ends_as_the_uninterrupted_one(
    tmp_path: Path, whole: Outcome, climbing: SearchRequest, fake_training_class: Make
) -> None:
    longer = replace(climbing, ladder=replace(LADDER, rungs=4))
    at_once, parts = (Path(shutil.copytree(whole.folder, tmp_path / n)) for n in ("a", "b"))
    executor = fake_training_class()
    run(longer, at_once, executor=executor)
    for _ in executor.started[1:]:
        with pytest.raises(KeyboardInterrupt):
            run(longer, parts, executor=fake_training_class(stop_after=1))
    run(longer, parts, executor=fake_training_class(stop_after=1))
    assert state(parts) == state(at_once)


def test_a_run_that_fails_for_good_does_not_stop_the_decisions(
    tmp_path: Path, whole: Outcome, climbing: SearchRequest, fake_training_class: Make
) -> None:
    first = decided_in(whole.folder)[0][0]
    name = run_id(whole.settings, first)
    executor = fake_training_class(failing={name: 2})
    outcome = run(climbing, tmp_path / "out", executor=executor)
    (failed,) = [row for row in outcome.rows if row.status == "failed"]
    assert failed.run_id == name
    assert executor.started.count(name) == 2
    assert decided_in(tmp_path / "out")[0][0] == first
    again = fake_training_class()
    run(climbing, tmp_path / "out", executor=again)  # it is tried again
    assert again.started[0] == name
    assert {row.status for row in rows_of(tmp_path / "out")} == {"complete"}


def test_the_sequence_of_workers_does_not_matter(
    tmp_path: Path, whole: Outcome, climbing: SearchRequest, fake_training_class: Make
) -> None:
    @dataclass
    class LastInFirstOut(fake_training_class):  # type: ignore[misc]
        """Carries out three jobs at a time, the last one first."""

        waiting: list[Any] = field(default_factory=list)

        @property
        def free_slots(self) -> int:
            return 3 - len(self.running())

        def submit(self, job: Any) -> None:
            super().submit(job)
            self.waiting.append(job)
            self._job = None

        def running(self) -> list[Any]:
            return list(self.waiting)

        def results(self, timeout_seconds: float) -> Iterator[tuple[Any, Any]]:
            assert timeout_seconds > 0
            while self.running():
                job = self.waiting.pop()
                yield job, self.outcome(job)

    executor = LastInFirstOut(devices=("cpu",) * 3)
    run(climbing, tmp_path / "out", executor=executor)
    for name in ("decisions.json", "choice.json", "trials.csv"):
        assert state(tmp_path / "out")[name] == state(whole.folder)[name]


def test_a_sampler_s_search_on_a_ladder_interrupted_anywhere_ends_as_the_uninterrupted_one(
    tmp_path: Path, climbing: SearchRequest, fake_training_class: Make
) -> None:
    request = replace(climbing, sampler="tpe", trials=5, ladder=replace(LADDER, rungs=2))
    executor = fake_training_class()
    at_once = run(request, tmp_path / "whole", executor=executor)
    assert decided_in(tmp_path / "whole")
    for _ in executor.started[1:]:
        with pytest.raises(KeyboardInterrupt):
            run(request, tmp_path / "parts", executor=fake_training_class(stop_after=1))
    parts = run(request, tmp_path / "parts", executor=fake_training_class(stop_after=1))
    assert state(tmp_path / "parts") == state(tmp_path / "whole")
    assert parts.choice == at_once.choice
