"""Whole searches with limits on the real network, and with a family of budgets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.variant import variant
from cmtscale.cli.app import run as command
from cmtscale.record.folder import holds_anything
from cmtscale.record.row import read_rows
from cmtscale.search.candidates import lattice_candidates
from cmtscale.search.check_drift import check_drift
from cmtscale.search.driver import search
from cmtscale.search.jobs import TimePrediction
from cmtscale.search.ladder import Ladder
from cmtscale.search.outcome import Outcome, save_choice
from cmtscale.search.request import SearchRequest
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.settings import read_settings

# of the real networks: 20.7 M to 37.0 M params, a made-up prediction takes as many nanoseconds
LIMIT = 30_000_000


@pytest.fixture
def wide(tiny_request: SearchRequest) -> SearchRequest:
    """All mixtures of the triangle, once."""
    return replace(tiny_request, proxy_base=None, proxy_macs=14_427_200, seeds=1, trials=100)


@pytest.fixture
def predictions(fake_training: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The real networks whose latency was measured."""
    names: list[str] = []
    submit = type(fake_training).submit

    def noted(self: Any, job: Any) -> None:
        if isinstance(job, TimePrediction):
            names.extend(network.name for network in job.networks)
        submit(self, job)

    monkeypatch.setattr(type(fake_training), "submit", noted)
    return names


def run(request: SearchRequest, out: Path) -> Outcome:
    outcome = search(replace(request, out=out))
    assert outcome is not None
    return outcome


def trained(folder: Path) -> set[str]:
    return {row.candidate for row in read_rows(folder / "trials.csv")}


def params(outcome: Outcome, name: str) -> int:
    return cost(outcome.candidate(name).real).params


@pytest.mark.usefixtures("fake_training")
def test_what_exceeds_a_limit_is_not_trained_and_a_corner_is_not_chosen(
    tmp_path: Path, wide: SearchRequest
) -> None:
    outcome = run(replace(wide, seeds=2, max_params=LIMIT), tmp_path / "out")
    lattice = lattice_candidates(outcome.settings, NOT_TIMED)
    heavy = {c.name for c in lattice if cost(c.real).params > LIMIT}
    light = {c.name for c in lattice} - heavy
    corners = {c.name for c in outcome.candidates if c.role in ("depth", "width", "resolution")}
    assert heavy - corners
    assert heavy & corners
    assert trained(tmp_path / "out") & heavy == heavy & corners
    assert light < trained(tmp_path / "out")
    assert outcome.choice is not None
    for standing in outcome.choice.standings:
        assert standing.may_win == (standing.candidate in light)
    assert outcome.choice.taken in light
    assert set(outcome.choice.near) <= light
    written = json.loads((tmp_path / "out" / "choice.json").read_text())
    assert {s["candidate"] for s in written["standings"] if s["may_win"]} == light
    assert cost(variant(str(tmp_path / "out" / "best.toml"))).params <= LIMIT


def test_limits_are_asked_and_may_change_in_the_folder_of_the_search(
    tmp_path: Path, wide: SearchRequest, fake_training: Any
) -> None:
    free = run(replace(wide, seeds=2), tmp_path / "out")
    every = list(fake_training.started)
    fake_training.started.clear()
    limited = run(replace(wide, seeds=2, max_params=LIMIT), tmp_path / "out")
    assert fake_training.started == []  # what is excluded now was trained before
    assert limited.settings.identity == free.settings.identity
    assert read_settings(tmp_path / "out" / "request.toml").max_params == LIMIT
    assert {s.candidate for s in limited.standings} == {s.candidate for s in free.standings}
    for standing in limited.standings:
        within = params(limited, standing.candidate) <= LIMIT
        assert standing.may_win == (within and standing.score.on_budget)
    more = run(replace(wide, seeds=3, max_params=LIMIT), tmp_path / "out")
    again = {name.rsplit("-", 2)[0] for name in fake_training.started}
    excluded = {c.name for c in more.candidates if not c.may_be_trained}
    assert excluded
    assert again == {name.rsplit("-", 2)[0] for name in every} - excluded
    own = {"device": "cpu", "workers": 2, "cache_dir": wide.cache_dir}
    lifted = run(replace(more.settings.as_request(), max_params=None, **own), tmp_path / "out")
    assert not any(candidate.over for candidate in lifted.candidates)
    assert "max_params" not in (tmp_path / "out" / "request.toml").read_text()


