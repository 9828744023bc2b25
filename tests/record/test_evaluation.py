"""An evaluation is read as it was written, and one that is damaged is refused in one line."""

from dataclasses import replace

import numpy as np
import pytest

from cmtscale.arch.errors import ResultsError
from cmtscale.record.evaluation import (
    ClassScore,
    Confused,
    Evaluation,
    ImagePrediction,
    read_evaluation,
    write_evaluation,
)

EVALUATION = Evaluation(
    model="cmt-ti", weights="0" * 64, data="digits", split="test", own_data=True, reading=2,
    tta="flip", device="cpu", images=5, unreadable=0, top1=0.8, top1_interval=(0.37, 0.97),
    top5=None, temperature=1.1, loss=1 / 3, raw_loss=0.4, calibration_error=0.1,
    raw_calibration_error=0.2, calibration_bins=15,
    classes=(
        ClassScore(name="a", images=3, predicted=2, right=2, precision=1.0, recall=2 / 3),
        ClassScore(name='b "c",\n', images=2, predicted=3, right=2, precision=2 / 3, recall=1.0),
        ClassScore(name="d", images=0, predicted=0, right=0, precision=None, recall=None),
    ),
    confusions=(Confused(true="a", predicted='b "c",\n', images=1),),
)  # fmt: skip


def test_an_evaluation_is_read_as_it_was_written(tmp_path):
    row = ImagePrediction(image="a/1.png", true="a", predicted='b "c",\n', probability=0.9)
    files = write_evaluation(tmp_path / "eval", EVALUATION, [row])
    assert read_evaluation(tmp_path / "eval") == EVALUATION
    assert sorted(files) == sorted((tmp_path / "eval").iterdir())
    assert (tmp_path / "eval" / "predictions.csv").read_text() == (
        'image,true,predicted,probability\na/1.png,a,"b ""c"",\n",0.9\n'
    )
    other = replace(EVALUATION, tta=None, reading=None, top5=0.5)
    write_evaluation(tmp_path / "eval", other, [row])
    assert read_evaluation(tmp_path / "eval") == other


def test_the_confusion_matrix_has_the_counts_of_its_pairs():
    expected = [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert np.array_equal(EVALUATION.confusion_matrix(), expected)


def test_a_missing_or_damaged_evaluation_is_refused(tmp_path, refused):
    path = tmp_path / "evaluation.json"
    with pytest.raises(ResultsError, match="does not exist"):
        read_evaluation(tmp_path)
    for content in ("", "{}", '{"model": 1}', "[]"):
        path.write_text(content)
        with refused(path, "is damaged"):
            read_evaluation(tmp_path)
