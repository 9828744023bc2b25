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
from cmtscale.search.outcome import Outcome


def real(finished: Outcome, **changes: object) -> Outcome:
    """The finished tour as if it were a search that chose."""
    assert finished.choice is not None
    settings = replace(finished.settings, tour=False, **changes)
    return replace(finished, settings=settings, choice=replace(finished.choice, verdict="choice"))


def test_a_tour_ends_with_how_to_search_one_s_own_images(finished: Outcome) -> None:
    steps = dict(after_search(finished))
    assert steps["your images"] == (
        "cmtscale search --budget 4G --data folder:PATH --seeds 2 --dry-run"
    )
    assert steps["figures"] == f"cmtscale plot {shlex.quote(str(finished.folder))}"
    assert "train it" not in steps


def test_a_search_ends_with_more_of_it_and_the_training_of_its_choice(finished: Outcome) -> None:
    steps = dict(after_search(real(finished)))
    folder = finished.folder
    assert steps["surer"] == f"cmtscale search --from {folder} --seeds 3"
    # an epoch of 64 images is one step here, and a training should have 100 or more
    assert steps["longer"] == f"cmtscale search --from {folder} --epochs 100"
    assert steps["train it"] == (
        f"cmtscale train --variant {folder}/best.toml --data digits --out runs/{folder.name} --test"
    )


def test_the_training_of_the_choice_tests_on_the_splits_of_the_search(finished: Outcome) -> None:
    assert "--split-seed 7 " in dict(after_search(real(finished, split_seed=7)))["train it"]


@pytest.mark.parametrize("verdict", ["nothing learned yet", "no choice can be made"])
def test_what_is_no_choice_is_not_offered_for_training(finished: Outcome, verdict: str) -> None:
    outcome = real(finished)
    assert outcome.choice is not None
    undecided = replace(outcome, choice=replace(outcome.choice, verdict=verdict))  # type: ignore[arg-type]
    assert "train it" not in dict(after_search(undecided))
    assert ("surer" in dict(after_search(undecided))) == (verdict != "nothing learned yet")
    assert "train it" not in dict(after_search(replace(outcome, choice=None)))


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
    print_json(finished)
    described = json.loads(capsys.readouterr().out)
    assert described == {
        "folder": str(finished.folder),
        "choice": json.loads((finished.folder / "choice.json").read_text()),
    }
    print_json(replace(finished, choice=None))
    assert json.loads(capsys.readouterr().out)["choice"] is None