def test_latencies_are_measured_before_training_kept_and_decide_alike_when_it_goes_on(
    tmp_path: Path, wide: SearchRequest, fake_training: Any, predictions: list[str]
) -> None:
    request = replace(wide, max_latency_seconds=LIMIT * 1e-9, prefer="latency")
    fake_training.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(request, tmp_path / "out")
    timings = json.loads((tmp_path / "out" / "timings.json").read_text())
    assert set(timings["latency_seconds"]) == set(predictions)
    fake_training.stop_after = None
    measured = list(predictions)
    outcome = run(request, tmp_path / "out")
    assert predictions == measured
    assert (
        len(measured) == len(set(measured)) == len(lattice_candidates(outcome.settings, NOT_TIMED))
    )
    assert outcome.choice is not None
    assert params(outcome, outcome.choice.taken) <= LIMIT
    by_params = run(replace(wide, max_params=LIMIT), tmp_path / "other")
    assert trained(tmp_path / "out") == trained(tmp_path / "other")
    assert by_params.choice is not None
    assert by_params.choice.taken == outcome.choice.taken


@pytest.mark.usefixtures("fake_training")
def test_drift_is_forecast_for_what_is_within_a_limit_on_latency(
    tmp_path: Path, wide: SearchRequest
) -> None:
    outcome = run(replace(wide, seeds=2, max_latency_seconds=LIMIT * 1e-9), tmp_path / "out")
    drift = check_drift(tmp_path / "out")
    assert drift.may_be_chosen == sum(standing.may_win for standing in outcome.standings) > 2
    assert not drift.forecast_missing
    assert drift.rungs[0].best is not None


