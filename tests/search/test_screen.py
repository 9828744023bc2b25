"""What limits leave of a search's candidates, before anything is trained."""

import re
from dataclasses import replace
from typing import Any

import pytest

from cmtscale.arch.budget import parse_count, parse_seconds
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.data.dataset import Description
from cmtscale.search.candidates import Candidate, grid, lattice_candidates
from cmtscale.search.executors.base import Failure, Job
from cmtscale.search.jobs import TimePrediction
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.screen import TIMED_AT_ONCE, Screened, screen
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.settings import Settings
from cmtscale.search.timings import Timings

# of the real networks at 4 G: 20.7 M to 37.0 M params, 22.0 M to 36.4 M activations
NANOSECONDS = 1e-9  # that a parameter takes in a made-up prediction


@pytest.fixture(scope="module")
def settings() -> Settings:
    request = SearchRequest(budget_macs=4_000_000_000, data="folder:/images")
    return resolve(
        request, Description(num_classes=10, channels=1, train_images=54_000, val_images=6_000)
    )


@pytest.fixture(scope="module")
def lattice(settings: Settings) -> list[Candidate]:
    return lattice_candidates(settings, NOT_TIMED)


@pytest.fixture
def executor(fake_training_class: Any) -> Any:
    """Predictions take a nanosecond per parameter; `jobs` are the networks timed at once."""

    class Predicting(fake_training_class):  # type: ignore[misc]
        def outcome(self, job: Job) -> Any:
            assert isinstance(job, TimePrediction)
            jobs.append([network.name for network in job.networks])
            return super().outcome(job)

    jobs: list[list[str]] = []
    predicting = Predicting()
    predicting.jobs = jobs
    return predicting


def screened(settings: Settings, executor: Any, timings: Timings | None = None) -> Any:
    return screen(settings, timings or Timings(device="cpu"), executor, lambda _: None)


def params_of(candidates: list[Candidate]) -> list[int]:
    return [cost(candidate.real).params for candidate in candidates]


def test_without_limits_nothing_is_looked_at(settings: Settings, executor: Any) -> None:
    assert screened(settings, executor) == (Timings(device="cpu"), None)
    assert executor.jobs == []


def test_each_limit_counts_what_it_excludes(
    settings: Settings, lattice: list[Candidate], executor: Any
) -> None:
    limited = replace(settings, max_params=30_000_000, max_activations=30_000_000)
    heavy = {c.name for c in lattice if cost(c.real).params > 30_000_000}
    wide = {c.name for c in lattice if cost(c.real).activations > 30_000_000}
    assert heavy & wide
    _, answer = screened(limited, executor)
    left = len(lattice) - len(heavy | wide)
    assert answer == Screened(
        networks=len(lattice),
        left=left,
        excluded={"params": len(heavy), "activations": len(wide)},
        timed=left,
    )
    assert executor.jobs == []  # arithmetic alone


def test_latency_is_measured_for_what_passes_the_other_limits_a_few_at_a_time(
    settings: Settings, lattice: list[Candidate], executor: Any
) -> None:
    limited = replace(settings, max_params=36_000_000, max_latency_seconds=0.025)
    light = [c for c in lattice if cost(c.real).params <= 36_000_000]
    timings, answer = screened(limited, executor)
    timed = [name for job in executor.jobs for name in job]
    assert sorted(timed) == sorted(candidate.real.name for candidate in light)
    assert max(map(len, executor.jobs)) <= TIMED_AT_ONCE < len(light)
    assert set(timings.latency_seconds) == set(timed)
    slow = sum(NANOSECONDS * params > 0.025 for params in params_of(light))
    assert 0 < slow < len(light)
    assert answer.excluded == {"params": len(lattice) - len(light), "latency": slow}
    assert (answer.timed, answer.left) == (len(light), len(light) - slow)
    chosen_from = [c for c in grid(limited, timings.latency_seconds) if c.may_be_chosen]
    assert max(params_of(chosen_from)) <= 25_000_000


