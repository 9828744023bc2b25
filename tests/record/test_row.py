"""Rows survive the table and JSON exactly; a damaged table is refused as a whole."""

import csv
import json
import math
from dataclasses import fields, replace
from typing import get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cmtscale.record.result import Status
from cmtscale.record.row import (
    COLUMNS,
    Row,
    read_rows,
    row_object,
    row_of_object,
    to_csv,
    whole_rows,
)

# Scripts outside the package read these by position.
PROMISED = (
    "run_id", "candidate", "alpha", "beta", "gamma", "phi", "macs", "params", "proxy_macs",
    "resolution_px", "dims", "depths", "seed",
)  # fmt: skip
FINITE = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(0, 2**63)
KINDS = {
    str: st.text(),
    int: WHOLE,
    float: FINITE,
    bool: st.booleans(),
    Status: st.sampled_from(get_args(Status)),
    float | None: st.none() | FINITE,
    tuple[int, ...]: st.lists(WHOLE, min_size=1, max_size=5).map(tuple),
}
ROWS = st.builds(Row, **{field.name: KINDS[field.type] for field in fields(Row)})


def exact(row):
    """The row as text: unlike `==` it tells 0.0 from -0.0 and 1 from 1.0."""
    return [repr(value) for value in vars(row).values()]


@pytest.fixture
def table(make_row):
    rows = [make_row(asked=0), make_row(candidate="b", asked=1, status="failed", cause='a, "b"\nc')]
    return to_csv(rows)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(rows=st.lists(ROWS, unique_by=lambda row: row.run_id, max_size=3))
def test_every_field_survives_the_table_exactly(rows, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "trials.csv"
    path.write_bytes(to_csv(rows).encode())
    expected = sorted(rows, key=lambda row: row.sort_key)
    assert [exact(row) for row in read_rows(path)] == [exact(row) for row in expected]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(row=ROWS)
def test_every_field_survives_json_exactly(row):
    assert exact(row_of_object(json.loads(json.dumps(row_object(row))))) == exact(row)


@pytest.mark.parametrize("value", [0.1 + 0.2, 5e-324, -0.0, 1e308, 1 / 3, 1e16, 123456789.0])
def test_floats_are_kept_to_the_last_bit(value, make_row, tmp_path):
    (tmp_path / "t").write_text(to_csv([make_row(val_loss=value, seconds=value)]))
    (row,) = read_rows(tmp_path / "t")
    assert (row.val_loss.hex(), row.seconds.hex()) == (value.hex(), value.hex())


@pytest.mark.parametrize("cause", ["a, b", '"', '""', "\n", "\r", "\r\n", "a\n\nb", "größer – “ü”"])
def test_a_cause_is_kept_to_the_character(cause, make_row, tmp_path):
    (tmp_path / "t").write_bytes(to_csv([make_row(status="failed", cause=cause)]).encode())
    assert [row.cause for row in read_rows(tmp_path / "t")] == [cause]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["alpha", "val_loss", "seconds", "images_per_second"])
def test_a_row_without_a_finite_number_cannot_exist(name, value, make_row):
    with pytest.raises(ValueError, match=f"^{name} {value} is not a finite number$"):
        make_row(**{name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"macs": "4"},
        {"macs": None},
        {"macs": 1.0},
        {"macs": True},
        {"val_loss": "0.5"},
        {"val_loss": math.nan},
        {"on_budget": 1},
        {"status": "done"},
        {"status": ["complete"]},
        {"cause": None},
        {"cause": 5},
        {"dims": "8-16"},
        {"dims": [8, "16"]},
        {"dims": []},
        {"dims": 8},
        {"of_a_later_version": 1},
    ],
    ids=str,
)
def test_an_object_that_no_table_could_hold_is_no_row(changes, make_row):
    content = row_object(make_row())
    with pytest.raises(ValueError, match=r".+"):
        row_of_object({**content, **changes})


@pytest.mark.parametrize("content", [None, [], "", 5, {}])
def test_what_is_no_object_is_no_row(content):
    with pytest.raises(ValueError, match="not a row of this version"):
        row_of_object(content)


def test_an_object_that_lacks_a_field_is_no_row(make_row):
    for name in COLUMNS:
        content = row_object(make_row())
        del content[name]
        with pytest.raises(ValueError, match="not a row of this version"):
            row_of_object(content)


