"""Whole searches: results, continuation, refusals, plans, failed runs and samplers."""

import csv
import hashlib
import json
import shutil
import signal
import sys
import weakref
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from filelock import FileLock

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import CmtscaleError, RequestError, ResultsError
from cmtscale.arch.variant import Variant, variant
from cmtscale.data.dataset import Description
from cmtscale.record.folder import holds_anything
from cmtscale.record.losses import read_losses
from cmtscale.record.row import COLUMNS, Row
from cmtscale.search.candidates import lattice_candidates
from cmtscale.search.driver import search
from cmtscale.search.jobs import TrainRun
from cmtscale.search.outcome import Outcome, save_choice
from cmtscale.search.plan import Plan
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.settings import read_settings
from cmtscale.search.watch import NullWatcher, Progress
from cmtscale.train.recipe import Recipe

NAMES = ("request.toml", "environment.json", "study.db", "trials.csv", "val_losses.npz")
NAMES += ("curves.csv", "choice.json", "test_reads.csv", "timings.json")
DIGITS = Description(num_classes=10, channels=1, train_images=1257, val_images=270)
# the four candidates of `tiny_request`
BASE, DEPTH, WIDTH, RESOLUTION = (
    "d1.1.1.1-w4-r64",
    "d4.3.3.3-w4-r64",
    "d1.1.1.1-w6-r64",
    "d1.1.1.1-w4-r96",
)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def scores(folder: Path) -> dict[str, tuple[str, ...]]:
    """The results of each run as written in the table, without times."""
    names = ("val_loss", "val_loss_raw", "val_accuracy", "train_loss", "status", "cause")
    return {row["run_id"]: tuple(row[name] for name in names) for row in table(folder)}


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


KEPT = ("trials.csv", "val_losses.npz", "best.toml", "choice.json", "curves.csv", "request.toml")


def study_rows(folder: Path) -> list[dict[str, Any]]:
    """The runs that the database holds."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = f"sqlite:///{folder / 'study.db'}"
    return [
        trial.user_attrs["run"]
        for name in optuna.get_all_study_names(url)
        for trial in optuna.load_study(study_name=name, storage=url).trials
    ]


@pytest.fixture
def copy(finished: Outcome, tmp_path: Path) -> Path:
    """The finished search's folder, to be changed."""
    return Path(shutil.copytree(finished.folder, tmp_path / "copy"))


def run(request: SearchRequest, out: Path, **arguments: Any) -> Outcome:
    outcome = search(replace(request, out=out), **arguments)
    assert outcome is not None
    return outcome


def planned(request: SearchRequest) -> Plan:
    """The plan of a dry run."""
    plans: list[Plan] = []

    class Watcher(NullWatcher):
        def planned(self, plan: Plan) -> None:
            plans.append(plan)

    assert search(request, watcher=Watcher(), dry_run=True) is None
    (plan,) = plans
    return plan


# --- what a finished search leaves


def test_a_finished_search_leaves_its_files(finished: Outcome) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert names >= {*NAMES, "best.toml", "runs"}
    assert not [name for name in names if name.endswith((".tmp", "-journal"))]


def test_every_run_is_a_complete_row_sorted_by_candidate_and_seed(finished: Outcome) -> None:
    rows = table(finished.folder)
    assert list(rows[0]) == list(COLUMNS)
    expected = [
        f"{candidate}-2x64-s{seed}"
        for candidate in (BASE, DEPTH, WIDTH, RESOLUTION)
        for seed in range(2)
    ]
    assert [row["run_id"] for row in rows] == expected
    assert len({row["identity"] for row in rows}) == 8
    assert {row["status"] for row in rows} == {"complete"}
    assert all(0 <= float(row["val_accuracy"]) <= 1 for row in rows)
    assert all(float(row["val_loss"]) <= float(row["val_loss_raw"]) for row in rows)


def test_rows_describe_the_real_variant_and_the_trained_twin(finished: Outcome) -> None:
    candidates = {candidate.name: candidate for candidate in finished.candidates}
    for row in table(finished.folder):
        real, trained = (getattr(candidates[row["candidate"]], n) for n in ("real", "trained"))
        assert int(row["macs"]) == cost(real).macs
        assert int(row["params"]) == cost(real).params
        assert int(row["activations"]) == cost(real).activations
        assert int(row["proxy_macs"]) == cost(trained).macs
        assert row["dims"] == "-".join(map(str, real.dims))
        assert row["proxy_depths"] == "-".join(map(str, trained.depths))
        assert int(row["proxy_resolution_px"]) == trained.resolution_px


