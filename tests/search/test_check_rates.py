"""The anchors of a search at other learning rates, trained beside it: what is run, and where."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.errors import CmtscaleError, ResultsError
from cmtscale.record.losses import read_losses
from cmtscale.record.rate_check import RateCheck, read_rate_check
from cmtscale.record.row import read_rows
from cmtscale.search.check_rates import NullRateWatcher, RatePlan, check_rates
from cmtscale.search.check_side import CheckRequest
from cmtscale.search.driver import search
from cmtscale.search.request import SearchRequest
from cmtscale.search.settings import read_settings

ANCHORS = 4
RATES = {"0.001": 0.001, "0.002": 0.002, "0.004": 0.004}


@pytest.fixture
def folder(fake_training: Any, cache_dir: Path, tmp_path: Path) -> Path:
    """A finished search on the digits, trained by nobody, at the default peak of 0.002."""
    out = tmp_path / "search"
    request = SearchRequest(budget_macs=4_000_000_000, device="cpu", workers=1, out=out)
    search(replace(request, trials=3, prefer="params", cache_dir=cache_dir))
    fake_training.started.clear()
    fake_training.timed.clear()
    return out


@pytest.fixture
def check(folder: Path, cache_dir: Path) -> Callable[..., RateCheck]:
    """A function: the check of the search with what is given."""

    def run(**asked: Any) -> RateCheck:
        request = CheckRequest(folder=folder, device="cpu", workers=1, cache_dir=cache_dir, **asked)
        found = check_rates(request)
        assert found is not None
        return found

    return run


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_anchors_train_at_each_rate_and_no_run_is_repeated(
    folder: Path, check: Callable[..., RateCheck], fake_training: Any
) -> None:
    searched = contents(folder)
    found = check()
    # the search has one seed at its own rate: the second one is missing, and all at the others
    assert len(fake_training.started) == ANCHORS + 2 * 2 * ANCHORS
    assert fake_training.timed == []  # a step takes as long at any rate
    after = contents(folder)
    assert {path: after[path] for path in searched} == searched  # the search itself is untouched
    roles = {anchor.role for anchor in found.anchors}
    assert roles >= {"depth", "width", "resolution"}
    assert len(roles) == ANCHORS
    for name, rate in RATES.items():
        side = folder / "rates" / name
        rows = read_rows(side / "trials.csv")
        assert {(row.candidate, row.seed) for row in rows} == {
            (anchor.network, seed) for anchor in found.anchors for seed in (0, 1)
        }
        assert read_settings(side / "request.toml").recipe.lr == rate
        assert read_losses(side).keys() == {row.run_id for row in rows}
    own = {row.run_id: row for row in read_rows(folder / "rates" / "0.002" / "trials.csv")}
    reused = [row for row in read_rows(folder / "trials.csv") if row.run_id in own]
    assert len(reused) == ANCHORS
    assert all(own[row.run_id].outcome == row.outcome for row in reused)
    fake_training.started.clear()
    assert check() == found
    assert fake_training.started == []
    check(seeds=3)
    assert len(fake_training.started) == 3 * ANCHORS


def test_a_check_that_was_stopped_goes_on_and_ends_as_one_that_was_not(
    folder: Path, check: Callable[..., RateCheck], fake_training: Any
) -> None:
    fake_training.stop_after = 2 * ANCHORS + 1
    with pytest.raises(KeyboardInterrupt):
        check()
    assert read_rate_check(folder) is None
    fake_training.stop_after = None
    fake_training.started.clear()
    stopped = check()
    assert len(fake_training.started) == 3 * ANCHORS - 1
    for name in RATES:
        (folder / "rates" / name / "trials.csv").unlink()
        for path in sorted((folder / "rates" / name / "runs").glob("*/*")):
            path.unlink()
    assert check() == stopped


def test_what_was_found_is_written_down_as_it_is(
    folder: Path, check: Callable[..., RateCheck]
) -> None:
    found = check()
    assert read_rate_check(folder) == found
    with (folder / "rates" / "rates.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * ANCHORS
    for line in lines:
        own = found.line(line["network"], float(line["factor"]))
        assert float(line["lr"]) == own.lr == 0.002 * own.factor
        assert float(line["loss"]) == pytest.approx(own.loss, rel=1e-5)
    # the made-up losses know no learning rate
    assert {line.change for line in found.lines} == {None, 0.0}
    assert (found.wanting, found.swaps, found.regret) == ((), (), 0)


def test_a_dry_run_plans_what_is_missing_and_writes_nothing(
    folder: Path, cache_dir: Path, fake_training: Any
) -> None:
    plans: list[RatePlan] = []

    class Watcher(NullRateWatcher):
        def planned_rates(self, plan: RatePlan) -> None:
            plans.append(plan)

    before = contents(folder)
    request = CheckRequest(folder=folder, device="cpu", workers=1, cache_dir=cache_dir)
    assert check_rates(request, watcher=Watcher(), dry_run=True) is None
    (plan,) = plans
    parts = {factor: (part.runs, part.runs_done) for factor, part in plan.plans.items()}
    assert parts == {0.5: (8, 0), 1.0: (8, 4), 2.0: (8, 0)}
    run = plan.plans[1.0].seconds(plan.anchors[0].name, 0)
    seconds = sum(part.total_seconds for part in plan.plans.values())
    assert seconds == pytest.approx(20 * run)  # all steps take the same here
    assert fake_training.started == []
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rung": 2}, "rung 2 is none of the 1"),
        ({"rung": 0}, "rung"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": 101}, "seeds 101 is out of range"),
        ({"workers": 0}, "workers"),
    ],
)
def test_what_cannot_be_checked_is_refused_and_nothing_is_written(
    folder: Path, cache_dir: Path, asked: dict[str, Any], message: str
) -> None:
    before = contents(folder)
    with pytest.raises(CmtscaleError, match=message):
        check_rates(
            CheckRequest(
                **{"folder": folder, "device": "cpu", "workers": 1, "cache_dir": cache_dir, **asked}
            )
        )
    assert contents(folder) == before


def test_a_folder_that_holds_another_search_is_left_alone(
    folder: Path, check: Callable[..., RateCheck], fake_training: Any
) -> None:
    other = folder / "rates" / "0.001"
    other.mkdir(parents=True)
    (other / "request.toml").write_bytes((folder / "request.toml").read_bytes())
    before = contents(folder)
    with pytest.raises(CmtscaleError, match="holds another search"):
        check()
    assert fake_training.started == []
    assert contents(folder) == before


# --- a search that other code has trained


def environment(folder: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((folder / "environment.json").read_text())
    return described


def trained_by_other_code(folder: Path) -> None:
    described = environment(folder) | {"code": "0123"}
    (folder / "environment.json").write_text(json.dumps(described))


def test_a_search_that_other_code_trained_is_not_checked_unless_that_is_accepted(
    folder: Path, check: Callable[..., RateCheck], fake_training: Any
) -> None:
    trained_by_other_code(folder)
    before = contents(folder)
    with pytest.raises(ResultsError, match=r"cmtscale's code 0123 is now .* --accept-changes"):
        check()
    assert fake_training.started == []
    assert contents(folder) == before

    check(accept_changes=True)
    assert len(fake_training.started) == ANCHORS + 2 * 2 * ANCHORS
    own = environment(folder / "rates" / "0.002")  # has runs of the search: both are named
    assert own["code"] == "0123"
    (resumed,) = own["resumed"]
    (accepted,) = resumed["accepted"]
    assert accepted.startswith("cmtscale's code 0123 is now ")
    for name in ("0.001", "0.004"):  # all of it is of one code
        assert environment(folder / "rates" / name).keys().isdisjoint({"resumed", "accepted"})
    assert contents(folder)[folder / "environment.json"] == before[folder / "environment.json"]


def test_a_side_that_other_code_trained_is_not_gone_on_with_unless_that_is_accepted(
    folder: Path, check: Callable[..., RateCheck], fake_training: Any
) -> None:
    check()
    side = folder / "rates" / "0.004"
    trained_by_other_code(side)
    fake_training.started.clear()
    with pytest.raises(
        ResultsError, match=r"rates/0\.004 were trained otherwise: cmtscale's code 0123"
    ):
        check(seeds=3)
    assert fake_training.started == []
    check(seeds=3, accept_changes=True)
    assert len(fake_training.started) == 3 * ANCHORS
    (resumed,) = environment(side)["resumed"]
    assert len(resumed["accepted"]) == 1


def test_a_side_that_only_borrows_says_what_trained_its_runs(
    folder: Path, check: Callable[..., RateCheck]
) -> None:
    check(seeds=1)
    assert environment(folder / "rates" / "0.002") == environment(folder)
