"""An evaluation repeats the training's scores, by name, on the same images, and logs readings."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cmtscale
from cmtscale.arch.errors import DataError, ModelError, ResultsError
from cmtscale.data.batches import device_split, eval_batches
from cmtscale.data.dataset import Dataset
from cmtscale.deploy.evaluate import evaluate
from cmtscale.record.model_folder import read_description
from cmtscale.record.reads import readings

WORDS = {"0": "zero", "1": "one", "2": "two"}


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "out"))


def save_images(dataset: Dataset, folder: Path, *, classes: str, each: int) -> Path:
    """Validation images as `folder/CLASS/NUMBER.png`."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        val = dataset.splits.val
        for index in val[dataset.labels[val] == int(name)][:each]:
            image = Image.fromarray(dataset.images[index].squeeze(-1))
            image.save(folder / name / f"{index}.png")
    return folder


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "model.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def logits_of(
    trained: Path, digits: Dataset, *, mirrored: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    model = cmtscale.load_model(trained).model
    split = device_split(digits, digits.splits.val, device=torch.device("cpu"))
    with torch.inference_mode():
        parts = [
            (model(images.flip(-1) if mirrored else images), labels)
            for images, labels in eval_batches(split, batch_size=32, resolution_px=64)
        ]
    logits, labels = zip(*parts, strict=True)
    return torch.cat(logits).double(), torch.cat(labels)


def test_val_of_the_training_s_data_has_the_training_s_scores(
    trained: Path, digits: Dataset, cache_dir: Path
) -> None:
    scores = read_description(trained / "model")[0].scores
    evaluated = evaluate(trained, "digits", cache_dir=cache_dir)
    evaluation = evaluated.evaluation
    assert (evaluation.split, evaluation.images) == ("val", scores.val_images)
    assert evaluation.top1 == scores.val_accuracy
    assert evaluation.loss == pytest.approx(scores.val_loss, abs=1e-6)  # float32 sums in batches
    assert evaluation.own_data
    assert evaluation.reading is None
    assert evaluated.cautions == ()
    logits, labels = logits_of(trained, digits, mirrored=False)
    assert evaluation.raw_loss == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, labels)), abs=1e-6
    )
    top5 = (logits.topk(5).indices == labels[:, None]).any(dim=1).double().mean()
    assert evaluation.top5 == float(top5)
    assert [int(row.image) for row in evaluated.predictions] == digits.splits.val.tolist()
    assert evaluation.confusion_matrix().sum() == evaluation.images
    assert sum(pair.images for pair in evaluation.confusions) == sum(
        row.true != row.predicted for row in evaluated.predictions
    )


def test_the_worst_mistakes_are_shown_as_the_network_saw_them(
    trained: Path, digits: Dataset, cache_dir: Path
) -> None:
    evaluated = evaluate(trained, "digits", cache_dir=cache_dir)
    wrong = [row for row in evaluated.predictions if row.true != row.predicted]
    assert list(evaluated.mistakes) == sorted(wrong, key=lambda row: -row.probability)[:24]
    for row, pixels in zip(evaluated.mistakes, evaluated.mistake_pixels, strict=True):
        assert np.array_equal(pixels, digits.images[int(row.image)])


def test_files_score_as_the_packed_images_they_are(
    trained: Path, digits: Dataset, tmp_path: Path, cache_dir: Path
) -> None:
    folder = save_images(digits, tmp_path / "images", classes="0123456789", each=5)
    evaluated = evaluate(trained, f"folder:{folder}", cache_dir=cache_dir)
    evaluation = evaluated.evaluation
    assert (evaluation.split, evaluation.images) == ("all", 50)
    assert not evaluation.own_data
    (caution,) = evaluated.cautions
    assert "the model was trained on digits" in caution
    packed = {
        row.image: row for row in evaluate(trained, "digits", cache_dir=cache_dir).predictions
    }
    for row in evaluated.predictions:
        same = packed[Path(row.image).stem]
        assert (row.true, row.predicted) == (same.true, same.predicted)
        assert row.probability == pytest.approx(same.probability, abs=1e-5)


