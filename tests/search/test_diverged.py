"""Losses that are not finite: a result, with its step, that stands last and is not tried again."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from cmtscale.cli.app import run as cli
from cmtscale.cli.follow_view import screen_of
from cmtscale.record.folder import held
from cmtscale.record.row import Row, read_rows
from cmtscale.report.frames import load_candidates
from cmtscale.search import samplers
from cmtscale.search.driver import search
from cmtscale.search.follow import Follower, Going
from cmtscale.search.jobs import TrainRun
from cmtscale.search.outcome import Outcome
from cmtscale.search.request import SearchRequest
from cmtscale.search.standings import by_first_rung, reached
from cmtscale.train import loop
from cmtscale.train.evaluate import Predictions

BASE, DEPTH, WIDTH, RESOLUTION = (
    "d1.1.1.1-w4-r64",
    "d4.3.3.3-w4-r64",
    "d1.1.1.1-w6-r64",
    "d1.1.1.1-w4-r96",
)
WILD = f"{WIDTH}-2x64-s1"  # its other seed has a loss
BLIND = f"{BASE}-2x64-s0"


@dataclass(frozen=True)
class Searched:
    folder: Path
    outcome: Outcome
    request: SearchRequest
    started_again: list[str]

    @property
    def rows(self) -> dict[str, Row]:
        return {row.run_id: row for row in read_rows(self.folder / "trials.csv")}


@pytest.fixture
def searched(
    tmp_path: Path,
    tiny_request: SearchRequest,
    use_executor: Callable[[Any], None],
    fake_training_class: Any,
    in_process_class: Any,
    monkeypatch: pytest.MonkeyPatch,
    single_threaded: None,  # noqa: ARG001
) -> Searched:
    """A search of made-up runs, but two: one of a wild learning rate, one blind when validated.

    The other seeds of these networks have the lowest losses.
    """

    class Mixed(fake_training_class):  # type: ignore[misc]
        def loss(self, job: TrainRun) -> float:
            return (0.5 if job.candidate in (BASE, WIDTH) else 1.0) * float(super().loss(job))

        def outcome(self, job: Any) -> Any:
            if isinstance(job, TrainRun) and job.run.run_id == WILD:
                # weights are multiplied by 1 - lr * weight_decay each step, until they overflow
                recipe = replace(job.run.recipe, batch_size=4, lr=100.0, weight_decay=100.0)
                wild = replace(job.run, recipe=recipe)
                return loop.train(wild, device=torch.device("cpu"), folder=job.folder)
            if isinstance(job, TrainRun) and job.run.run_id == BLIND:
                with monkeypatch.context() as patch:
                    patch.setattr(loop, "predict", with_nan)
                    return in_process_class.outcome(self, job)
            return super().outcome(job)

    predict = loop.predict

    def with_nan(*arguments: Any, **named: Any) -> Predictions:
        predictions = predict(*arguments, **named)
        logits = predictions.logits.clone()
        logits[7, 3] = torch.nan
        return replace(predictions, logits=logits)

    request = replace(tiny_request, out=tmp_path / "out")
    use_executor(Mixed())
    outcome = search(request)
    assert outcome is not None
    again = Mixed()
    use_executor(again)
    search(request)
    return Searched(tmp_path / "out", outcome, request, again.started)


def test_both_are_results_with_their_step_and_are_not_tried_again(searched: Searched) -> None:
    assert searched.started_again == []
    wild, blind = searched.rows[WILD], searched.rows[BLIND]
    assert (wild.status, blind.status) == ("diverged", "diverged")
    assert wild.cause.startswith("loss not finite at step ")
    assert wild.cause.endswith(" of 32")
    assert blind.cause == "validation loss not finite after step 1"
    assert (blind.val_loss, blind.val_accuracy, blind.train_loss) == (None, None, None)
    others = searched.rows.keys() - {WILD, BLIND}
    assert {searched.rows[name].status for name in others} == {"complete"}


def test_they_stand_last_though_another_seed_has_a_loss(searched: Searched) -> None:
    choice = searched.outcome.choice
    assert choice is not None
    ranked = [standing.candidate for standing in choice.standings]
    assert set(ranked[:2]) == {DEPTH, RESOLUTION}
    assert ranked[2:] == [WIDTH, BASE]  # the one with a forecast first
    assert choice.taken == DEPTH
    settings, rows = searched.outcome.settings, searched.outcome.rows
    unforecast = by_first_rung(reached(settings, rows, searched.outcome.candidates))
    assert {standing.candidate for standing in unforecast[2:]} == {WIDTH, BASE}


def test_show_names_the_step_and_counts_them(
    searched: Searched, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["show", str(searched.folder)]) == 0
    text = capsys.readouterr().out
    assert "so far 8 runs of 128 images, of which 2 diverged" in " ".join(text.split())
    for name in (WILD, BLIND):
        assert f"{name} diverged: {searched.rows[name].cause}\n" in text
    ranked = [line.split()[0] for line in text.splitlines() if line.startswith("d")]
    table = [name for name in ranked if name in (BASE, DEPTH, WIDTH, RESOLUTION)]
    assert table[2:4] == [WIDTH, BASE]
    assert cli(["show", str(searched.folder), "--json"]) == 0
    standings = json.loads(capsys.readouterr().out)["choice"]["standings"]
    assert [standing["may_win"] for standing in standings[-2:]] == [False, False]


def test_a_follower_ranks_them_last_with_their_step(searched: Searched) -> None:
    with held(searched.folder):
        going = Follower(searched.folder).look()
    assert isinstance(going, Going)
    assert {score.candidate for score in going.ranking[2:]} == {WIDTH, BASE}
    assert {row.run_id for row in going.failures} == {WILD, BLIND}
    console = Console(width=160)
    with console.capture() as captured:
        console.print(screen_of(going, console))
    text = captured.get()
    assert f"diverged: {searched.rows[WILD].cause}" in text
    (line,) = [line for line in text.splitlines() if line.startswith(WIDTH) and "%" in line]
    assert line.split("%")[1].strip() in ("1, 1 diverged", "2, 1 diverged")
    first, *others = going.ranking
    going = replace(going, ranking=(replace(first, infeasible=1), *others))
    with console.capture() as captured:
        console.print(screen_of(going, console))
    (line,) = [x for x in captured.get().splitlines() if x.startswith(first.candidate) and "%" in x]
    assert line.split("%")[1].strip() == "2, 1 infeasible"


def test_figures_count_them_apart(searched: Searched) -> None:
    table = load_candidates(searched.folder).set_index("candidate")
    assert table["diverged"].to_dict() == {BASE: 1, DEPTH: 0, WIDTH: 1, RESOLUTION: 0}
    assert not table["failed"].any()
    assert not table.loc[WIDTH, "may_win"]


# --- what samplers are told


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_is_told_that_what_diverged_is_as_bad_as_the_worst(
    sampler: str,
    tmp_path: Path,
    tiny_request: SearchRequest,
    use_executor: Callable[[Any], None],
    fake_training_class: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Narrow(fake_training_class):  # type: ignore[misc]
        """Whatever has 64 px diverges with its second seed; its first has a very low loss."""

        def loss(self, job: TrainRun) -> float:
            lower = 0.01 if job.run.variant.resolution_px == 64 else 1.0
            return lower * float(super().loss(job))

        def outcome(self, job: Any) -> Any:
            result = super().outcome(job)
            is_narrow = isinstance(job, TrainRun) and job.run.variant.resolution_px == 64
            if not is_narrow or job.run.seed == 0:
                return result
            nothing = dict.fromkeys(("val_loss", "val_loss_raw", "val_accuracy", "train_loss"))
            return replace(result, status="diverged", cause="loss not finite at step 3", **nothing)

    told: list[float] = []
    create_trial = samplers.create_trial

    def listening(*, params: Any, distributions: Any, value: float) -> Any:
        told.append(value)
        return create_trial(params=params, distributions=distributions, value=value)

    monkeypatch.setattr(samplers, "create_trial", listening)
    use_executor(Narrow())
    request = replace(tiny_request, sampler=sampler, trials=12, proxy_macs=40_000_000)
    outcome = search(replace(request, proxy_base=None, out=tmp_path / "out"))
    assert outcome is not None
    rows = [row for row in outcome.rows if row.asked < 8]  # the first generation is told
    worst = max(row.val_loss for row in rows if row.val_loss is not None)
    narrow = {row.candidate for row in rows if row.status == "diverged"}
    assert 0 < len(narrow) < 8
    expected = [worst if row.candidate in narrow else row.val_loss for row in rows]
    assert told == expected
    assert min(told) > 0.1