@pytest.mark.usefixtures("fake_training")
def test_where_latencies_are_lost_show_says_so_and_how_they_are_measured(
    tmp_path: Path, wide: SearchRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    run(replace(wide, seeds=2, max_latency_seconds=LIMIT * 1e-9, prefer="params"), folder)
    (folder / "timings.json").unlink()
    assert command(["show", str(folder)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    settings = read_settings(folder / "request.toml")
    names = {c.name for c in lattice_candidates(settings, NOT_TIMED)}
    count = len(trained(folder) & names)
    measure = f"measure it: cmtscale search --from {folder}"
    assert f"the latency of {count} networks is not measured here; {measure}" in text
    assert "untimed (its latency, which is limited, is not measured here)" in text
    assert "(more than --max-latency" not in text
    assert command(["check", str(folder), "--drift"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "no forecast: it takes two networks that may be chosen, and there are none" in text


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.usefixtures("fake_training")
def test_a_sampler_asks_for_networks_within_the_limits_alone(
    tmp_path: Path, wide: SearchRequest, sampler: Any
) -> None:
    request = replace(wide, sampler=sampler, max_params=LIMIT, trials=4)
    outcome = run(request, tmp_path / "out")
    assert len(outcome.candidates) == 4
    assert all(candidate.may_be_chosen for candidate in outcome.candidates)
    within = [c for c in lattice_candidates(outcome.settings, NOT_TIMED) if not c.over]
    everything = run(replace(request, trials=100), tmp_path / "out")
    assert {c.name for c in everything.candidates} == {c.name for c in within}


@pytest.mark.usefixtures("fake_training")
def test_what_a_sampler_asked_for_before_does_not_count_when_it_exceeds_a_limit(
    tmp_path: Path, wide: SearchRequest
) -> None:
    request = replace(wide, sampler="random", trials=4)
    before = run(request, tmp_path / "out")
    limit = sorted(params(before, candidate.name) for candidate in before.candidates)[1]
    after = run(replace(request, max_params=limit), tmp_path / "out")
    excluded = [c.name for c in after.candidates if params(after, c.name) > limit]
    assert excluded
    assert {c.name for c in before.candidates} <= {c.name for c in after.candidates}
    allowed = [c for c in after.candidates if c.may_be_trained]
    within = [c for c in lattice_candidates(after.settings, NOT_TIMED) if not c.over]
    assert len(allowed) >= min(4, len(within))


@pytest.mark.usefixtures("fake_training")
def test_a_ladder_decides_among_what_is_within_the_limits(
    tmp_path: Path, wide: SearchRequest
) -> None:
    ladder = Ladder(rungs=2, noise_degrees=4, spend=0.5)
    free = run(replace(wide, ladder=Ladder(rungs=2, noise_degrees=4, spend=0)), tmp_path / "out")
    runs = {row.run_id for row in read_rows(tmp_path / "out" / "trials.csv")}
    outcome = run(replace(wide, ladder=ladder, max_params=LIMIT), tmp_path / "out")
    new = [r for r in read_rows(tmp_path / "out" / "trials.csv") if r.run_id not in runs]
    allowed = {c.name for c in outcome.candidates if c.may_be_trained}
    assert new
    assert {row.candidate for row in new} <= allowed < {c.name for c in free.candidates}


@pytest.mark.usefixtures("fake_training")
def test_where_nothing_is_left_nothing_is_written(tmp_path: Path, wide: SearchRequest) -> None:
    with pytest.raises(RequestError, match="the tightest is --max-params 1M"):
        run(replace(wide, max_params=1_000_000), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run(wide, tmp_path / "out")
    before = (tmp_path / "out" / "request.toml").read_bytes()
    with pytest.raises(RequestError, match="the tightest is --max-params 1M"):
        run(replace(wide, max_params=1_000_000), tmp_path / "out")
    assert (tmp_path / "out" / "request.toml").read_bytes() == before
    assert holds_anything(tmp_path / "out")


@pytest.mark.usefixtures("fake_training")
def test_each_budget_of_a_family_gets_a_file_with_the_shares_of_the_choice(
    tmp_path: Path, tiny_request: SearchRequest
) -> None:
    request = replace(tiny_request, family=(1_500_000_000, 600_000_000))
    outcome = run(request, tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").glob("best*.toml")}
    assert files == {"best.toml", "best-600M.toml", "best-1.5G.toml"}
    written = json.loads((tmp_path / "out" / "choice.json").read_text())["family"]
    assert [member["budget_macs"] for member in written] == [600_000_000, 1_500_000_000]
    for member, described in zip(outcome.family, written, strict=True):
        text = (tmp_path / "out" / described["file"]).read_text()
        assert text.startswith("# cmtscale search --budget 600M,1.5G,4G --data digits: ")
        network = variant(str(tmp_path / "out" / described["file"]))
        assert member.solution is not None
        assert network.same_network(member.solution.variant)
        counted = cost(network)
        assert (described["macs"], described["params"]) == (counted.macs, counted.params)
        assert abs(counted.macs / described["budget_macs"] - 1) <= 0.02


def test_a_family_is_more_of_an_answer_not_another_search(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    alone = run(tiny_request, tmp_path / "out")
    assert "family" not in json.loads((tmp_path / "out" / "choice.json").read_text())
    fake_training.started.clear()
    outcome = run(replace(tiny_request, family=(600_000_000,)), tmp_path / "out")
    assert fake_training.started == []
    assert outcome.settings.identity == alone.settings.identity
    assert (tmp_path / "out" / "best-600M.toml").exists()
    mine = tmp_path / "out" / "best-mine.toml"
    mine.write_text("# not the search's\n")
    run(replace(tiny_request, family=(2_000_000_000,)), tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").glob("best*.toml")}
    assert files == {"best.toml", "best-2G.toml", mine.name}


@pytest.mark.usefixtures("fake_training")
def test_a_member_without_a_network_is_a_reason_and_no_file(
    tmp_path: Path, tiny_request: SearchRequest
) -> None:
    outcome = run(replace(tiny_request, family=(600_000_000,)), tmp_path / "out")
    (member,) = outcome.family
    lacking = replace(member, solution=None, reason="no variant; the nearest that works is 590M")
    save_choice(replace(outcome, family=(lacking,)))
    assert not (tmp_path / "out" / "best-600M.toml").exists()
    (written,) = json.loads((tmp_path / "out" / "choice.json").read_text())["family"]
    assert (written["network"], written["reason"]) == (None, lacking.reason)


def test_a_family_budget_out_of_reach_is_refused_before_training(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    with pytest.raises(RequestError, match=r"scaling reaches a factor of 32; use 48\.2M or more"):
        run(replace(tiny_request, family=(20_000_000,)), tmp_path / "out")
    assert fake_training.started == []
    assert not (tmp_path / "out").exists()