def test_the_header_is_the_fields_in_order_and_begins_as_promised():
    (header,) = csv.reader(to_csv([]).splitlines())
    assert tuple(header) == tuple(field.name for field in fields(Row)) == COLUMNS
    assert tuple(header[: len(PROMISED)]) == PROMISED


def test_rows_are_sorted_by_candidate_then_horizon_then_seed(make_row, tmp_path):
    first, *_ = ordered = [
        make_row(candidate="z", asked=0, epochs=1, seed=1),
        make_row(candidate="z", asked=0, epochs=2, seed=0),
        make_row(candidate="z", asked=0, epochs=2, seed=10),
        make_row(candidate="b", asked=2, seed=2),
        make_row(candidate="a", asked=10, seed=0),
    ]
    (tmp_path / "t").write_text(to_csv(reversed(ordered)))
    assert read_rows(tmp_path / "t") == ordered
    lines = (tmp_path / "t").read_text().splitlines(keepends=True)
    assert lines[1].startswith(first.run_id)
    (tmp_path / "t").write_text("".join([lines[0], *reversed(lines[1:])]))
    assert read_rows(tmp_path / "t") == ordered


def test_a_row_that_a_merge_doubled_counts_once(table, tmp_path):
    (tmp_path / "t").write_text(table)
    rows = read_rows(tmp_path / "t")
    header, body = table.split("\n", 1)
    (tmp_path / "t").write_text(f"{header}\n{body}{body}")
    assert read_rows(tmp_path / "t") == rows
    assert len(rows) == 2


def test_a_run_that_two_machines_did_alike_counts_once(make_row, tmp_path):
    first = make_row(seconds=12.0, images_per_second=100.0)
    slower = replace(first, seconds=40.0, images_per_second=30.0)
    (tmp_path / "t").write_text(to_csv([first, slower]))
    assert read_rows(tmp_path / "t") == [first]


@pytest.mark.parametrize("changes", [{"val_loss": 0.7}, {"status": "failed"}, {"identity": "0"}])
def test_two_different_results_of_one_run_are_refused_with_the_line(
    changes, make_row, table, tmp_path, refused
):
    other = replace(make_row(), **changes)
    (tmp_path / "t").write_text(table + to_csv([other]).split("\n", 1)[1])
    with refused(f"two different results of {other.run_id}, one in line 5;"):
        read_rows(tmp_path / "t")  # line 5, for the cause above has two lines


def test_a_table_cut_anywhere_is_refused_or_lacks_whole_rows(table, tmp_path, refused):
    path = tmp_path / "t"
    path.write_text(table)
    rows = read_rows(path)
    header = table.index("\n") + 1
    first = table.index("\n", header) + 1
    whole = {header - 1: [], header: [], first: rows[:1], len(table): rows}
    for length in range(len(table) + 1):
        path.write_text(table[:length])
        if length in whole:
            assert read_rows(path) == whole[length]
        else:
            with refused(path, "is damaged: "):
                read_rows(path)


def test_a_torn_last_line_is_named(table, tmp_path, refused):
    (tmp_path / "t").write_text(table[:-5])
    with refused(tmp_path / "t", "is damaged: line 3"):
        read_rows(tmp_path / "t")


def damaged(table, name, value):
    """The table with another value in line 2."""
    header, line, rest = table.split("\n", 2)
    cells = line.split(",")
    cells[header.split(",").index(name)] = value
    return "\n".join([header, ",".join(cells), rest])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("macs", "4e9", "invalid literal for int()"),
        ("macs", "", "invalid literal for int()"),
        ("alpha", "one", "could not convert string to float"),
        ("alpha", "", "could not convert string to float"),
        ("val_loss", "nan", "val_loss nan is not a finite number"),
        ("seconds", "inf", "seconds inf is not a finite number"),
        ("status", "done", "'done' is no status"),
        ("status", "", "'' is no status"),
        ("on_budget", "yes", "'yes' is neither True nor False"),
        ("dims", "8-x", "invalid literal for int()"),
        ("dims", "", "invalid literal for int()"),
        ("role", "a,b", "it has 38 cells, not 37"),
    ],
)
def test_a_cell_that_is_not_of_its_kind_is_named_with_its_line(
    name, value, message, table, tmp_path, refused
):
    (tmp_path / "t").write_text(damaged(table, name, value))
    with refused(tmp_path / "t", f"is damaged: line 2: {message}"):
        read_rows(tmp_path / "t")


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "=======", ">>>>>>> theirs", "garbage"])
def test_marks_of_a_merge_are_named_with_their_line(marker, table, tmp_path, refused):
    (tmp_path / "t").write_text(f"{table}{marker}\n{table}")
    with refused(tmp_path / "t", "is damaged: line 5: it has 1 cells"):
        read_rows(tmp_path / "t")


