"""How the outcome of a search looks: the ranking, the choice, and how sure it is."""

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from cmtscale.cli import search_outcome_view
from cmtscale.cli.search_outcome_view import print_outcome
from cmtscale.cli.search_words import off_budget_tag
from cmtscale.search.outcome import Outcome

Capture = pytest.CaptureFixture[str]


def networks(text: str) -> dict[str, list[str]]:
    """The table of the choice: by the name of the line, the cells of both networks."""
    lines = text[text.index("\ntrained as ") :].splitlines()[1:]
    rows = [re.split(" {2,}", line) for line in lines[:10]]
    return {name: cells for name, *cells in rows}


def joined(sizes: tuple[int, ...]) -> str:
    return "-".join(map(str, sizes))


def ranked_lines(text: str) -> dict[str, str]:
    """The lines of the ranking by candidate."""
    ranking = text[: text.index("val loss: ")]
    return {line.split()[0]: line.rstrip() for line in ranking.splitlines()[1:]}


def test_a_finished_search_prints_its_ranking_choice_and_the_paper_s_constants(
    finished: Outcome, capsys: Capture
) -> None:
    print_outcome(finished)
    text = capsys.readouterr().out
    ranked = [line.split()[0] for line in text.splitlines() if line.startswith("d")][:4]
    assert finished.choice is not None
    assert ranked == [score.candidate for score in finished.choice.ranking]
    choice = networks(text)
    assert list(choice) == [
        "trained as", "alpha", "beta", "gamma", "phi", "resolution", "dims", "depths", "MACs",
        "stray",
    ]  # fmt: skip
    winner, published = finished.winner, finished.paper
    assert winner is not None
    assert published is not None
    assert choice["trained as"] == [winner.name, "not trained"]
    assert [choice[name][1] for name in ("alpha", "beta", "gamma")] == ["1.200", "1.300", "1.150"]
    assert choice["dims"] == [joined(winner.real.dims), joined(published.variant.dims)]
    assert choice["depths"] == [joined(winner.real.depths), joined(published.variant.depths)]
    assert choice["phi"] == [f"{winner.phi:.2f}", f"{published.phi:.2f}"]
    assert choice["stray"] == [f"{100 * one.stray:.1f} %" for one in (winner, published)]
    assert re.search(r"how sure: best at this training length with probability 0\.\d\d; ", text)
    assert re.search(r"noise between seeds 0\.\d{4} \(4 degrees of freedom\)", text)
    assert "test accuracy of what was trained" in text
    assert "recommends nothing" in text
    assert "this search has read the test split 2 times, last on 20" in text


@pytest.mark.parametrize("verdict", ["nothing learned yet", "no choice can be made"])
def test_what_is_no_choice_is_said_in_words_and_not_called_one(
    finished: Outcome, capsys: Capture, verdict: Any
) -> None:
    assert finished.choice is not None
    choice = replace(finished.choice, verdict=verdict, reason="too short; train longer")
    settings = replace(finished.settings, tour=False)
    print_outcome(replace(finished, choice=choice, settings=settings))
    text = capsys.readouterr().out
    assert f"{verdict.capitalize()}: too short; train longer" in text
    assert re.search(r"^ +lowest loss on the budget  the paper's constants$", text, re.MULTILINE)
    print_outcome(replace(finished, choice=replace(choice, verdict="choice"), settings=settings))
    text = capsys.readouterr().out
    assert re.search(r"^ +choice  the paper's constants$", text, re.MULTILINE)


def test_a_candidate_without_a_complete_run_stays_in_the_ranking(
    finished: Outcome, capsys: Capture
) -> None:
    assert finished.choice is not None
    best, *others = finished.choice.ranking
    gone = replace(
        others[-1], loss=None, accuracy=None, images_per_second=None, seeds=(), failed=2,
        causes=("the worker died",), on_budget=True,
    )  # fmt: skip
    choice = replace(finished.choice, ranking=(best, *others[:-1], gone))
    print_outcome(replace(finished, choice=choice))
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if line.startswith(gone.candidate)]
    assert "failed" in line
    assert f"not in this choice, for no run of theirs is complete: {gone.candidate};" in text


def test_without_the_losses_of_the_images_the_search_does_not_say_how_sure_it_is(
    finished: Outcome, capsys: Capture
) -> None:
    assert finished.choice is not None
    print_outcome(replace(finished, choice=replace(finished.choice, probability=None)))
    text = capsys.readouterr().out
    assert "how sure: not known, val_losses.npz lacks some of the runs; noise between" in text