def test_a_latency_that_was_measured_is_not_measured_again(
    settings: Settings, executor: Any
) -> None:
    limited = replace(settings, max_latency_seconds=0.025)
    timings, answer = screened(limited, executor)
    first = [name for job in executor.jobs for name in job]
    executor.jobs.clear()
    assert screened(limited, executor, timings) == (timings, answer)
    assert executor.jobs == []
    fewer = dict(list(timings.latency_seconds.items())[3:])
    again, _ = screened(limited, executor, replace(timings, latency_seconds=fewer))
    assert [name for job in executor.jobs for name in job] == first[:3]
    assert again.latency_seconds == timings.latency_seconds


def test_where_no_network_can_be_timed_the_limit_is_refused(
    settings: Settings, fake_training_class: Any
) -> None:
    class Broken(fake_training_class):  # type: ignore[misc]
        def outcome(self, job: Job) -> Any:  # noqa: ARG002
            return Failure(cause="no memory")

    with pytest.raises(RequestError, match="no real network could be timed"):
        screened(replace(settings, max_latency_seconds=1.0), Broken())


@pytest.mark.parametrize("others", [{}, {"max_params": 100_000_000}])
def test_a_network_that_could_not_be_timed_admits_none(
    settings: Settings, lattice: list[Candidate], executor: Any, others: dict[str, int]
) -> None:
    untimed = lattice[0].real.name
    outcome = executor.outcome
    executor.outcome = lambda job: {n: t for n, t in outcome(job).items() if n != untimed}
    limited = replace(settings, max_latency_seconds=1e-4, **others)
    timed = len(lattice) - 1
    with pytest.raises(RequestError, match=f"max-latency 0.1ms, which excludes {timed} of {timed}"):
        screened(limited, executor)


@pytest.mark.parametrize("name", ["max_params", "max_activations", "max_latency_seconds"])
def test_where_nothing_is_left_the_least_value_that_admits_one_is_named(
    settings: Settings, executor: Any, name: str
) -> None:
    tight = 1e-4 if name == "max_latency_seconds" else 1_000_000
    limited = replace(settings, **{name: tight})
    with pytest.raises(RequestError, match="no network of 4G MACs is within the limits") as caught:
        screened(limited, executor)
    flag = name.removesuffix("_seconds").replace("_", "-")
    found = re.search(rf"excludes (\d+) of \1: use --{flag} (\S+) or more", str(caught.value))
    assert found is not None
    read: Any = parse_seconds if name == "max_latency_seconds" else parse_count
    enough = read(found[2], flag)
    _, answer = screened(replace(settings, **{name: enough}), executor)
    assert answer.left >= 1
    if name != "max_latency_seconds":  # which has room to be measured again
        with pytest.raises(RequestError):
            screened(replace(settings, **{name: round(0.98 * enough)}), executor)


def test_of_several_limits_the_one_to_raise_is_named_and_the_others_hold(
    settings: Settings, executor: Any
) -> None:
    # the fewest activations come with the most params
    limited = replace(settings, max_params=22_000_000, max_activations=25_000_000)
    with pytest.raises(RequestError, match="the tightest is --max-") as caught:
        screened(limited, executor)
    raised = re.findall(r"use (.*) or more", str(caught.value))
    assert len(raised) == 1
    assert " and " not in raised[0]
    flag, value = raised[0].removeprefix("--").split()
    admitted = replace(limited, **{flag.replace("-", "_"): parse_count(value, flag)})
    assert screened(admitted, executor)[1].left >= 1


def test_limits_that_no_one_change_satisfies_name_all_that_must_be_raised(
    settings: Settings, executor: Any
) -> None:
    with pytest.raises(RequestError, match=r"use --max-\w+ \S+ and --max-\w+ \S+ or more"):
        screened(replace(settings, max_params=1_000, max_activations=1_000), executor)


def test_a_grid_is_filled_up_with_mixtures_within_the_limits(
    settings: Settings, lattice: list[Candidate]
) -> None:
    limited = replace(settings, max_params=30_000_000, trials=3)
    candidates = grid(limited)
    mixed = [c for c in candidates if c.role in ("paper", "compound")]
    assert len(mixed) == 3
    assert all(c.may_be_chosen for c in mixed)
    assert len([c for c in lattice if not c.over]) > len(mixed)
    anchors = {c.role: c for c in candidates if c not in mixed}
    assert set(anchors) == {"base", "depth", "width", "resolution"}
    assert anchors["width"].over == ("params",)
    assert not anchors["width"].may_be_chosen
    assert anchors["width"].may_be_trained
