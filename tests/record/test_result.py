"""A result is read back exactly, and only by the run it belongs to."""

import json
import math
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmtscale.record.result import SCORING, RunResult, read_result, write_result

COMPLETE = RunResult(
    status="complete",
    val_loss=0.1 + 0.2,
    val_loss_raw=1 / 3,
    val_accuracy=0.9,
    temperature=0.7,
    train_loss=0.5,
    images_per_second=1234.5,
    seconds=12.25,
)
DIVERGED = RunResult(status="diverged", cause="loss not finite at step 5 of 6 – “ü”", seconds=1.0)


@pytest.mark.parametrize("result", [COMPLETE, DIVERGED, RunResult(status="failed")])
def test_a_result_is_read_back_exactly(result, tmp_path):
    path = tmp_path / "runs" / "a" / "result.json"
    write_result(path, result, "abc")
    assert read_result(path, "abc") == result
    assert list(path.parent.iterdir()) == [path]


@settings(deadline=None)
@given(loss=st.floats(allow_nan=False, allow_infinity=False), cause=st.text())
def test_any_number_and_any_cause_is_read_back_exactly(loss, cause, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "result.json"
    write_result(path, replace(COMPLETE, val_loss=loss, cause=cause), "abc")
    again = read_result(path, "abc")
    assert (again.val_loss, again.cause) == (loss, cause)
    assert math.copysign(1, again.val_loss) == math.copysign(1, loss)


def stored(**changes):
    values = {field.name: getattr(COMPLETE, field.name) for field in fields(RunResult)}
    return {"identity": "abc", **values, **changes}


def without(name):
    return {key: value for key, value in stored().items() if key != name}


def test_what_is_stored_whole_is_read(tmp_path):
    (tmp_path / "r").write_text(json.dumps(stored()))
    assert read_result(tmp_path / "r", "abc") == COMPLETE


@pytest.mark.parametrize("name", ["identity", *(field.name for field in fields(RunResult))])
def test_a_result_that_lacks_a_field_is_none(name, tmp_path):
    (tmp_path / "r").write_text(json.dumps(without(name)))
    assert read_result(tmp_path / "r", "abc") is None


@pytest.mark.parametrize(
    "content",
    [
        stored(identity="of another run"),
        stored(identity=None),
        stored(scoring=SCORING - 1),
        stored(scoring=SCORING + 1),
        stored(of_a_later_version=1),
        stored(fingerprint="abc"),
        [],
        [1, 2],
        None,
        "abc",
        {},
        {"identity": "abc"},
    ],
    ids=str,
)
def test_a_result_of_another_run_or_version_is_none(content, tmp_path):
    (tmp_path / "r").write_text(json.dumps(content))
    assert read_result(tmp_path / "r", "abc") is None


def test_a_result_cut_anywhere_is_none(tmp_path):
    write_result(tmp_path / "r", COMPLETE, "abc")
    text = (tmp_path / "r").read_text().rstrip()
    for length in range(len(text)):
        (tmp_path / "r").write_text(text[:length])
        assert read_result(tmp_path / "r", "abc") is None


def test_a_result_that_is_missing_or_no_text_is_none(tmp_path):
    assert read_result(tmp_path / "r", "abc") is None
    (tmp_path / "r").write_bytes(b"\xff\xfe\x00")
    assert read_result(tmp_path / "r", "abc") is None
    assert read_result(tmp_path, "abc") is None