def test_classes_are_matched_by_name_not_by_order(
    trained: Path, digits: Dataset, tmp_path: Path, cache_dir: Path
) -> None:
    folder = save_images(digits, tmp_path / "images", classes="975", each=8)
    plain = evaluate(trained, f"folder:{folder}", cache_dir=cache_dir).evaluation
    # sorted, the folders are 5, 7, 9: outputs 5, 7 and 9 of the network, not 0, 1 and 2
    assert [score.name for score in plain.classes if score.images] == ["5", "7", "9"]
    assert plain.top1 > 0.3
    renamed = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    names = "[\n" + "".join(f'    "{digit}",\n' for digit in range(10)) + "]"
    reversed_names = "[\n" + "".join(f'    "{9 - digit}",\n' for digit in range(10)) + "]"
    edit(renamed, f"classes = {names}", f"classes = {reversed_names}")
    other = evaluate(renamed, f"folder:{folder}", cache_dir=cache_dir).evaluation
    assert {score.name: score.images for score in other.classes} == {
        score.name: score.images for score in plain.classes
    }
    assert other.classes[0].name == "9"
    assert [score.predicted for score in other.classes] == [
        score.predicted for score in plain.classes
    ]


def test_classes_that_the_model_lacks_are_named(
    trained: Path, digits: Dataset, tmp_path: Path, cache_dir: Path
) -> None:
    folder = save_images(digits, tmp_path / "images", classes="012", each=1)
    (folder / "2").rename(folder / "two")
    with pytest.raises(DataError, match="classes that the model lacks: 'two'; it knows '0', '1'"):
        evaluate(trained, f"folder:{folder}", cache_dir=cache_dir)


@pytest.mark.parametrize(
    ("parts", "split", "message"),
    [
        ([], "test", "has no test split; it has all: choose"),
        (["train", "val"], "test", "has no test split; it has train, val: choose"),
        (["train", "test"], None, "has no val split; it has train, test: choose"),
    ],
)
def test_a_split_that_is_not_there_is_refused(
    trained: Path,
    digits: Dataset,
    tmp_path: Path,
    cache_dir: Path,
    parts: list[str],
    split: str | None,
    message: str,
) -> None:
    for part in parts or ["."]:
        save_images(digits, tmp_path / "images" / part, classes="01", each=1)
    with pytest.raises(DataError, match=message):
        evaluate(trained, f"folder:{tmp_path / 'images'}", split=split, cache_dir=cache_dir)


def test_a_folder_s_own_test_split_is_read(
    copy: Path, digits: Dataset, tmp_path: Path, cache_dir: Path
) -> None:
    for part, each in (("train", 1), ("val", 2), ("test", 3)):
        save_images(digits, tmp_path / "images" / part, classes="01", each=each)
    data = f"folder:{tmp_path / 'images'}"
    assert evaluate(copy, data, cache_dir=cache_dir).evaluation.images == 4
    tested = evaluate(copy, data, split="test", cache_dir=cache_dir).evaluation
    assert (tested.images, tested.reading) == (6, 1)
    assert [reading.data for reading in readings(copy)] == ["", data]
    again = evaluate(copy, f"{data}/test", cache_dir=cache_dir).evaluation
    assert (again.split, again.images, again.reading) == ("test", 6, 2)
    assert [reading.data for reading in readings(copy)] == ["", data, data]


def test_a_broken_file_is_left_out_and_named(
    trained: Path, digits: Dataset, tmp_path: Path, cache_dir: Path
) -> None:
    folder = save_images(digits, tmp_path / "images", classes="01", each=3)
    (folder / "0" / "broken.png").write_bytes(b"no image")
    evaluated = evaluate(trained, f"folder:{folder}", cache_dir=cache_dir)
    assert (evaluated.evaluation.images, evaluated.evaluation.unreadable) == (6, 1)
    (reason,) = evaluated.unreadable
    assert "0/broken.png is no image" in reason
    assert all("broken" not in row.image for row in evaluated.predictions)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no image can be read, first: .*\.png is no image"):
        evaluate(trained, f"folder:{folder}", cache_dir=cache_dir)


