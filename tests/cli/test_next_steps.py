"""The commands that a search and a training end with can be copied and do what they say."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cmtscale.arch.variant import Variant
from cmtscale.cli.app import run
from cmtscale.cli.next_steps import after_search
from cmtscale.cli.search_outcome_view import print_json
from cmtscale.record.choice import Verdict
from cmtscale.search.ladder import PRESETS
from cmtscale.search.outcome import Outcome


def real(finished: Outcome, **changes: object) -> Outcome:
    """The finished tour as if it were a search that decided."""
    assert finished.choice is not None
    settings = replace(finished.settings, tour=False, **changes)  # type: ignore[arg-type]
    return replace(finished, settings=settings, choice=replace(finished.choice, verdict="clear"))


def test_a_tour_ends_with_how_to_search_one_s_own_images(finished: Outcome) -> None:
    steps = dict(after_search(finished, None))
    assert steps["your images"] == ("cmtscale search --budget 4G --data folder:PATH --dry-run")
    assert steps["figures"] == f"cmtscale plot {shlex.quote(str(finished.folder))}"
    assert "train it" not in steps


def test_a_search_ends_with_a_longer_ladder_and_the_training_of_what_it_took(
    finished: Outcome,
) -> None:
    steps = dict(after_search(real(finished), None))
    folder = finished.folder
    assert steps["longer"] == f"cmtscale search --from {folder} --ladder quick"
    assert steps["train it"] == (
        f"cmtscale train --variant {folder}/best.toml --data digits --out runs/{folder.name} --test"
    )
    assert "surer" not in steps
    tallest = real(finished, ladder=PRESETS["thorough"])
    assert "longer" not in dict(after_search(tallest, None))


def test_the_training_of_the_choice_tests_on_the_splits_of_the_search(finished: Outcome) -> None:
    assert "--split-seed 7 " in dict(after_search(real(finished, split_seed=7), None))["train it"]


@pytest.mark.parametrize("verdict", ["nothing learned yet", "undecided"])
def test_what_decides_nothing_is_offered_for_more_runs_and_not_for_training(
    finished: Outcome, verdict: Verdict
) -> None:
    outcome = real(finished, ladder=PRESETS["standard"])
    assert outcome.choice is not None
    undecided = replace(outcome, choice=replace(outcome.choice, verdict=verdict))
    for ended in (undecided, replace(outcome, choice=None)):
        steps = dict(after_search(ended, None))
        assert "train it" not in steps
        assert "surer" not in steps  # no number of runs would
    surer = {
        needed: dict(after_search(replace(undecided, spend_needed=needed), None))["surer"]
        for needed in (0.614, 0.1)  # less than what was spent would change nothing
    }
    command = f"cmtscale search --from {finished.folder} --spend"
    assert surer == {0.614: f"{command} 0.63", 0.1: f"{command} 0.31"}


def test_a_search_with_a_time_limit_is_offered_more_time(finished: Outcome) -> None:
    outcome = real(finished, max_seconds=3_600)
    assert outcome.choice is not None
    undecided = replace(outcome, choice=replace(outcome.choice, verdict="undecided"))
    steps = dict(after_search(replace(undecided, seconds_needed=5_000.0), None))
    # --spend beside a time limit is refused, and a longer ladder has no time
    assert steps["surer"] == f"cmtscale search --from {finished.folder} --max-time 1h24m"
    assert "longer" not in steps


def test_a_tie_is_offered_for_training(finished: Outcome) -> None:
    outcome = real(finished)
    assert outcome.choice is not None
    tie = replace(outcome, choice=replace(outcome.choice, verdict="tie"))
    assert "train it" in dict(after_search(tie, None))


def test_a_training_ends_with_a_longer_one_of_the_same_recipe(
    printed: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tiny_base: Variant,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(tiny_base.to_toml())
    command = f"train -v tiny.toml --data digits --out out --epochs 3 --cache-dir {cache_dir} "
    command += "--train-images 64 --batch-size 16 --lr 0.001 --split-seed 2 --device cpu"
    text = printed(*command.split())
    (longer,) = re.findall(r"^longer: cmtscale (.*)$", text, re.MULTILINE)
    options = "--epochs 6 --batch-size 16 --lr 0.001 --train-images 64 --no-augment"
    for option in (options, "--split-seed 2", "--out out-6-epochs", "--variant tiny.toml"):
        assert option in longer
    assert "--seed " not in longer  # as it is by default
    assert run(shlex.split(longer)) == 0
    recipe = json.loads(Path("out-6-epochs/run.json").read_text())["run"]
    first = json.loads(Path("out/run.json").read_text())["run"]
    assert {name for name in first if first[name] != recipe[name]} == {"recipe.epochs"}
    capsys.readouterr()
    assert run([*command.split(), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["folder"], described["status"]) == ("out", "complete")
    assert described["test_accuracy"] is None
    Path("out/checkpoint.pt").unlink()
    assert "was not read: the checkpoint is gone" in printed(*command.split(), "--test")


def test_the_json_of_a_search_is_its_choice(
    finished: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    print_json(finished, None)
    described = json.loads(capsys.readouterr().out)
    assert described == {
        "folder": str(finished.folder),
        "choice": json.loads((finished.folder / "choice.json").read_text()),
    }
    print_json(replace(finished, choice=None), None)
    assert json.loads(capsys.readouterr().out)["choice"] is None
