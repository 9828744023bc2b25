"""The `check.json` of a check: read as it was written, and refused where it was changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.errors import ResultsError
from cmtscale.record.rate_check import (
    AnchorFound,
    NoiseAlone,
    RateCheck,
    RateLine,
    Swap,
    read_rate_check,
    write_rate_check,
)
from cmtscale.record.twin_check import (
    SizeFound,
    Tau,
    TwinCheck,
    read_twin_check,
    write_twin_check,
)

NAN = float("nan")
TAU = Tau(networks=8, tau=0.79, low=NAN, high=0.98, alone=(0.9, 0.7, 1.0), regret=0.012)


def size(macs: int, tau: Tau | None) -> SizeFound:
    return SizeFound(
        macs=macs,
        base="cmt-proxy",
        base_macs=macs // 6,
        noise=0.017 if tau else None,
        degrees=8,
        spread=0.05,
        tau=tau,
        verdict="not refuted" if tau else "the largest",
    )


TWINS = TwinCheck(
    threshold=0.7,
    images_seen=6_000,
    seeds=2,
    own_macs=14_427_200,
    sizes=(size(14_427_200, TAU), size(29_600_000, None)),
    smallest_macs=None,
    is_above=False,
    tour=False,
)
RATES = RateCheck(
    lr=0.002,
    images_seen=6_000,
    seeds=2,
    noise=0.012,
    degrees=12,
    lines=tuple(
        RateLine(
            network="d1.1.1.1-w4-r64",
            role="width",
            factor=factor,
            lr=0.002 * factor,
            seeds=2,
            diverged=0,
            infeasible=0,
            loss=0.5,
            change=None,
            error=None,
        )
        for factor in (0.5, 1.0, 2.0)
    ),
    anchors=(
        AnchorFound(network="d1.1.1.1-w4-r64", role="width", lowest=1.0, wants=None, hidden=0.1),
    ),
    swaps=(Swap(factor=2.0, first="width", second="depth", by_noise=True),),
    regret=0.0,
    may_lose=None,
    alone=NoiseAlone(gain=0.007, regret=0.001, chance=0.17),
    tolerance=0.01,
    verdict="cannot be told",
    tour=True,
)


def test_a_check_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert (read_twin_check(tmp_path), read_rate_check(tmp_path)) == (None, None)
    write_twin_check(tmp_path, TWINS, [])
    write_rate_check(tmp_path, RATES)
    assert repr(read_twin_check(tmp_path)) == repr(TWINS)  # a nan is not equal to itself
    assert read_rate_check(tmp_path) == RATES


def changed(table: Any, keys: tuple[str | int, ...], value: Any) -> None:
    for key in keys[:-1]:
        table = table[key]
    table[keys[-1]] = value


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("sizes",), [], "0 sizes are nothing to compare"),
        (("sizes",), {}, "{} is no sizes"),
        (("sizes", 0), "x", "'x' is no SizeFound"),
        (("sizes", 0, "macs"), "x", "'x' is no macs"),
        (("sizes", 0, "macs"), 1.5, "1.5 is no macs"),
        (("sizes", 0, "macs"), True, "True is no macs"),
        (("sizes", 0, "verdict"), "perhaps", "'perhaps' is no verdict"),
        (("sizes", 0, "tau", "tau"), None, "None is no tau"),
        (("sizes", 0, "tau", "alone"), [0.9, 0.7], "is no alone"),
        (("threshold",), "x", "'x' is no threshold"),
        (("tour",), 0, "0 is no tour"),
        (("extra",), 0, "lacks, or has no such, extra"),
    ],
)
def test_a_changed_check_of_twins_is_refused(
    tmp_path: Path, keys: tuple[str | int, ...], value: Any, message: str
) -> None:
    write_twin_check(tmp_path, TWINS, [])
    path = tmp_path / "twins" / "check.json"
    table = json.loads(path.read_text())
    changed(table, keys, value)
    path.write_text(json.dumps(table))
    with pytest.raises(ResultsError, match="remove it, and check again") as caught:
        read_twin_check(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("lr",), "x", "'x' is no lr"),
        (("lines",), [], "0 lines are not each network at each rate"),
        (("anchors",), [], "3 lines are not each network at each rate"),
        (("anchors", 0, "network"), "other", "3 lines are not each network at each rate"),
        (("lines", 0, "loss"), "x", "'x' is no loss"),
        (("alone", "gain"), [], "[] is no gain"),
        (("swaps", 0, "by_noise"), 1, "1 is no by_noise"),
    ],
)
def test_a_changed_check_of_rates_is_refused(
    tmp_path: Path, keys: tuple[str | int, ...], value: Any, message: str
) -> None:
    write_rate_check(tmp_path, RATES)
    path = tmp_path / "rates" / "check.json"
    table = json.loads(path.read_text())
    changed(table, keys, value)
    path.write_text(json.dumps(table))
    with pytest.raises(ResultsError, match="remove it, and check again") as caught:
        read_rate_check(tmp_path)
    assert message in str(caught.value)