def test_mirrored_probabilities_are_the_mean_of_both(
    trained: Path, digits: Dataset, tmp_path: Path, cache_dir: Path
) -> None:
    # a folder's images may be mirrored
    folder = save_images(digits, tmp_path / "images", classes="0123456789", each=len(digits.images))
    evaluated = evaluate(trained, f"folder:{folder}", tta="flip", cache_dir=cache_dir)
    evaluation = evaluated.evaluation
    plain, labels = logits_of(trained, digits, mirrored=False)
    mirrored, _ = logits_of(trained, digits, mirrored=True)
    rows = {int(Path(row.image).stem): row for row in evaluated.predictions}
    ordered = [rows[index] for index in digits.splits.val]
    mean = (
        (plain / evaluation.temperature).softmax(1) + (mirrored / evaluation.temperature).softmax(1)
    ) / 2
    assert [int(row.predicted) for row in ordered] == mean.argmax(1).tolist()
    assert [row.probability for row in ordered] == pytest.approx(mean.amax(1).tolist(), abs=1e-5)
    loss = float(-mean.gather(1, labels[:, None]).log().mean())
    assert evaluation.loss == pytest.approx(loss, abs=1e-5)
    raw_mean = (plain.softmax(1) + mirrored.softmax(1)) / 2
    raw_loss = float(-raw_mean.gather(1, labels[:, None]).log().mean())
    assert evaluation.raw_loss == pytest.approx(raw_loss, abs=1e-5)


def test_a_model_that_saw_no_mirrored_images_is_said_to_be_one(
    copy: Path, digits: Dataset, tmp_path: Path, cache_dir: Path
) -> None:
    folder = save_images(digits, tmp_path / "images", classes="01", each=1)
    for recipe, expected in (("flip = true", 1), ("flip = false", 2)):
        edit(copy / "model", "flip = true", recipe)
        evaluated = evaluate(copy, f"folder:{folder}", tta="flip", cache_dir=cache_dir)
        assert len(evaluated.cautions) == expected
    assert "not trained on mirrored images" in evaluated.cautions[-1]


def test_images_whose_class_a_mirror_changes_are_not_mirrored(
    trained: Path, cache_dir: Path
) -> None:
    with pytest.raises(DataError, match="a mirrored image of digits may be of another class"):
        evaluate(trained, "digits", tta="flip", cache_dir=cache_dir)


def test_every_reading_of_the_test_split_is_logged_and_counted(copy: Path, cache_dir: Path) -> None:
    scores = read_description(copy / "model")[0].scores
    assert [reading.by for reading in readings(copy)] == ["train"]
    evaluated = evaluate(copy, "digits", split="test", cache_dir=cache_dir)
    assert evaluated.evaluation.reading == 2
    assert evaluated.evaluation.top1 == scores.test_accuracy
    assert evaluated.log == copy
    assert (
        evaluate(copy / "model", "digits", split="test", cache_dir=cache_dir).evaluation.reading
        == 3
    )
    evaluate(copy, "digits", split="val", cache_dir=cache_dir)
    first, *rest = readings(copy)
    assert [(reading.by, reading.data, reading.images) for reading in rest] == [
        ("eval", "", scores.test_images)
    ] * 2
    assert {reading.accuracy for reading in rest} == {first.accuracy}


def test_a_model_that_stands_alone_keeps_its_log_and_remembers_the_training_s(
    copy: Path, tmp_path: Path, cache_dir: Path
) -> None:
    alone = Path(shutil.copytree(copy / "model", tmp_path / "alone"))
    evaluated = evaluate(alone, "digits", split="test", cache_dir=cache_dir)
    assert (evaluated.evaluation.reading, evaluated.log) == (2, alone)
    assert len(readings(alone)) == 1


def test_where_the_model_cannot_be_written_the_reading_is_logged_in_out(
    copy: Path, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != copy and access(path, mode))
    with pytest.raises(ResultsError, match=r"test_reads\.csv cannot be written; use --out"):
        evaluate(copy, "digits", split="test", cache_dir=cache_dir)
    for number in (2, 3):
        evaluated = evaluate(
            copy, "digits", split="test", out=tmp_path / "eval", cache_dir=cache_dir
        )
        assert (evaluated.evaluation.reading, evaluated.log) == (number, tmp_path / "eval")
    assert len(readings(copy)) == 1


def test_a_temperature_that_is_none_is_refused(copy: Path, cache_dir: Path) -> None:
    temperature = read_description(copy / "model")[0].scores.temperature
    edit(copy / "model", f"temperature = {temperature}", "temperature = nan")
    with pytest.raises(ModelError, match="temperature nan is not a number above 0"):
        evaluate(copy, "digits", cache_dir=cache_dir)
