"""Torn logs are read up to the last whole line; curves are kept when their logs are deleted."""

import shutil

import pytest

from cmtscale.record.folder import CURVES, METRICS, RUNS
from cmtscale.record.metrics import (
    append_metrics,
    drop_metrics_after,
    export_curves,
    read_curves,
    read_metrics,
)

TRAINING = {"step": 5, "images": 640, "train_loss": 0.1 + 0.2, "lr": 1e-3, "seconds": 0.5}
EVALUATION = {"step": 10, "images": 1280, "val_loss_raw": 1 / 3, "val_accuracy": 0.9}
CURVE = [("5", "640", "0.30000000000000004", "", ""), ("10", "1280", "", repr(1 / 3), "0.9")]


def log(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    for line in lines:
        append_metrics(folder, line)


def curve(folder, row):
    lines = [line for line in read_curves(folder) if line.pop("run_id") == row.run_id]
    return [tuple(line.values()) for line in lines]


def test_logged_lines_are_read_exactly_and_a_missing_log_is_empty(tmp_path):
    assert read_metrics(tmp_path) == []
    log(tmp_path, TRAINING, EVALUATION)
    assert read_metrics(tmp_path) == [TRAINING, EVALUATION]


def test_a_log_cut_anywhere_is_read_up_to_its_last_whole_line(tmp_path):
    log(tmp_path, TRAINING, EVALUATION)
    text = (tmp_path / METRICS).read_text()
    first = text.index("\n")
    for length in range(len(text) - 1):
        (tmp_path / METRICS).write_text(text[:length])
        assert read_metrics(tmp_path) == ([TRAINING] if length >= first else [])


def test_a_resumed_run_drops_the_lines_after_its_checkpoint_and_the_torn_one(tmp_path):
    log(tmp_path, *({"step": step} for step in (5, 10, 15, 20)))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 2')
    drop_metrics_after(tmp_path, 10)
    log(tmp_path, {"step": 15, "again": True})
    assert read_metrics(tmp_path) == [{"step": 5}, {"step": 10}, {"step": 15, "again": True}]


def test_a_full_disk_while_lines_are_dropped_leaves_the_log(tmp_path, full_disk):
    log(tmp_path, {"step": 5}, {"step": 10})
    with full_disk(), pytest.raises(OSError, match="No space left"):
        drop_metrics_after(tmp_path, 5)
    assert read_metrics(tmp_path) == [{"step": 5}, {"step": 10}]


def test_curves_hold_the_logs_of_all_rows_to_the_last_digit(tmp_path, make_row):
    one, other = rows = [make_row(seed=0), make_row(seed=1)]
    log(tmp_path / RUNS / one.run_id, TRAINING, EVALUATION)
    log(tmp_path / RUNS / other.run_id, EVALUATION)
    export_curves(tmp_path, rows)
    assert (curve(tmp_path, one), curve(tmp_path, other)) == (CURVE, CURVE[1:])


def test_curves_of_runs_whose_log_is_gone_stay_to_the_byte(tmp_path, make_row):
    rows = [make_row(seed=0), make_row(seed=1)]
    for row in rows:
        log(tmp_path / RUNS / row.run_id, TRAINING, EVALUATION)
    export_curves(tmp_path, rows)
    before = (tmp_path / CURVES).read_bytes()
    shutil.rmtree(tmp_path / RUNS)
    export_curves(tmp_path, rows)
    assert (tmp_path / CURVES).read_bytes() == before
    late = make_row(seed=2)
    log(tmp_path / RUNS / late.run_id, EVALUATION)
    export_curves(tmp_path, [*rows, late])
    assert [curve(tmp_path, row) for row in (*rows, late)] == [CURVE, CURVE, CURVE[1:]]


def test_a_log_that_was_written_again_replaces_its_curve(tmp_path, make_row):
    row = make_row()
    log(tmp_path / RUNS / row.run_id, TRAINING, EVALUATION)
    export_curves(tmp_path, [row])
    drop_metrics_after(tmp_path / RUNS / row.run_id, 5)
    export_curves(tmp_path, [row])
    assert curve(tmp_path, row) == CURVE[:1]


def test_lines_of_the_curves_that_are_not_whole_are_left_out(tmp_path, make_row):
    row = make_row()
    log(tmp_path / RUNS / row.run_id, TRAINING, EVALUATION)
    export_curves(tmp_path, [row])
    with (tmp_path / CURVES).open("a") as file:
        file.write(f"<<<<<<< HEAD\n{row.run_id},1,2,3,4,5,6\n{row.run_id},15,19")
    assert curve(tmp_path, row) == CURVE
    assert len(read_curves(tmp_path)) == 2


def test_missing_curves_are_empty_and_what_is_no_text_is_refused_in_one_line(tmp_path, refused):
    assert read_curves(tmp_path) == []
    (tmp_path / CURVES).write_bytes(b"\xff\xfe")
    with refused(tmp_path / CURVES, "is damaged"):
        read_curves(tmp_path)
    with refused(tmp_path / CURVES, "is damaged"):
        export_curves(tmp_path, [])
    assert (tmp_path / CURVES).read_bytes() == b"\xff\xfe"
