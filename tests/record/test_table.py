"""trials.csv loses no run to a full disk, a merge, a second process or damage."""

import shutil
from dataclasses import replace

import pytest

import cmtscale.record.table as table_module
from cmtscale.record.files import read_json
from cmtscale.record.folder import ROW, RUNS, TRIALS
from cmtscale.record.row import read_rows, row_of_object, to_csv
from cmtscale.record.table import open_table


@pytest.fixture
def rows(make_row):
    return [make_row(candidate=name, asked=asked) for asked, name in enumerate("abc")]


@pytest.fixture
def full(tmp_path, rows):
    """A folder with the three rows, in the table and in runs/."""
    table = open_table(tmp_path, unexpected)
    for row in reversed(rows):
        table.add(row)
    return tmp_path


def unexpected(text):
    raise AssertionError(text)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_has_an_empty_table_and_is_left_alone(tmp_path):
    assert open_table(tmp_path, unexpected).rows == []
    assert files(tmp_path) == {}


def test_added_rows_are_in_memory_in_the_file_and_in_their_runs(full, rows):
    assert open_table(full, unexpected).rows == rows
    assert read_rows(full / TRIALS) == rows
    kept = [row_of_object(read_json(full / RUNS / row.run_id / ROW)) for row in rows]
    assert kept == rows


def test_a_repeated_run_takes_the_place_of_its_earlier_row(tmp_path, make_row):
    table = open_table(tmp_path, unexpected)
    other = make_row(candidate="other", asked=1)
    table.add(make_row(status="failed", cause="killed"))
    table.add(other)
    table.add(make_row())
    assert table.rows == read_rows(tmp_path / TRIALS) == [make_row(), other]


def test_rows_that_came_into_the_file_meanwhile_are_kept(full, rows, make_row):
    table = open_table(full, unexpected)
    theirs = make_row(candidate="theirs", asked=7)
    (full / TRIALS).write_text(to_csv([theirs]))  # only their row; ours are in memory
    ours = make_row(candidate="ours", asked=8)
    table.add(ours)
    assert table.rows == read_rows(full / TRIALS) == [*rows, theirs, ours]


def test_a_row_costs_no_reading_of_a_table_that_nobody_else_changed(
    full, rows, make_row, monkeypatch
):
    reads = []
    monkeypatch.setattr(table_module, "read_rows", lambda path: reads.append(path) or [])
    formatted = []
    to_line = table_module.to_line
    monkeypatch.setattr(table_module, "to_line", lambda row: formatted.append(row) or to_line(row))
    table = table_module.Table(full, rows)
    added = [make_row(candidate=f"new-{asked}", asked=asked) for asked in range(7, 10)]
    changed = replace(rows[0], val_loss=0.25)
    for row in (*added, changed):
        table.add(row)
    assert reads == [full / TRIALS]  # the first time: it may not be as it was when it was opened
    assert formatted == [*rows, *added, changed]
    assert (full / TRIALS).read_text() == to_csv([changed, *rows[1:], *added])


def test_a_table_that_was_removed_meanwhile_is_written_whole(full, rows, make_row):
    table = open_table(full, unexpected)
    (full / TRIALS).unlink()
    table.add(make_row(candidate="d", asked=9))
    assert read_rows(full / TRIALS) == [*rows, make_row(candidate="d", asked=9)]


def test_a_full_disk_leaves_the_table_as_it_was(full, rows, make_row, full_disk):
    table, before = open_table(full, unexpected), files(full)
    late = make_row(candidate="late", asked=9)
    with full_disk(), pytest.raises(OSError, match="No space left"):
        table.add(late)
    assert files(full) == before
    table.add(late)
    assert read_rows(full / TRIALS) == [*rows, late]


def test_a_table_damaged_meanwhile_is_left_alone_and_no_row_is_lost(full, rows, make_row, refused):
    table = open_table(full, unexpected)
    torn = (full / TRIALS).read_bytes()[:-9]
    (full / TRIALS).write_bytes(torn)
    late = make_row(candidate="late", asked=9)
    with refused(full / TRIALS, "is damaged"):
        table.add(late)
    assert (full / TRIALS).read_bytes() == torn
    assert open_table(full, lambda _: None).rows == [*rows, late]