def test_best_toml_is_a_variant_at_the_real_budget(finished: Outcome) -> None:
    best = variant(finished.folder / "best.toml")
    assert abs(cost(best).macs / 4e9 - 1) <= 0.02
    assert finished.winner is not None
    assert best.same_network(finished.winner.real)
    assert "a tour" in (finished.folder / "best.toml").read_text().splitlines()[0]


def test_the_file_of_the_choice_says_what_is_taken_and_how_sure_that_is(
    finished: Outcome,
) -> None:
    losses = defaultdict(list)
    for row in table(finished.folder):
        if row["on_budget"] == "True":
            losses[row["candidate"]].append(float(row["val_loss"]))
    choice = json.loads((finished.folder / "choice.json").read_text())
    assert choice["taken"] == min(losses, key=lambda name: sum(losses[name]))
    assert choice["tour"]
    assert choice["verdict"] == "clear"
    assert choice["probability"] == choice["standings"][0]["near"] > 0.8
    assert [standing["runs"] for standing in choice["standings"]] == [[2]] * 4
    assert len(choice["test_readings"]) == 2
    assert choice["images_seen"] == [128]
    assert choice["target_images"] == 128
    assert choice["noise"]["degrees"] == 3  # one from each candidate's two seeds, without the base
    assert choice["alpha"] * choice["beta"] ** 1.5 * choice["gamma"] ** 2 == pytest.approx(2.5)


def test_a_choice_that_is_none_is_said_in_the_files(finished: Outcome, tmp_path: Path) -> None:
    assert finished.choice is not None
    settings = replace(finished.settings, tour=False)
    endings = {
        "clear": ": one of 1 that are as good as the best; see choice.json",
        "undecided": ": undecided: the most probable of 4 candidates",
        "nothing learned yet": ": nothing learned yet: the most probable of 4 candidates",
    }
    for verdict, ending in endings.items():
        choice = replace(finished.choice, verdict=verdict, reason="too short")
        save_choice(replace(finished, folder=tmp_path, settings=settings, choice=choice))
        described = json.loads((tmp_path / "choice.json").read_text())
        assert (described["verdict"], described["reason"]) == (verdict, "too short")
        assert (tmp_path / "best.toml").read_text().splitlines()[0].endswith(ending)


def test_the_losses_of_the_images_are_kept_beside_the_table(finished: Outcome) -> None:
    kept = read_losses(finished.folder)
    rows = table(finished.folder)
    assert kept.keys() == {row["run_id"] for row in rows}
    for row in rows:
        assert len(kept[row["run_id"]]) == 270
        mean = kept[row["run_id"]].astype(float).mean()
        assert mean == pytest.approx(float(row["val_loss"]), rel=2e-4)  # half precision