def test_where_nothing_is_complete_the_ranking_says_what_happened(
    finished: Outcome, capsys: Capture
) -> None:
    metrics = ("val_loss", "val_loss_raw", "val_accuracy", "train_loss", "images_per_second")
    nothing = dict.fromkeys((*metrics, "temperature"))
    rows = tuple(
        replace(row, status="diverged", cause="loss not finite", **nothing) for row in finished.rows
    )
    print_outcome(replace(finished, rows=rows, choice=None))
    text = capsys.readouterr().out
    for candidate in finished.candidates:
        (line,) = [line for line in text.splitlines() if line.startswith(candidate.name)]
        assert "diverged" in line
    assert "there is nothing to choose from" in text


def test_a_single_eligible_candidate_is_not_called_a_sure_choice(
    finished: Outcome, capsys: Capture
) -> None:
    choice = finished.choice
    assert choice is not None
    ranking = tuple(
        replace(score, on_budget=score.candidate == choice.winner) for score in choice.ranking
    )
    print_outcome(replace(finished, choice=replace(choice, ranking=ranking)))
    text = capsys.readouterr().out
    assert "how sure: no other candidate could be chosen" in text
    assert "with probability" not in text


def test_each_excluded_candidate_says_every_reason_and_each_is_explained_once(
    finished: Outcome, capsys: Capture
) -> None:
    choice, winner = finished.choice, finished.winner
    assert choice is not None
    assert winner is not None
    base, side, depth = (
        next(score for score in choice.ranking if score.role == role)
        for role in ("base", "resolution", "depth")
    )
    changed = {
        base.candidate: replace(base, loss=None, accuracy=None, images_per_second=None),
        depth.candidate: replace(depth, diverged=1),
    }
    ranking = tuple(changed.get(score.candidate, score) for score in choice.ranking)
    print_outcome(replace(finished, choice=replace(choice, ranking=ranking)))
    text = capsys.readouterr().out
    lines = ranked_lines(text)
    assert lines[base.candidate].endswith("  base, failed")
    assert lines[side.candidate].endswith("  off budget")
    assert lines[depth.candidate].endswith("  diverged")
    assert lines[winner.name].endswith(" %")
    (explained,) = re.findall(r"excluded, cannot be chosen: .*", " ".join(text.split()))
    for tag in ("base", "off budget", "diverged", "failed"):
        assert explained.count(f" {tag} (") == 1
    assert "twin off" not in explained


@pytest.mark.parametrize("change", ["role", "network"])
def test_the_paper_s_constants_are_trained_where_a_candidate_stands_for_them(
    finished: Outcome, capsys: Capture, change: str
) -> None:
    published = finished.paper
    assert published is not None
    *others, last = finished.candidates
    if change == "role":
        last = replace(last, role="paper")
    else:
        last = replace(last, real=published.variant)
    print_outcome(replace(finished, candidates=(*others, last)))
    assert networks(capsys.readouterr().out)["trained as"][1] == last.name


def test_where_only_the_twin_is_off_the_budget_its_tag_says_so(finished: Outcome) -> None:
    candidates = {candidate.role: candidate for candidate in finished.candidates}
    settings = finished.settings
    assert off_budget_tag(candidates["base"], settings) == "base"
    assert off_budget_tag(candidates["resolution"], settings) == "off budget"
    twin = replace(candidates["width"], trained_macs=2 * settings.trained_macs, on_budget=False)
    assert off_budget_tag(twin, settings) == "twin off"


def test_where_all_can_be_chosen_nothing_is_said_of_exclusion(
    finished: Outcome, capsys: Capture
) -> None:
    assert finished.choice is not None
    ranking = tuple(replace(score, on_budget=True) for score in finished.choice.ranking)
    print_outcome(replace(finished, choice=replace(finished.choice, ranking=ranking)))
    assert "excluded" not in capsys.readouterr().out


@pytest.mark.parametrize("width", [60, 70, 80])
def test_on_a_narrow_terminal_ranking_and_choice_are_whole(
    finished: Outcome, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(width=width, file=io.StringIO(), highlight=False, emoji=False)
    monkeypatch.setattr(search_outcome_view, "results", lambda: console)
    print_outcome(finished)
    text = console.file.getvalue()
    assert "…" not in text
    commands = [line for line in text.splitlines() if ": cmtscale " in line]
    assert commands  # they are not broken, so that they can be copied
    assert max(len(line) for line in text.splitlines() if line not in commands) <= width
    header = text.splitlines()[0]
    for name in ("candidate", "val loss", "± seeds", "accuracy", "excluded"):
        assert name in header
    assert "d/w/r" in header or width < 80
    winner = finished.winner
    assert winner is not None
    choice = networks(text)
    assert choice["stray"][0] == f"{100 * winner.stray:.1f} %"
    assert choice["phi"][0] == f"{winner.phi:.2f}"
    assert choice["dims"][0] == joined(winner.real.dims)