def test_a_missing_table_is_rebuilt_from_the_runs_and_noted(full, rows):
    (full / TRIALS).unlink()
    notes = []
    assert open_table(full, notes.append).rows == rows
    assert read_rows(full / TRIALS) == rows
    assert notes == [f"{full / TRIALS} is missing; its 3 rows are taken from {full / RUNS}"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"run_id,", b"{}", "{'a'"])
def test_a_run_whose_row_is_damaged_does_not_stop_the_rebuilding(content, full, rows):
    path = full / RUNS / rows[1].run_id / ROW
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (full / TRIALS).unlink()
    assert open_table(full, lambda _: None).rows == [rows[0], rows[2]]


def damage(text):
    header, first, *rest = text.splitlines(keepends=True)
    return {
        "torn": text[:-9],
        "in a merge": "".join([header, "<<<<<<< HEAD\n", first, "=======\n", *rest]),
        "twice": text + first.replace("0.5", "0.7"),
        "rubbish": "\0" * 100,
        "empty": "",
    }


@pytest.mark.parametrize("kind", ["torn", "in a merge", "twice", "rubbish", "empty"])
def test_a_damaged_table_is_kept_and_rebuilt_from_the_runs(kind, full, rows):
    text = damage((full / TRIALS).read_text())[kind]
    (full / TRIALS).write_text(text)
    notes = []
    assert open_table(full, notes.append).rows == rows
    assert read_rows(full / TRIALS) == rows
    assert (full / f"{TRIALS}.damaged").read_text() == text
    (note,) = notes
    assert "\n" not in note
    assert "kept as trials.csv.damaged, 3 rows are taken from it and" in note
    assert open_table(full, unexpected).rows == rows


@pytest.mark.parametrize("kind", ["in a merge", "twice"])
def test_rebuilding_keeps_the_whole_rows_that_runs_does_not_have(kind, full, rows):
    (full / TRIALS).write_text(damage((full / TRIALS).read_text())[kind])
    for row in rows[1:]:
        shutil.rmtree(full / RUNS / row.run_id)
    assert open_table(full, lambda _: None).rows == rows


def test_what_a_run_kept_itself_counts_more_than_a_damaged_table(full, rows):
    text = to_csv([replace(rows[0], seconds=99.0), *rows[1:]])
    (full / TRIALS).write_text(text[:-9])
    assert open_table(full, lambda _: None).rows == rows


def test_a_second_damaged_table_does_not_replace_the_first(full):
    whole = (full / TRIALS).read_text()
    for kind in ("torn", "rubbish", "empty"):
        (full / TRIALS).write_text(damage(whole)[kind])
        open_table(full, lambda _: None)
    kept = [(full / f"{TRIALS}.damaged{number}").read_text() for number in ("", "-2", "-3")]
    assert kept == [damage(whole)[kind] for kind in ("torn", "rubbish", "empty")]


def test_a_full_disk_leaves_a_damaged_table_in_its_place(full, rows, full_disk):
    (full / TRIALS).write_text((full / TRIALS).read_text()[:-9])
    before = files(full)
    with full_disk(), pytest.raises(OSError, match="No space left"):
        open_table(full, unexpected)
    assert files(full) == before
    assert open_table(full, lambda _: None).rows == rows


@pytest.mark.parametrize("kind", ["torn", "in a merge", "twice", "rubbish", "empty"])
def test_a_damaged_table_without_runs_is_refused_and_nothing_changes(kind, full, refused):
    shutil.rmtree(full / RUNS)
    (full / TRIALS).write_text(damage((full / TRIALS).read_text())[kind])
    before = files(full)
    with refused(full / TRIALS, "restore the table from a copy of it"):
        open_table(full, unexpected)
    assert files(full) == before
