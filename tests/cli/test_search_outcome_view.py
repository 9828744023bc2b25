"""How the outcome of a search looks: the ranking, what is taken, and how sure that is."""

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from cmtscale.cli import search_outcome_view
from cmtscale.cli.search_outcome_view import print_outcome, print_shown, print_steps
from cmtscale.cli.search_words import excluding
from cmtscale.search.candidates import Candidate
from cmtscale.search.ladder import PRESETS
from cmtscale.search.outcome import Outcome
from cmtscale.search.runs import RungRun

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
    ranking = text[: text.index("losses are cross-entropies")]
    return {line.split()[0]: line.rstrip() for line in ranking.splitlines()[1:]}


def one_line(text: str) -> str:
    return " ".join(text.split())


def with_choice(finished: Outcome, **changes: Any) -> Outcome:
    """The finished search as if it were no tour, with another choice."""
    assert finished.choice is not None
    settings = replace(finished.settings, tour=False)
    return replace(finished, settings=settings, choice=replace(finished.choice, **changes))


def test_a_finished_search_prints_its_ranking_answer_and_the_paper_s_constants(
    finished: Outcome, capsys: Capture
) -> None:
    assert finished.choice is not None
    clear = replace(finished.choice, verdict="clear", probability=0.91)
    finished = replace(finished, choice=clear)
    print_outcome(finished)
    text = capsys.readouterr().out
    assert finished.choice is not None
    standings = finished.choice.standings
    lines = ranked_lines(text)
    assert list(lines) == [standing.candidate for standing in standings]
    for standing in standings:
        cells = lines[standing.candidate].split()
        if standing.loss is not None:
            assert f"{standing.loss.median:.4f}" in cells
            assert f"{standing.loss.low:.3f}–{standing.loss.high:.3f}" in cells
        assert f"{standing.longest.loss:.4f}" in cells
        assert cells.count("128") == 1  # images seen by the longest
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
    text = one_line(text)
    assert (
        f"Clear: {winner.name} is within 1 % of the lowest loss after 128 images with "
        f"probability 0.91; no other reaches 0.8" in text
    )
    assert re.search(r"between seeds 0\.\d{3} at 128 \(3 degrees of freedom\)", text)
    assert re.search(r"0\.\d{3} from the validation images, 0\.\d{3} from all together", text)
    assert "that twins rank as the real networks do is assumed, not measured" in text
    assert "test accuracy of what was trained" in text
    assert "recommends nothing" in text
    assert "this search has read the test split 2 times, last on 20" in text


def test_beside_the_network_taken_stand_other_ways_to_take_one(
    finished: Outcome, capsys: Capture
) -> None:
    print_outcome(finished)
    text = capsys.readouterr().out
    lines = text[text.index("\nbeside it ") :].splitlines()[2:7]
    assert finished.choice is not None
    for line, comparison in zip(lines, finished.choice.comparisons, strict=True):
        name, loss, _, excess = re.split(" {2,}", line)
        assert (name, loss) == (comparison.name, f"{comparison.loss.median:.4f}")
        assert excess.startswith(f"{100 * comparison.excess.median:+.1f} % (")
    text = printed(with_choice(finished, comparisons=()), capsys)
    assert "beside it" not in text


def printed(outcome: Outcome, capsys: Capture) -> str:
    print_outcome(outcome)
    return one_line(capsys.readouterr().out)


@pytest.mark.parametrize("verdict", ["nothing learned yet", "undecided"])
def test_what_decides_nothing_is_said_in_words_and_not_called_a_choice(
    finished: Outcome, capsys: Capture, verdict: Any
) -> None:
    changes: dict[str, Any] = {"verdict": verdict, "reason": "too short; train longer"}
    for probability, heading in ((0.5, "would be taken"), (None, "lowest loss on the budget")):
        outcome = with_choice(finished, **changes, probability=probability)
        print_outcome(outcome)
        text = capsys.readouterr().out
        if verdict != "undecided" or probability is None:
            assert f"{verdict.capitalize()}: too short; train longer" in text
        assert re.search(rf"^ +{heading}  the paper's constants$", text, re.MULTILINE)
        assert "Clear" not in text
    print_outcome(with_choice(finished))
    text = capsys.readouterr().out
    assert re.search(r"^ +choice  the paper's constants$", text, re.MULTILINE)


