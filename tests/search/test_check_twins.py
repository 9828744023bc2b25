"""The same networks as twins of several sizes, trained beside a search: what is run, and where."""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import CmtscaleError
from cmtscale.record.losses import read_losses, write_image_losses
from cmtscale.record.row import read_rows, to_csv
from cmtscale.record.twin_check import TwinCheck, read_twin_check
from cmtscale.search import check_side
from cmtscale.search.candidates import grid
from cmtscale.search.check_twins import NullTwinWatcher, TwinPlan, TwinRequest, check_twins
from cmtscale.search.driver import search
from cmtscale.search.request import SearchRequest
from cmtscale.search.settings import read_settings

OWN, LARGER = "10.4M", "21.3M"
NETWORKS = 7


@pytest.fixture
def folder(fake_training: Any, cache_dir: Path, tmp_path: Path) -> Path:
    """A finished search of 10.4 M MAC twins on the digits, trained by nobody."""
    out = tmp_path / "search"
    request = SearchRequest(budget_macs=4_000_000_000, device="cpu", workers=1, out=out)
    search(replace(request, trials=8, prefer="params", cache_dir=cache_dir))
    fake_training.started.clear()
    return out


@pytest.fixture
def check(folder: Path, cache_dir: Path) -> Callable[..., TwinCheck]:
    """A function: the check of the search with what is given."""

    def run(**asked: Any) -> TwinCheck:
        request = TwinRequest(folder=folder, device="cpu", workers=1, cache_dir=cache_dir, **asked)
        found = check_twins(request)
        assert found is not None
        return found

    return run


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "twins" / "twins.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_the_search_and_the_check_have_trained_is_not_repeated(
    folder: Path, check: Callable[..., TwinCheck], fake_training: Any
) -> None:
    searched = contents(folder)
    check(seeds=2)
    # the search has one seed of its own size: the second one is missing, and all of the larger
    assert len(fake_training.started) == NETWORKS + 2 * NETWORKS
    after = contents(folder)
    assert {path: after[path] for path in searched} == searched  # the search itself is untouched
    own = {row.run_id: row for row in read_rows(folder / "twins" / OWN / "trials.csv")}
    for row in read_rows(folder / "trials.csv"):
        if row.run_id in own:
            assert own[row.run_id].outcome == row.outcome
    assert len(own) == 2 * NETWORKS
    assert read_losses(folder / "twins" / OWN).keys() == own.keys()
    fake_training.started.clear()
    assert check(seeds=2) == read_twin_check(folder)
    assert fake_training.started == []
    check(seeds=3)
    assert len(fake_training.started) == 2 * NETWORKS


def test_a_check_that_was_stopped_goes_on_and_ends_as_one_that_was_not(
    folder: Path, check: Callable[..., TwinCheck], fake_training: Any
) -> None:
    fake_training.stop_after = NETWORKS + 3
    with pytest.raises(KeyboardInterrupt):
        check()
    assert read_twin_check(folder) is None
    fake_training.stop_after = None
    fake_training.started.clear()
    stopped = check()
    assert len(fake_training.started) == 2 * NETWORKS - 3
    for name in (OWN, LARGER):
        (folder / "twins" / name / "trials.csv").unlink()
        for path in sorted((folder / "twins" / name / "runs").glob("*/*")):
            path.unlink()
    assert check() == stopped


