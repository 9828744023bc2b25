"""Every reading of a test split is logged, in order, and a damaged log is never overwritten."""

from datetime import UTC, datetime, timedelta

import pytest

from cmtscale.record.folder import TEST_READS
from cmtscale.record.reads import accuracy_read_by_training, log_reading, readings


def test_readings_are_logged_in_order_exactly_and_with_the_time(tmp_path):
    assert readings(tmp_path) == []
    accuracies = [0.1 + 0.2, 1.0, 1 / 3]
    began = datetime.now(UTC) - timedelta(seconds=1)
    for number, accuracy in enumerate(accuracies):
        log_reading(tmp_path, by='se"a,rch\n', run_id=f"r{number}", images=9, accuracy=accuracy)
    logged = readings(tmp_path)
    assert [reading.accuracy for reading in logged] == accuracies
    assert [reading.run_id for reading in logged] == ["r0", "r1", "r2"]
    assert {(reading.by, reading.images) for reading in logged} == {('se"a,rch\n', 9)}
    times = [datetime.fromisoformat(reading.when) for reading in logged]
    assert began <= times[0] <= times[1] <= times[2] <= datetime.now(UTC)


def test_a_log_that_was_begun_before_it_named_other_data_goes_on(tmp_path):
    (tmp_path / TEST_READS).write_bytes(HEADER + LINE)
    log_reading(tmp_path, by="eval", run_id="a", images=9, accuracy=0.25, data="folder:/b")
    first, second = readings(tmp_path)
    assert (first.by, first.accuracy, first.data) == ("search", 0.5, "")
    assert (second.by, second.accuracy, second.data) == ("eval", 0.25, "folder:/b")


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path, full_disk):
    log_reading(tmp_path, by="search", run_id="a", images=9, accuracy=0.5)
    before = (tmp_path / TEST_READS).read_bytes()
    with full_disk(), pytest.raises(OSError, match="No space left"):
        log_reading(tmp_path, by="search", run_id="b", images=9, accuracy=0.5)
    assert (tmp_path / TEST_READS).read_bytes() == before


HEADER = b"when,by,run_id,images,accuracy\n"
LINE = b"2025-01-01T00:00:00+00:00,search,a,9,0.5\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"\x00" * 99,
        LINE,
        HEADER + LINE + b"<<<<<<< HEAD\n" + LINE,
        HEADER + LINE.replace(b",9,", b",nine,"),
        HEADER + LINE.replace(b"0.5", b"half"),
        HEADER + LINE.replace(b"0.5", b"nan"),
        HEADER + LINE.replace(b",9,0.5", b",9"),
        HEADER + LINE.replace(b"0.5", b"0.5,more"),
        HEADER + LINE[:-1],
        HEADER.replace(b"by,", b"") + LINE,
        HEADER + b"a" * 200_000,
    ],
    ids=[
        "empty",
        "no text",
        "zeros",
        "no header",
        "merge",
        "images",
        "accuracy",
        "nan",
        "short",
        "long",
        "torn",
        "column",
        "huge",
    ],
)
def test_a_damaged_log_is_refused_in_one_line_and_not_begun_anew(content, tmp_path, refused):
    (tmp_path / TEST_READS).write_bytes(content)
    with refused(tmp_path / TEST_READS, "is damaged"):
        readings(tmp_path)
    with refused(tmp_path / TEST_READS, "is damaged"):
        log_reading(tmp_path, by="search", run_id="a", images=9, accuracy=0.5)
    assert (tmp_path / TEST_READS).read_bytes() == content


def test_what_a_training_read_is_not_mixed_up_with_other_readings(tmp_path):
    assert accuracy_read_by_training(tmp_path) is None
    log_reading(tmp_path, by="eval --tta flip", run_id="r", images=9, accuracy=0.9, data="other")
    assert accuracy_read_by_training(tmp_path) is None
    log_reading(tmp_path, by="train", run_id="r", images=9, accuracy=0.5)
    log_reading(tmp_path, by="eval", run_id="r", images=9, accuracy=0.7)
    assert accuracy_read_by_training(tmp_path) == 0.5