def test_an_undecided_search_says_what_would_decide_it(finished: Outcome, capsys: Capture) -> None:
    assert finished.choice is not None
    runs = tuple(RungRun(candidate=finished.choice.taken, rung=rung, seed=9) for rung in (0, 1, 1))
    outcome = with_choice(
        finished, verdict="undecided", probability=0.42, more=runs, more_seconds=400.0
    )
    settings = replace(outcome.settings, ladder=PRESETS["quick"])
    noise = replace(outcome.choice.noise, seeds=(0.1, 0.05))  # type: ignore[union-attr, type-var]
    choice = replace(outcome.choice, noise=noise)  # type: ignore[type-var]
    outcome = replace(outcome, settings=settings, choice=choice, workers=2)
    text = printed(outcome, capsys)
    assert f"Undecided: {finished.choice.taken} is within 1 % of the lowest loss" in text
    assert "with probability 0.42; about 3 min 00 s more (1 run of 128 and 2 runs of 384" in text
    assert "between seeds 0.100 at 128, 0.050 at 384 (3 degrees of freedom)" in text
    hopeless = replace(outcome, choice=replace(choice, more=None))
    assert "forty more runs would probably not decide it" in printed(hopeless, capsys)


@pytest.mark.parametrize(
    ("prefer", "costs", "words"),
    [
        ("latency", (0.0123, 0.0456), ("12.3 ms", "45.6 ms")),
        ("params", (36_960_381.0, 24.3e6), ("37 M", "24.3 M")),
        ("activations", (22e6, 35.5e6), ("22 M", "35.5 M")),
        ("macs", (4.07e9, 4e9), ("4.07 G", "4 G")),
    ],
)
def test_a_tie_names_all_of_it_and_what_decided(
    finished: Outcome, capsys: Capture, prefer: Any, costs: tuple[float, float], words: Any
) -> None:
    assert finished.choice is not None
    one, other = (standing.candidate for standing in finished.choice.standings[:2])
    both = {one: costs[0], other: costs[1]}
    tie: dict[str, Any] = {"verdict": "tie", "near": (one, other), "prefer": prefer}
    text = printed(with_choice(finished, **tie, costs=both, tolerance=0.025), capsys)
    within = "within 2.5 % of the lowest loss after 128 images with probability 0.8 or more"
    assert f"A tie of 2: {one}, {other} are each {within}" in text
    assert f"is taken for its {prefer} ({one} {words[0]}, {other} {words[1]})" in text
    unmeasured = printed(with_choice(finished, **tie, costs={}), capsys)
    assert f"as the most probable, for the {prefer} of all is not measured" in unmeasured


def test_a_tie_of_equal_latencies_says_that_parameters_decided(
    finished: Outcome, capsys: Capture
) -> None:
    assert finished.choice is not None
    one, other = (standing.candidate for standing in finished.choice.standings[:2])
    tie: dict[str, Any] = {"verdict": "tie", "near": (one, other), "prefer": "latency"}
    costs = {one: 0.109, other: 0.107}
    text = printed(with_choice(finished, **tie, costs=costs, taken=one), capsys)
    assert (
        "is taken for its params, the smallest of those whose latency is equal within 5 %" in text
    )


def test_what_cannot_be_chosen_has_no_probability_beside_it(
    finished: Outcome, capsys: Capture
) -> None:
    print_outcome(finished)
    lines = ranked_lines(capsys.readouterr().out)
    assert finished.choice is not None
    excluded = [s for s in finished.choice.standings if not s.may_win and s.loss is not None]
    assert excluded
    for standing in excluded:
        assert lines[standing.candidate].split().count("–") >= 2


def test_a_test_accuracy_is_of_runs_as_long_as_the_answer_s(
    finished: Outcome, capsys: Capture
) -> None:
    assert finished.choice is not None
    assert "test accuracy of what was trained, after 128 images: " in printed(finished, capsys)
    longer = tuple(replace(row, epochs=9) for row in finished.rows)
    assert "test accuracy" not in printed(replace(finished, rows=longer), capsys)


