"""How budgets and limits are read: as people write them, and nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmtscale.arch.budget import (
    format_macs,
    format_seconds,
    parse_budgets,
    parse_count,
    parse_macs,
    parse_seconds,
    rounded_up,
)
from cmtscale.arch.errors import BudgetError


def test_a_list_of_budgets_is_read_in_its_order() -> None:
    assert parse_budgets("0.6G, 4.0G,1500M") == (600_000_000, 4_000_000_000, 1_500_000_000)
    assert parse_budgets("4G") == (4_000_000_000,)


@pytest.mark.parametrize("text", ["", ",", "4G,", ",4G", "4G,,1G", "4G;1G", "4G,x"])
def test_a_list_with_a_gap_is_no_list(text: str) -> None:
    with pytest.raises(BudgetError, match=r"is not a number of MACs; write 4\.0G"):
        parse_budgets(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("5M", 5_000_000), ("12.5m", 12_500_000), ("800k", 800_000), ("5e6", 5_000_000)],
)
def test_counts_are_read_as_budgets_are(text: str, count: int) -> None:
    assert parse_count(text, "--max-params") == parse_macs(text) == count


@pytest.mark.parametrize(
    ("text", "seconds"), [("8ms", 0.008), ("0.5s", 0.5), (" 250 us ", 0.00025), ("1e1MS", 0.01)]
)
def test_times_need_a_unit(text: str, seconds: float) -> None:
    assert parse_seconds(text, "--max-latency") == pytest.approx(seconds, rel=1e-12)


def test_a_forgotten_unit_is_asked_back_under_the_name_of_the_flag() -> None:
    with pytest.raises(BudgetError, match="--max-params '20' has no unit; did you mean 20M"):
        parse_count("20", "--max-params")
    with pytest.raises(BudgetError, match="--max-latency '8' has no unit; did you mean 8ms"):
        parse_seconds("8", "--max-latency")


@pytest.mark.parametrize("text", ["", "0", "-5M", "five", "5MM", "5ms", "1e30", "nan", "5M,6M"])
def test_what_is_no_count_says_how_to_write_one(text: str) -> None:
    with pytest.raises(BudgetError, match=r"write 5M, 12\.5M or 5e6"):
        parse_count(text, "--max-params")


@pytest.mark.parametrize("text", ["", "0", "0ms", "-8ms", "fast", "8M", "8min", "inf", "1e999s"])
def test_what_is_no_time_says_how_to_write_one(text: str) -> None:
    with pytest.raises(BudgetError, match=r"write 8ms or 0\.5s"):
        parse_seconds(text, "--max-latency")


@given(st.text(max_size=12))
def test_whatever_is_written_is_a_positive_number_or_a_budget_error(text: str) -> None:
    for read in (parse_macs, lambda t: parse_count(t, "x"), lambda t: parse_seconds(t, "x")):
        try:
            value = read(text)
        except BudgetError:
            continue
        assert 0 < value < math.inf


@given(st.floats(1e3, 1e13))
def test_a_count_rounded_up_admits_what_it_was_made_from(value: float) -> None:
    named = parse_count(format_macs(rounded_up(value)), "--max-params")
    assert value * (1 - 1e-6) <= named <= 1.011 * value


@given(st.floats(1e-6, 100))
def test_a_time_rounded_up_admits_what_it_was_made_from(seconds: float) -> None:
    named = parse_seconds(format_seconds(rounded_up(seconds)), "--max-latency")
    assert seconds * (1 - 1e-6) <= named <= 1.011 * seconds