def test_curves_end_where_the_table_says(finished: Outcome) -> None:
    with (finished.folder / "curves.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for row in table(finished.folder):
        evaluations = [
            line for line in lines if line["run_id"] == row["run_id"] and line["val_accuracy"]
        ]
        assert len(evaluations) == int(row["epochs"])
        assert evaluations[-1]["val_loss_raw"] == row["val_loss_raw"]
        assert evaluations[-1]["val_accuracy"] == row["val_accuracy"]


def test_the_environment_says_what_it_ran_on(finished: Outcome) -> None:
    environment = json.loads((finished.folder / "environment.json").read_text())
    data = environment["data"]
    assert data["source"] == "digits"
    assert (data["num_classes"], data["native_px"]) == (10, 8)
    assert data["train"] + data["val"] + data["test"] == 1797
    assert len(data["hash"]) == len(data["splits_hash"]) == 64
    assert environment["devices"] == ["cpu", "cpu"]
    assert environment["versions"]["torch"]
    assert environment["hardware"]


def test_the_request_file_repeats_the_search(finished: Outcome) -> None:
    settings = read_settings(finished.folder / "request.toml")
    assert settings == finished.settings
    again = resolve(settings.as_request(), DIGITS)
    assert replace(again, data_hash=settings.data_hash, pack_px=settings.pack_px) == settings


# --- the same folder again


def test_the_same_request_again_repeats_nothing_and_changes_nothing(
    copy: Path, tiny_request: SearchRequest, in_process: Any
) -> None:
    before = contents(copy)
    outcome = run(tiny_request, copy)
    assert in_process.started == in_process.timed == []  # so that it answers at once
    after = contents(copy)
    for name in ("trials.csv", "best.toml", "choice.json", "curves.csv", "request.toml"):
        assert after[name] == before[name]
    assert outcome.choice is not None


def test_a_search_whose_runs_were_removed_keeps_its_results(
    copy: Path, tiny_request: SearchRequest, in_process: Any
) -> None:
    shutil.rmtree(copy / "runs")
    before = contents(copy)
    run(tiny_request, copy)
    assert in_process.started == []
    after = contents(copy)
    for name in ("trials.csv", "best.toml", "choice.json", "curves.csv"):
        assert after[name] == before[name]


@pytest.mark.parametrize("lost", ["study.db*", "runs", "both"])
def test_without_its_database_or_its_runs_a_search_is_found_done(
    copy: Path, tiny_request: SearchRequest, in_process: Any, lost: str
) -> None:
    before = contents(copy)
    if lost != "study.db*":
        shutil.rmtree(copy / "runs")
    if lost != "runs":
        for path in copy.glob("study.db*"):
            path.unlink()
    notes: list[str] = []

    class Watcher(NullWatcher):
        def noted(self, text: str) -> None:
            notes.append(text)

    run(tiny_request, copy, watcher=Watcher())
    assert in_process.started == []
    after = contents(copy)
    for name in KEPT:
        assert after[name] == before[name], name
    assert any("8 of the 8 runs are entered into study.db" in text for text in notes) == (
        lost != "runs"
    )
    assert any("8 of 8 checkpoints are gone" in text for text in notes) == (lost != "study.db*")
    assert len(study_rows(copy)) == 8


def test_an_interrupted_search_without_its_database_loses_no_row(
    copy: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    # a committed search, continued with another seed, and stopped at once
    before = table(copy)
    shutil.rmtree(copy / "runs")
    (copy / "study.db").unlink()
    fake_training.stop_after = 0
    with pytest.raises(KeyboardInterrupt):
        run(replace(tiny_request, seeds=3), copy)
    assert table(copy) == before


def test_a_lost_or_damaged_table_is_rebuilt_from_the_runs(
    copy: Path, tiny_request: SearchRequest, in_process: Any
) -> None:
    before = contents(copy)["trials.csv"]
    text = (copy / "trials.csv").read_text()
    for damaged in (None, text[:-40], text.replace("complete", "compl")):
        (copy / "trials.csv").unlink()
        if damaged is not None:
            (copy / "trials.csv").write_text(damaged)
        run(tiny_request, copy)
        assert contents(copy)["trials.csv"] == before
    assert in_process.started == []


EXTENSIONS: dict[str, dict[str, Any]] = {
    "seeds": {"seeds": 3},
    "trials": {"trials": 9, "proxy_macs": 1_220_000},
    "sampler": {"sampler": "random", "trials": 5},
    "seed": {"seed": 1},
    "horizon": {"epochs": 4},
    "fewer": {"seeds": 1},
}


@pytest.mark.parametrize("change", EXTENSIONS)
def test_a_search_that_is_asked_for_more_keeps_every_row_to_the_bit(
    copy: Path, tiny_request: SearchRequest, fake_training: Any, change: str
) -> None:
    before = {row["run_id"]: row for row in table(copy)}
    outcome = run(replace(tiny_request, **EXTENSIONS[change]), copy)
    assert len(study_rows(copy)) == len(table(copy))
    after = {row["run_id"]: row for row in table(copy)}
    assert before.items() <= after.items()
    assert set(fake_training.started) == after.keys() - before.keys()
    assert outcome.choice is not None
    if change == "seeds":
        assert sorted(fake_training.started) == sorted(
            f"{name}-2x64-s2" for name in (BASE, DEPTH, WIDTH, RESOLUTION)
        )
        assert outcome.choice.standing.longest.seeds == (0, 1, 2)
    if change == "horizon":  # all candidates are trained again, and only the new runs are compared
        assert len(fake_training.started) == 8
        assert all("-4x64-" in run_id for run_id in fake_training.started)
        assert all(standing.runs == (2,) for standing in outcome.choice.standings)
        assert outcome.choice.target_images == 4 * 64
    if change in ("seed", "fewer"):
        assert fake_training.started == []
    assert read_settings(copy / "request.toml") == outcome.settings  # the last request
    fake_training.started.clear()
    run(tiny_request, copy)
    assert fake_training.started == []
    assert {row["run_id"]: row for row in table(copy)} == after


def test_a_larger_grid_and_another_sampler_go_on_in_the_same_search(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    wide = replace(tiny_request, proxy_base=None, proxy_macs=14_427_200, seeds=1, trials=5)
    first = run(wide, tmp_path / "out")
    lattice = lattice_candidates(first.settings, NOT_TIMED)
    rows = contents(tmp_path / "out")["trials.csv"]
    assert len({candidate.name for candidate in first.candidates}) < len(lattice)
    second = run(replace(wide, sampler="tpe", trials=100), tmp_path / "out")
    assert {candidate.name for candidate in lattice} <= {c.name for c in second.candidates}
    assert len(fake_training.started) == len(set(fake_training.started))
    assert contents(tmp_path / "out")["trials.csv"] != rows
    assert [row["asked"] for row in table(tmp_path / "out")] == [
        str(number) for number in range(len(second.candidates))
    ]
    fake_training.started.clear()
    third = run(replace(wide, seeds=2), tmp_path / "out")  # one more seed for every candidate
    assert len(fake_training.started) == len(second.candidates) == len(third.candidates)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_sampler_search_that_is_asked_for_more_asks_nobody_twice(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any, sampler: Any
) -> None:
    request = replace(tiny_request, sampler=sampler, trials=20, seeds=1)
    request = replace(request, proxy_base=None, proxy_macs=40_000_000)
    first = run(request, tmp_path / "out")
    assert len(first.candidates) == 20
    numbers = {row["candidate"]: row["asked"] for row in table(tmp_path / "out")}
    for more in ({"seeds": 2}, {"seed": 1}, {"epochs": 4}, {"trials": 5}):
        outcome = run(replace(request, **more), tmp_path / "out")
        assert {row["candidate"]: row["asked"] for row in table(tmp_path / "out")} == numbers
        assert [c.name for c in outcome.candidates] == [c.name for c in first.candidates]
        fake_training.started.clear()
    run(replace(request, trials=26), tmp_path / "out")
    assert len(set(fake_training.started)) == 6
    rows = table(tmp_path / "out")
    assert sorted({int(row["asked"]) for row in rows}) == list(range(26))
    # the third generation was completed in a second request; compare with asking for all at once
    run(replace(request, trials=26), tmp_path / "at once")
    orders = [
        {row["candidate"]: row["asked"] for row in table(tmp_path / name)}
        for name in ("out", "at once")
    ]
    assert orders[0].keys() == orders[1].keys() or sampler == "tpe"  # TPE had seen more seeds
    if sampler == "random":
        assert orders[0] == orders[1]


@pytest.mark.usefixtures("fake_training")
def test_an_interrupted_grid_has_the_same_table_whoever_was_faster(
    tmp_path: Path, tiny_request: SearchRequest
) -> None:
    run(tiny_request, tmp_path / "whole")
    run(tiny_request, tmp_path / "parts")
    header, *lines = (tmp_path / "parts" / "trials.csv").read_text().splitlines(keepends=True)
    slower = [line for line in lines if not line.startswith(BASE)]  # only the others had finished
    shutil.rmtree(tmp_path / "parts" / "runs")
    (tmp_path / "parts" / "trials.csv").write_text("".join([header, *slower]))
    run(tiny_request, tmp_path / "parts")
    assert contents(tmp_path / "parts")["trials.csv"] == contents(tmp_path / "whole")["trials.csv"]


def test_a_loss_that_was_edited_is_named(
    copy: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    text = (copy / "trials.csv").read_text()
    row = table(copy)[5]
    (copy / "trials.csv").write_text(text.replace(row["val_loss"], "0.001"))
    with pytest.raises(ResultsError, match=rf"the loss 0\.0010 for {row['run_id']}, val_losses"):
        run(tiny_request, copy)
    assert fake_training.started == []


def test_a_run_of_another_search_in_the_table_is_named(
    copy: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    text = (copy / "trials.csv").read_text()
    identity = table(copy)[5]["identity"]
    (copy / "trials.csv").write_text(text.replace(identity, "0123456789abcdef"))
    for dry_run in (True, False):
        with pytest.raises(ResultsError, match=r"identity 0123456789abcdef\) is a run of another"):
            search(replace(tiny_request, out=copy), dry_run=dry_run)
    assert fake_training.started == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"batch_size": 32}, "its batch_size differs"),
        ({"lr": 1e-3, "augment": False}, "its lr, flip, shift_fraction differ"),
        ({"budget_macs": 5_000_000_000}, "its budget differs"),
        ({"proxy_macs": 1_300_000}, "its twin_macs differs"),
        ({"split_seed": 1}, "its split_seed differs"),
    ],
    ids=["batch", "lr", "budget", "twins", "split"],
)
def test_another_search_into_the_same_folder_is_refused_and_changes_nothing(
    copy: Path, tiny_request: SearchRequest, fake_training: Any, change: dict[str, Any], what: str
) -> None:
    before = contents(copy)
    with pytest.raises(ResultsError, match=rf"holds another search \({what}\); use"):
        run(replace(tiny_request, **change), copy)
    assert contents(copy) == before
    assert fake_training.started == []


@pytest.mark.usefixtures("fake_training")
def test_an_open_twin_is_the_one_that_the_folder_has(
    copy: Path, tiny_request: SearchRequest
) -> None:
    left_open = replace(tiny_request, proxy_base=None, proxy_macs=None, out=copy)
    plan = planned(left_open)
    assert plan.settings.trained_macs == tiny_request.proxy_macs
    assert plan.runs_done == 8


def test_a_folder_of_version_0_1_0_is_refused_in_one_line(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    (tmp_path / "request.toml").write_text("budget_macs = 4000000000\ndata = 'digits'\n")
    with pytest.raises(CmtscaleError, match=r"of cmtscale 0\.1\.0; search again") as caught:
        run(tiny_request, tmp_path)
    assert "\n" not in str(caught.value)
    assert fake_training.started == []


@pytest.mark.parametrize("name", ["environment.json", "request.toml", "test_reads.csv"])
def test_a_damaged_file_is_one_line(
    copy: Path, tiny_request: SearchRequest, fake_training: Any, name: str
) -> None:
    (copy / name).write_text('"torn\n{' if name != "test_reads.csv" else "a,b\n1,2\n")
    seeds = 3 if name == "environment.json" else 2  # it is read only if something is to be trained
    with pytest.raises(CmtscaleError, match=rf"{name}") as caught:
        run(replace(tiny_request, seeds=seeds), copy)
    assert "\n" not in str(caught.value)
    assert fake_training.started == []


def test_runs_that_were_scored_in_an_older_way_are_scored_again_from_their_checkpoints(
    copy: Path, tiny_request: SearchRequest, in_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = scores(copy)
    logs = {path: path.read_bytes() for path in copy.glob("runs/*/metrics.jsonl")}
    (copy / "runs" / f"{BASE}-2x64-s0" / "checkpoint.pt").unlink()
    for module in ("cmtscale.record.result", "cmtscale.record.scores"):
        monkeypatch.setattr(f"{module}.SCORING", 99)
    outcome = run(tiny_request, copy)
    assert len(in_process.started) == 8
    assert scores(copy) == before  # only `scoring` has changed
    assert {row["scoring"] for row in table(copy)} == {"99"}
    trained = {path for path, text in logs.items() if path.read_bytes() != text}
    assert {path.parent.name for path in trained} == {f"{BASE}-2x64-s0"}
    assert outcome.choice is not None


def test_a_folder_with_other_things_is_refused_and_left_alone(
    tmp_path: Path, tiny_request: SearchRequest
) -> None:
    (tmp_path / "thesis.pdf").write_text("years of work")
    with pytest.raises(ResultsError, match="is not empty and holds no search"):
        run(tiny_request, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.pdf"]
    with pytest.raises(ResultsError, match="is a file, not a folder"):
        run(tiny_request, tmp_path / "thesis.pdf")


def test_a_second_driver_is_refused_while_the_first_is_at_work_before_it_plans_or_packs(
    copy: Path, tiny_request: SearchRequest, fake_training: Any, tmp_path: Path
) -> None:
    before = contents(copy)
    elsewhere = replace(tiny_request, seeds=3, cache_dir=tmp_path / "new cache")
    with FileLock(copy / ".lock"):
        with pytest.raises(ResultsError, match="another process is at work in"):
            run(elsewhere, copy)
        assert fake_training.timed == []
        assert not (tmp_path / "new cache").exists()
        assert planned(replace(tiny_request, out=copy)).runs_done == 8  # a dry run holds nothing
    assert contents(copy) == before
    run(tiny_request, copy)


def test_a_ctrl_c_while_it_plans_leaves_nothing_running_and_no_folder(
    tmp_path: Path, tiny_request: SearchRequest, fake_training_class: Any
) -> None:
    class InterruptedInPlanning(fake_training_class):  # type: ignore[misc]
        def outcome(self, _job: Any) -> Any:
            raise KeyboardInterrupt

    executor = InterruptedInPlanning()
    with pytest.raises(KeyboardInterrupt):
        run(tiny_request, tmp_path / "new" / "out", executor=executor)
    assert executor.running() == []
    assert executor.cancelled == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("in_process")
def test_results_are_the_same_to_the_bit_in_another_folder_and_without_workers(
    finished: Outcome, tiny_request: SearchRequest, tmp_path: Path
) -> None:
    run(replace(tiny_request, workers=1, seeds=1), tmp_path / "alone")
    alone = scores(tmp_path / "alone")
    assert len(alone) == 4
    assert alone.items() <= scores(finished.folder).items()


# --- plans and refusals


@pytest.mark.usefixtures("fake_training")
def test_a_dry_run_plans_and_writes_nothing(tmp_path: Path, tiny_request: SearchRequest) -> None:
    plan = planned(replace(tiny_request, out=tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []
    assert (plan.runs, plan.runs_done, len(plan.candidates)) == (8, 0, 4)
    assert plan.total_seconds > 0
    assert plan.folder == tmp_path / "out"
    assert plan.settings.trained_base.num_classes == 10
    assert abs(plan.paper.macs / 4e9 - 1) <= 0.02


def test_the_plan_times_each_network_once_and_shares_the_time_among_the_slots(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    plans = [
        planned(replace(tiny_request, workers=workers, out=tmp_path / "out"))
        for workers in (1, 2, 500)
    ]
    assert fake_training.timed == [BASE, DEPTH, WIDTH, RESOLUTION] * 3
    # 2 epochs of 64 images; after each, 270 are evaluated, and the 64 once more for BatchNorm
    seconds = 2 * 0.001 * (64 + (270 + 64) / 3)
    names = [candidate.name for candidate in plans[0].candidates]
    assert [plans[0].seconds(name, 0) for name in names] == pytest.approx([seconds] * 4)
    expected = [8 * seconds, 4 * seconds, seconds]  # 8 runs
    assert [plan.total_seconds for plan in plans] == pytest.approx(expected)


@pytest.mark.usefixtures("fake_training")
def test_the_plan_of_a_search_that_goes_on_counts_what_is_done(
    copy: Path, tiny_request: SearchRequest
) -> None:
    plan = planned(replace(tiny_request, out=copy))
    assert (plan.runs, plan.runs_done, plan.total_seconds) == (8, 8, 0.0)


@pytest.mark.usefixtures("fake_training")
def test_a_watcher_hears_of_the_plan_first_and_of_every_run_once(
    tmp_path: Path, tiny_request: SearchRequest
) -> None:
    events: list[str] = []

    class Watcher(NullWatcher):
        def planned(self, plan: Plan) -> None:
            assert not holds_anything(plan.folder)
            events.append("plan")

        def progressed(self, progress: Progress) -> None:
            assert progress.done == len(events) - 1
            assert progress.runs == 8

        def ended(self, row: Row) -> None:
            events.append(row.run_id)

    outcome = run(tiny_request, tmp_path / "out", watcher=Watcher())
    assert events[0] == "plan"
    assert sorted(events[1:]) == sorted(row.run_id for row in outcome.rows)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "tpu"}, "device 'tpu' is not one of"),
        ({"workers": 0}, "workers 0 is not a whole number from 1 on"),
        ({"data": "folder:/nowhere"}, "/nowhere does not exist"),
        ({"data": "mnist"}, "is not one of digits"),
        ({"trials": 0}, "trials 0 is not a whole number from 1 on"),
        ({"epochs": 0}, "epochs 0 is not a whole number from 1 on"),
        ({"proxy_macs": 600_000}, "no room to scale"),
        ({"base": variant("cmt-s")}, "too near to the budget"),
        ({"recipe": Recipe(train_images=9)}, r"9 training images.*use 10 \(one per class\)"),
    ],
    ids=[
        "device",
        "workers",
        "folder",
        "data",
        "trials",
        "epochs",
        "proxy_macs",
        "base",
        "train_images",
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    tmp_path: Path, tiny_request: SearchRequest, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(CmtscaleError, match=words) as caught:
        run(replace(tiny_request, **changes), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("fake_training")
def test_twins_are_judged_by_the_classes_of_the_data_not_by_a_thousand(
    tmp_path: Path, tiny_request: SearchRequest, tiny_base: Variant
) -> None:
    thousand = replace(tiny_base, num_classes=1000)
    assert tiny_request.proxy_macs < 2 * cost(thousand).macs  # so would be refused
    with pytest.raises(RequestError):
        resolve(
            tiny_request,
            Description(num_classes=1000, channels=3, train_images=1257, val_images=270),
        )
    assert search(replace(tiny_request, out=tmp_path / "x"), dry_run=True) is None


@pytest.mark.usefixtures("fake_training")
def test_a_recipe_that_wants_more_images_than_there_are_trains_on_all(
    tmp_path: Path, tiny_request: SearchRequest
) -> None:
    recipe = Recipe(epochs=2, train_images=2000)
    plan = planned(replace(tiny_request, recipe=recipe, out=tmp_path / "out"))
    assert len(plan.dataset.splits.train) == 1257
    assert plan.settings.recipe == replace(recipe, train_images=1257, epochs=4)


@pytest.mark.usefixtures("fake_training")
def test_only_another_split_seed_splits_the_images_anew(
    tmp_path: Path, tiny_request: SearchRequest
) -> None:
    one, same, other = (
        planned(replace(tiny_request, **seeds, out=tmp_path / "out")).dataset.splits
        for seeds in ({}, {"seed": 1}, {"split_seed": 1})
    )
    assert np.array_equal(one.train, same.train)
    assert not np.array_equal(one.train, other.train)


# --- runs that do not end well


def test_a_diverging_run_is_recorded_with_its_step_and_nothing_is_chosen(
    tmp_path: Path, tiny_request: SearchRequest, in_process: Any
) -> None:
    # weights are multiplied by 1 - lr * weight_decay in every step, until they overflow
    wild = Recipe(epochs=1, train_images=64, batch_size=4, lr=100, weight_decay=100)
    outcome = run(replace(tiny_request, recipe=wild, seeds=1), tmp_path / "wild")
    rows = table(tmp_path / "wild")
    assert len(rows) == 4
    for row in rows:
        assert row["status"] == "diverged"
        assert row["cause"].startswith("loss not finite at step ")
        assert row["cause"].endswith(" of 16")
        assert row["val_loss"] == row["val_accuracy"] == ""
    assert outcome.choice is None
    assert not (tmp_path / "wild" / "best.toml").exists()
    in_process.started.clear()
    run(replace(tiny_request, recipe=wild, seeds=1), tmp_path / "wild")
    assert in_process.started == []  # it would diverge again


def test_a_failed_run_is_tried_once_more_before_the_choice(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    name = f"{DEPTH}-2x64-s0"
    fake_training.failing[name] = 1
    reports: list[Progress] = []

    class Watcher(NullWatcher):
        def progressed(self, progress: Progress) -> None:
            reports.append(progress)

    run(tiny_request, tmp_path / "out", watcher=Watcher())
    assert fake_training.started.count(name) == 2
    assert fake_training.started[-1] == name
    assert {row["status"] for row in table(tmp_path / "out")} == {"complete"}
    assert (reports[-1].done, reports[-1].runs) == (8, 8)


def test_a_run_that_fails_twice_keeps_its_cause_and_is_tried_again_next_time(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    name, one_seed = f"{DEPTH}-2x64-s0", replace(tiny_request, seeds=1)
    fake_training.failing[name] = 9
    reports: list[Progress] = []

    class Watcher(NullWatcher):
        def progressed(self, progress: Progress) -> None:
            reports.append(progress)

    outcome = run(one_seed, tmp_path / "out", watcher=Watcher())
    failed = [row for row in table(tmp_path / "out") if row["status"] == "failed"]
    assert [(row["run_id"], row["cause"]) for row in failed] == [(name, "made up")]
    assert (reports[-1].done, reports[-1].runs) == (4, 4)
    assert outcome.choice is not None
    (last,) = [s for s in outcome.choice.standings if s.candidate == DEPTH]
    score = last.score
    assert (score.loss, score.failed, score.causes) == (None, 1, ("made up",))
    assert (last.runs, last.loss, last.near) == ((0,), None, None)
    assert DEPTH not in {outcome.choice.taken, *outcome.choice.near}
    assert fake_training.started.count(name) == 2  # a third time would fail alike
    fake_training.started.clear()
    run(one_seed, tmp_path / "out")
    assert fake_training.started == [name]  # as before: once is enough to see it
    fake_training.started.clear()
    fake_training.failing.clear()
    run(one_seed, tmp_path / "out")
    assert fake_training.started == [name]
    assert {row["status"] for row in table(tmp_path / "out")} == {"complete"}


def test_all_candidates_have_one_seed_before_any_has_the_next(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    run(tiny_request, tmp_path / "out")
    assert [run_id[-2:] for run_id in fake_training.started] == ["s0"] * 4 + ["s1"] * 4


def test_the_executor_is_closed_however_a_search_ends(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    fake_training.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        run(tiny_request, tmp_path / "out")
    assert fake_training.closed == 1
    fake_training.stop_after = None
    run(tiny_request, tmp_path / "out")
    assert fake_training.closed == 2


def test_an_executor_that_is_given_stays_open_and_runs_nothing_when_a_search_has_ended(
    tmp_path: Path, tiny_request: SearchRequest, fake_training_class: Any
) -> None:
    executor = fake_training_class(stop_after=3)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tiny_request, tmp_path / "out", executor=executor)
        assert (executor.closed, executor.running()) == (0, [])
    executor.stop_after = None
    run(tiny_request, tmp_path / "out", executor=executor)
    assert executor.closed == 0
    assert len(table(tmp_path / "out")) == 8


def test_a_ctrl_c_that_python_drops_in_a_callback_stops_the_search_all_the_same(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Referred:
        pass

    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    outcome = fake_training.outcome

    def pressed_twice() -> None:  # the first one only asks for an end
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    def interrupted(job: TrainRun) -> Any:
        if not isinstance(job, TrainRun):
            return outcome(job)
        referred = Referred()
        reference = weakref.ref(referred, lambda _: pressed_twice())
        del referred
        assert reference() is None
        return outcome(job)

    monkeypatch.setattr(fake_training, "outcome", interrupted)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tiny_request, tmp_path / "out")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert dropped
    assert len(fake_training.started) == len(table(tmp_path / "out")) == 1
    assert fake_training.closed == 1


# --- samplers


@pytest.mark.parametrize("sampler", ["random", "tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_an_interrupted_sampler_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any, sampler: Any
) -> None:
    request = replace(tiny_request, sampler=sampler, trials=10)
    request = replace(request, proxy_base=None, proxy_macs=14_427_200)
    whole = run(request, tmp_path / "whole")
    networks = {replace(candidate.trained, name="x") for candidate in whole.candidates}
    assert len(networks) == len(whole.candidates) <= 12
    # later generations depend on results
    assert len({row["asked_after"] for row in table(whole.folder)}) >= 2
    for stop_after in (7, 5):
        fake_training.started.clear()
        fake_training.stop_after = stop_after
        with pytest.raises(KeyboardInterrupt):
            run(request, tmp_path / "parts")
    fake_training.stop_after = None
    parts = run(request, tmp_path / "parts")
    assert contents(tmp_path / "parts")["trials.csv"] == contents(tmp_path / "whole")["trials.csv"]
    assert parts.choice == whole.choice


def test_an_adaptive_sampler_looks_at_the_results(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(tiny_request, sampler="tpe", trials=24, seeds=1)
    request = replace(request, proxy_base=None, proxy_macs=40_000_000)
    one = run(request, tmp_path / "one").candidates
    monkeypatch.setattr(fake_training, "loss", lambda job: job.run.variant.resolution_px / 100)
    other = run(request, tmp_path / "other").candidates
    assert other[:8] == one[:8]  # the first generation, drawn before any result
    assert other != one


def test_a_sampler_ends_when_no_network_is_left_and_says_so(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    request = replace(tiny_request, sampler="random", trials=40, seeds=1)
    request = replace(request, proxy_base=None, proxy_macs=14_427_200)
    notes: list[str] = []
    reports: list[Progress] = []

    class Watcher(NullWatcher):
        def noted(self, text: str) -> None:
            notes.append(text)

        def progressed(self, progress: Progress) -> None:
            reports.append(progress)

    outcome = run(request, tmp_path / "out", watcher=Watcher())
    lattice = {candidate.name for candidate in lattice_candidates(outcome.settings, NOT_TIMED)}
    assert {candidate.name for candidate in outcome.candidates} == lattice
    assert len(fake_training.started) == len(lattice) < 40
    assert (reports[-1].done, reports[-1].runs) == (len(lattice), len(lattice))
    assert any(f"all {len(lattice)} networks that integers express" in text for text in notes)


def test_a_folder_whose_images_have_changed_is_not_gone_on_with(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    run(tiny_request, tmp_path / "out")
    path = tmp_path / "out" / "request.toml"
    digest = read_settings(path).data_hash
    path.write_text(path.read_text().replace(digest, "that of other images"))
    started = len(fake_training.started)
    with pytest.raises(ResultsError, match="the images have changed since the runs in"):
        run(tiny_request, tmp_path / "out")
    assert len(fake_training.started) == started


def test_the_precision_is_fixed_when_a_folder_is_first_opened(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny_request, tmp_path / "out")
    started = len(fake_training.started)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    plan = planned(replace(tiny_request, device="cuda:0", out=tmp_path / "out"))
    assert plan.settings.precision == "fp32"
    assert plan.runs_done == 8
    new = planned(replace(tiny_request, device="cuda:0", out=tmp_path / "new"))
    assert new.settings.precision == "bf16"
    assert tiny_request.recipe is not None
    other = replace(tiny_request, recipe=replace(tiny_request.recipe, precision="bf16"))
    with pytest.raises(ResultsError, match=r"\(its precision differs\)"):
        run(other, tmp_path / "out")
    assert len(fake_training.started) == started