def test_a_target_that_nothing_was_trained_for_is_called_a_forecast(
    finished: Outcome, capsys: Capture
) -> None:
    clear = {"verdict": "clear", "probability": 0.9, "target_images": 300}
    text = printed(with_choice(finished, **clear), capsys)
    assert "after 300 images (forecast: nothing has seen more than 128) with probability" in text


def test_a_candidate_without_a_complete_run_stays_in_the_ranking(
    finished: Outcome, capsys: Capture
) -> None:
    assert finished.choice is not None
    *others, last = finished.choice.standings
    empty: dict[str, Any] = {"loss": None, "accuracy": None, "seeds": (), "failed": 2}
    score = replace(last.score, **empty, causes=("the worker died",))
    gone = replace(last, score=score, longest=score, runs=(0,), loss=None, near=None, best=None)
    text = printed(with_choice(finished, standings=(*others, gone)), capsys)
    (line,) = re.findall(rf"{gone.candidate} base – .*? base, failed", text)
    assert line.split()[7:10] == ["0", "–", "–"]  # runs, loss, accuracy
    assert "failed (no run of it is complete)" in text


def test_without_a_forecast_the_ranking_has_only_what_was_reached(
    finished: Outcome, capsys: Capture
) -> None:
    assert finished.choice is not None
    bare = tuple(replace(s, loss=None, near=None, best=None) for s in finished.choice.standings)
    nothing: dict[str, Any] = {"noise": None, "probability": None, "comparisons": ()}
    reason = "one seed each measures no noise"
    print_outcome(
        with_choice(finished, **nothing, verdict="undecided", reason=reason, standings=bare)
    )
    text = capsys.readouterr().out
    assert re.split(" {2,}", text.splitlines()[0].rstrip()) == [
        "candidate", "role", "d/w/r", "runs", "val loss", "accuracy", "after", "MACs", "excluded",
    ]  # fmt: skip
    assert f"Undecided: {reason}" in text
    assert "near: " not in text
    assert "noise, " not in text


def test_where_images_repeat_in_vain_there_is_a_warning(finished: Outcome, capsys: Capture) -> None:
    text = printed(with_choice(finished, bend="9 passes change the loss by -1 %"), capsys)
    assert "warning: 9 passes change the loss by -1 %" in text


def test_where_nothing_is_complete_each_run_says_what_happened(
    finished: Outcome, capsys: Capture
) -> None:
    metrics = ("val_loss", "val_loss_raw", "val_accuracy", "train_loss", "images_per_second")
    nothing = dict.fromkeys((*metrics, "temperature"))
    rows = tuple(
        replace(row, status="diverged", cause="loss not finite", **nothing) for row in finished.rows
    )
    print_outcome(replace(finished, rows=rows, choice=None))
    text, log = capsys.readouterr()
    for row in rows:
        assert f"{row.run_id} diverged: loss not finite\n" in log
    assert "there is nothing to choose from" in text


def test_show_counts_what_diverged_and_what_was_infeasible(
    finished: Outcome, capsys: Capture
) -> None:
    first, second, third, *others = finished.rows
    rows = (
        replace(first, status="diverged", cause="loss not finite"),
        replace(second, status="infeasible", cause="memory"),
        replace(third, status="infeasible", cause="memory"),
        *others,
    )
    print_shown(replace(finished, rows=rows), None)
    headline = one_line(capsys.readouterr().out)
    assert ", of which 1 diverged and 2 infeasible " in headline


def test_each_excluded_candidate_says_every_reason_and_each_is_explained_once(
    finished: Outcome, capsys: Capture
) -> None:
    choice, winner = finished.choice, finished.winner
    assert choice is not None
    assert winner is not None
    base, side, depth = (
        next(standing for standing in choice.standings if standing.score.role == role)
        for role in ("base", "resolution", "depth")
    )
    changed = {
        base.candidate: replace(base, runs=(0,)),
        depth.candidate: replace(depth, score=replace(depth.score, diverged=1)),
    }
    standings = tuple(changed.get(s.candidate, s) for s in choice.standings)
    print_outcome(with_choice(finished, standings=standings))
    text = capsys.readouterr().out
    lines = ranked_lines(text)
    off = 100 * (finished.candidate(side.candidate).macs / 4_000_000_000 - 1)
    assert abs(off) > 2
    assert lines[base.candidate].endswith("  base, failed")
    assert lines[side.candidate].endswith(f"  MACs {off:+.1f} %")
    assert lines[depth.candidate].endswith("  diverged")
    assert lines[winner.name].endswith("G")
    (explained,) = re.findall(r"excluded, cannot be chosen: .*", one_line(text))
    for word in ("base", "MACs", "diverged", "failed"):
        assert explained.count(f" {word} (") == 1
    assert "twin (" not in explained