def test_runs_taken_over_by_a_check_that_was_killed_keep_their_losses(
    folder: Path, check: Callable[..., TwinCheck], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_before(*_: Any) -> None:
        raise KeyboardInterrupt

    def killed_after(path: Path, losses: Any) -> None:
        write_image_losses(path, losses)
        raise KeyboardInterrupt

    for kill in (killed_before, killed_after):
        with monkeypatch.context() as patched:
            patched.setattr(check_side, "write_image_losses", kill)
            with pytest.raises(KeyboardInterrupt):
                check()
    check()
    own = {row.run_id for row in read_rows(folder / "twins" / OWN / "trials.csv")}
    assert read_losses(folder / "twins" / OWN).keys() == own


def test_twins_have_the_shares_of_their_network_and_cost_what_their_size_says(
    folder: Path, check: Callable[..., TwinCheck]
) -> None:
    check()
    table = lines(folder)
    assert {line["size_macs"] for line in table if line["network"] == line["twin"]} == {"10387584"}
    for line in table:
        assert abs(int(line["twin_macs"]) / int(line["size_macs"]) - 1) <= 0.02
        assert float(line["distance"]) <= 0.1 * np.sqrt(2)
        assert float(line["stray"]) <= 0.1
    real = {
        name: {row.candidate: row.dims for row in read_rows(folder / "twins" / name / "trials.csv")}
        for name in (OWN, LARGER)
    }
    for line in table:  # all sizes stand for the same real networks
        name = OWN if line["size_macs"] == "10387584" else LARGER
        assert real[name][line["twin"]] == real[OWN][line["network"]]


def test_tau_is_kendall_s_of_the_mean_losses_and_is_written_down(
    folder: Path, check: Callable[..., TwinCheck]
) -> None:
    found = check(threshold=0.5)
    losses: dict[str, dict[str, float]] = {}
    for line in lines(folder):
        losses.setdefault(line["size_macs"], {})[line["network"]] = float(line["loss"])
    small, large = losses.values()
    own = found.own
    assert own is not None
    assert own.tau is not None
    expected = kendalltau(list(small.values()), [large[name] for name in small]).statistic
    assert own.tau.tau == pytest.approx(expected)
    assert own.tau.low <= own.tau.tau <= own.tau.high
    best = min(small, key=small.__getitem__)
    assert own.tau.regret == pytest.approx(large[best] / min(large.values()) - 1, abs=1e-5)
    assert found.smallest_macs == (own.macs if expected >= 0.5 else None)
    written = json.loads((folder / "twins" / "check.json").read_text())
    assert written == json.loads(json.dumps(asdict(found)))


@pytest.fixture
def drowned(fake_training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a size differ by far less than the seeds of each."""

    def loss(_: Any, job: Any) -> float:
        macs = cost(job.run.variant).macs
        apart, own = 0.1 * np.random.default_rng(macs).standard_normal(2)
        return float(np.exp(apart if job.run.seed == 0 else 0.1 * own - apart))

    monkeypatch.setattr(type(fake_training), "loss", loss)


@pytest.mark.usefixtures("drowned")
def test_a_size_whose_networks_differ_by_noise_alone_is_not_refuted(
    check: Callable[..., TwinCheck],
) -> None:
    own = check(threshold=0.99).own
    assert own is not None
    assert own.tau is not None
    assert own.tau.high < 0.99
    assert own.tau.alone is not None
    mean, low, high = own.tau.alone
    assert mean == 0
    assert low < 0 < high
    assert own.verdict == "cannot be told"


def test_lines_name_the_shares_of_the_search_s_network_whatever_sizes_are_checked(
    folder: Path, check: Callable[..., TwinCheck]
) -> None:
    check(sizes=(21_300_000, 42_000_000))
    settings = read_settings(folder / "request.toml")
    shares = {c.name: c.shares for c in grid(settings)}
    table = lines(folder)
    assert {line["size_macs"] for line in table}.isdisjoint({str(settings.trained_macs)})
    for line in table:
        own = shares[line["network"]]
        written = [float(line[axis]) for axis in ("depth", "width", "resolution")]
        assert written == pytest.approx([own.depth, own.width, own.resolution], abs=1e-5)
    assert any(float(line["distance"]) > 0.01 for line in table)


def test_a_network_whose_runs_fail_is_left_out_of_the_ranking(
    folder: Path, check: Callable[..., TwinCheck], fake_training: Any
) -> None:
    full = check().own
    path = folder / "twins" / LARGER / "trials.csv"
    rows = read_rows(path)
    gone = rows[0].candidate
    path.write_text(to_csv([row for row in rows if row.candidate != gone]))
    fake_training.failing = {row.run_id: 9 for row in rows if row.candidate == gone}
    own = check().own
    assert full is not None and full.tau is not None  # noqa: PT018
    assert own is not None and own.tau is not None  # noqa: PT018
    assert (full.tau.networks, own.tau.networks) == (NETWORKS, NETWORKS - 1)


def test_a_dry_run_plans_what_is_missing_and_writes_nothing(
    folder: Path, cache_dir: Path, fake_training: Any
) -> None:
    plans: list[TwinPlan] = []

    class Watcher(NullTwinWatcher):
        def planned_twins(self, plan: TwinPlan) -> None:
            plans.append(plan)

    before = contents(folder)
    request = TwinRequest(folder=folder, device="cpu", workers=1, cache_dir=cache_dir)
    assert check_twins(request, watcher=Watcher(), dry_run=True) is None
    (plan,) = plans
    assert [(part.runs, part.runs_done) for part in plan.plans] == [(14, 7), (14, 0)]
    run = plan.plans[1].seconds("d4.4.13.4-w16-r64", 0)
    seconds = sum(part.total_seconds for part in plan.plans)
    assert seconds == pytest.approx(21 * run)  # all steps take the same here
    assert fake_training.started == []
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sizes": (1_000_000,)}, "there are no twins of 1M MACs that are 64 px or more"),
        ({"sizes": (40_000_000_000,)}, "no larger than the real networks"),
        ({"sizes": (10_400_000,)}, "compares twins of two sizes or more"),
        ({"sizes": (10_400_000, 10_400_000)}, "compares twins of two sizes or more"),
        ({"rung": 2}, "rung 2 is none of the 1"),
        ({"rung": 0}, "rung"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": 101}, "seeds 101 is out of range"),
        ({"threshold": 1.0}, "threshold 1 is out of range"),
        ({"threshold": float("nan")}, "threshold nan is out of range"),
        ({"workers": 0}, "workers"),
    ],
)
def test_what_cannot_be_checked_is_refused_and_nothing_is_written(
    folder: Path, cache_dir: Path, asked: dict[str, Any], message: str
) -> None:
    before = contents(folder)
    with pytest.raises(CmtscaleError, match=message):
        check_twins(
            TwinRequest(
                **{"folder": folder, "device": "cpu", "workers": 1, "cache_dir": cache_dir, **asked}
            )
        )
    assert contents(folder) == before
    assert not (folder / "twins").exists()


def test_twins_that_other_code_trained_are_not_checked_unless_that_is_accepted(
    folder: Path, check: Callable[..., TwinCheck], fake_training: Any
) -> None:
    path = folder / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cmtscale": "0.0.9"}))
    with pytest.raises(CmtscaleError, match=r"cmtscale 0\.0\.9 is now .* --accept-changes"):
        check(seeds=1)
    assert not (folder / "twins").exists()
    check(seeds=1, accept_changes=True)
    assert len(fake_training.started) == NETWORKS  # of the larger twins