@pytest.mark.parametrize("name", COLUMNS)
def test_a_missing_column_is_named(name, table, tmp_path, refused):
    (tmp_path / "t").write_text(table.replace(f"{name},", "", 1).replace(",identity\n", "\n", 1))
    with refused(tmp_path / "t", "is damaged: it lacks the columns", name):
        read_rows(tmp_path / "t")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\x00" * 512, b"\xff\xfe\x00", b"PK\x03\x04\x80", b'"']
)
def test_rubbish_is_refused_in_one_line(content, tmp_path, refused):
    (tmp_path / "t").write_bytes(content)
    with refused(tmp_path / "t", "is damaged"):
        read_rows(tmp_path / "t")
    assert whole_rows(tmp_path / "t") == []


def test_rubbish_below_a_whole_header_is_refused(table, tmp_path, refused):
    (tmp_path / "t").write_bytes(table.encode() + b"\xff\xfe")
    with refused(tmp_path / "t", "is damaged"):
        read_rows(tmp_path / "t")


@settings(deadline=None)
@example(rubbish=b"\x00")
@given(rubbish=st.binary(min_size=1))
def test_no_rubbish_is_ever_a_row(rubbish, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "rubbish.csv"
    path.write_bytes(to_csv([]).encode() + rubbish)
    with pytest.raises(ValueError, match="is damaged"):
        read_rows(path)


def test_a_table_of_the_first_version_is_refused_for_what_it_is(tmp_path, refused):
    header = "run_id,rung,candidate,alpha,beta,gamma,phi,macs,params,proxy_macs,resolution_px\n"
    (tmp_path / "t").write_text(header + "r1-c00-s0,1,c00,1.0,1.0,1.0,0.0,1,1,1,192\n")
    with refused(tmp_path / "t", "was written by cmtscale 0.1.0", "with another --out"):
        read_rows(tmp_path / "t")


def test_a_missing_table_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_rows(tmp_path / "t")


def test_line_ends_of_another_system_and_another_order_of_columns_are_the_same_table(
    make_row, tmp_path
):
    rows = [make_row(), make_row(seed=1)]
    text = to_csv(rows)
    (tmp_path / "t").write_bytes(text.replace("\n", "\r\n").encode())
    assert read_rows(tmp_path / "t") == rows
    swapped = [",".join(reversed(line.split(","))) + "\n" for line in text.splitlines()]
    (tmp_path / "t").write_text("".join(swapped))
    assert read_rows(tmp_path / "t") == rows


def test_whole_rows_are_all_that_a_merge_brought_together(make_row, tmp_path):
    ours, theirs = make_row(candidate="a", seconds=1.0), make_row(candidate="b")
    table = to_csv([ours, theirs])
    header, first, second, _ = table.split("\n")
    other = to_csv([replace(ours, seconds=2.0)]).split("\n")[1]
    lines = [header, "<<<<<<< HEAD", first, "=======", other, second, ">>>>>>> theirs"]
    (tmp_path / "t").write_text("\n".join(lines) + "\n")
    assert whole_rows(tmp_path / "t") == [ours, theirs]


def test_shares_sum_to_one_on_the_constraint_and_are_zero_for_the_base(make_row):
    shares = make_row(alpha=2.5**0.5, beta=2.5 ** (0.3 / 1.5), gamma=2.5**0.1).shares
    assert (shares.depth, shares.width, shares.resolution) == pytest.approx((0.5, 0.3, 0.2))
    base = make_row(alpha=1.0, beta=1.0, gamma=1.0).shares
    assert (base.depth, base.width, base.resolution) == (0.0, 0.0, 0.0)