def test_what_does_not_fit_is_excluded_for_want_of_memory(
    finished: Outcome, capsys: Capture
) -> None:
    choice = finished.choice
    assert choice is not None
    (depth,) = (standing for standing in choice.standings if standing.score.role == "depth")
    changed = replace(depth, runs=(0,), score=replace(depth.score, infeasible=2))
    standings = tuple(changed if s is depth else s for s in choice.standings)
    print_outcome(with_choice(finished, standings=standings))
    text = capsys.readouterr().out
    assert ranked_lines(text)[depth.candidate].endswith("  infeasible: memory")
    assert " infeasible: memory (the device's is too small" in one_line(text)


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


def test_what_is_off_the_budget_says_by_how_much_and_whether_only_its_twin_is(
    finished: Outcome,
) -> None:
    candidates = {candidate.role: candidate for candidate in finished.candidates}
    settings = finished.settings

    def cells(candidate: Candidate) -> list[str]:
        return [reason.cell for reason in excluding(candidate, settings)]

    assert cells(candidates["base"]) == ["base"]
    assert cells(candidates["width"]) == []
    side = candidates["resolution"]
    assert cells(side) == [f"MACs {100 * (side.macs / settings.budget_macs - 1):+.1f} %"]
    twin = replace(candidates["width"], trained_macs=2 * settings.trained_macs, on_budget=False)
    assert cells(twin) == ["twin +100.0 %"]


def test_what_exceeds_limits_names_them_and_the_ranking_explains_each_with_its_value(
    finished: Outcome, capsys: Capture
) -> None:
    choice = finished.choice
    assert choice is not None
    settings = replace(finished.settings, max_params=1_000_000, max_latency_seconds=0.008)
    loser = next(c for c in finished.candidates if c.on_budget and c != finished.winner)
    over = replace(loser, over=("params", "latency"))
    candidates = tuple(over if c == loser else c for c in finished.candidates)
    print_outcome(replace(finished, settings=settings, candidates=candidates))
    text = capsys.readouterr().out
    assert ranked_lines(text)[loser.name].endswith("  params, latency")
    (explained,) = re.findall(r"excluded, cannot be chosen: .*", one_line(text))
    assert "params (more than --max-params 1M)" in explained
    assert "latency (more than --max-latency 8ms)" in explained


def test_where_all_can_be_chosen_nothing_is_said_of_exclusion(
    finished: Outcome, capsys: Capture
) -> None:
    candidates = tuple(replace(candidate, on_budget=True) for candidate in finished.candidates)
    print_outcome(replace(finished, candidates=candidates))
    assert "excluded" not in capsys.readouterr().out


@pytest.mark.parametrize("width", [60, 70, 80, 160])
def test_on_a_narrow_terminal_ranking_and_answer_are_whole(
    finished: Outcome, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(width=width, file=io.StringIO(), highlight=False, emoji=False)
    monkeypatch.setattr(search_outcome_view, "results", lambda: console)
    print_outcome(finished)
    print_steps(finished, None)
    text = console.file.getvalue()
    assert "…" not in text
    commands = [line for line in text.splitlines() if ": cmtscale " in line]
    assert commands  # they are not broken, so that they can be copied
    assert max(len(line) for line in text.splitlines() if line not in commands) <= width
    header = text.splitlines()[0]
    for name in ("candidate", "loss at 128", "near", "excluded"):
        assert name in header
    assert ("role" in header) == (width == 160)
    assert "d/w/r" in header or width < 80
    winner = finished.winner
    assert winner is not None
    choice = networks(text)
    assert choice["stray"][0] == f"{100 * winner.stray:.1f} %"
    assert choice["phi"][0] == f"{winner.phi:.2f}"
    assert choice["dims"][0] == joined(winner.real.dims)
