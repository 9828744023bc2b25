"""A trained model opens as it was scored, and a hostile or damaged folder does nothing."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image

import cmtscale
from cmtscale.arch.errors import DataError, ModelError
from cmtscale.data.batches import device_split, eval_batches
from cmtscale.data.dataset import Dataset
from cmtscale.deploy.predict import predict
from cmtscale.record.model_folder import read_description


def save_image(dataset: Dataset, index: int, path: Path) -> Path:
    Image.fromarray(dataset.images[index].squeeze(-1)).save(path)
    return path


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "model", tmp_path / "model"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "model.toml"
    table = tomllib.loads(path.read_text())
    for name, value in changes.items():
        *tables, key = name.split("__")
        part = table
        for step in tables:
            part = part[step]
        part[key] = value
    path.write_text(tomli_w.dumps(table))


def test_a_loaded_model_repeats_the_scores_of_its_training(trained: Path, digits: Dataset) -> None:
    model, _, classes = cmtscale.load_model(trained)
    scores = read_description(trained / "model")[0].scores
    for part, accuracy in (("val", scores.val_accuracy), ("test", scores.test_accuracy)):
        split = device_split(digits, getattr(digits.splits, part), device=torch.device("cpu"))
        with torch.inference_mode():
            right = sum(
                int((model(images).argmax(1) == labels).sum())
                for images, labels in eval_batches(split, batch_size=32, resolution_px=64)
            )
        assert right / len(split) == accuracy
    assert classes == digits.class_names
    assert scores.val_accuracy > 0.5


def test_preprocessing_a_file_gives_what_training_saw(
    trained: Path, digits: Dataset, tmp_path: Path
) -> None:
    preprocess = cmtscale.load_model(trained).preprocess
    split = device_split(digits, digits.splits.val[:8], device=torch.device("cpu"))
    (images, _), *_ = eval_batches(split, batch_size=8, resolution_px=64)
    for number, index in enumerate(digits.splits.val[:8]):
        path = save_image(digits, int(index), tmp_path / f"{number}.png")
        assert torch.equal(preprocess(path), images[number])
        assert torch.equal(preprocess(Image.open(path)), images[number])


def test_preprocessing_greys_a_photo_and_cuts_its_centre(trained: Path) -> None:
    random = np.random.default_rng(0)
    photo = Image.fromarray(random.integers(0, 256, (50, 120, 3), dtype=np.uint8))
    preprocess = cmtscale.load_model(trained).preprocess
    plain = preprocess(photo)
    assert torch.equal(plain, preprocess(photo.convert("L")))
    for left, is_seen in ((0, False), (50, True), (100, False)):
        covered = photo.copy()
        covered.paste((0, 0, 0), (left, 0, left + 20, 50))
        assert torch.equal(preprocess(covered), plain) != is_seen


def test_the_card_states_cost_and_accuracy(trained: Path) -> None:
    description = read_description(trained / "model")[0]
    card = (trained / "model" / "README.md").read_text()
    assert f"{description.size.macs:,}" in card
    assert description.size.macs == cmtscale.cost(description.network).macs
    assert description.scores.test_accuracy is not None
    assert f"{100 * description.scores.test_accuracy:.2f} %" in card


def test_a_damaged_weight_file_is_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"not the file that model\.toml describes"):
        cmtscale.load_model(copy)


def test_weights_of_another_network_are_refused_before_it_is_built(copy: Path) -> None:
    # 4096 px would take a position bias of 2⁵⁰ numbers
    edit(copy, network__resolution_px=2**15, preprocessing__resolution_px=2**15)
    with pytest.raises(ModelError, match=r"position_bias.* differ"):
        cmtscale.load_model(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format is not 1"),
        ({"classes": ["a"]}, "1 classes for 10 outputs"),
        ({"network__kind": "pickle"}, "neither cmt nor timm"),
        ({"preprocessing__channels": 3}, "3 numbers each"),
        ({"preprocessing__stored_px": 10**9}, "no side of an image"),
        ({"preprocessing__std": [0.0]}, "above 0"),
        ({"scores__val_accuracy": "high"}, "no val_accuracy"),
        ({"surprise": 1}, "no such surprise"),
        ({"preprocessing__resolution_px": 96}, "differ in their resolution"),
        ({"preprocessing__mean": [float("nan")]}, "must be finite"),
        ({"scores__temperature": 0.0}, "not a number above 0"),
        ({"classes": [*"aa", *"23456789"]}, "same name"),
        (
            {
                "network": {
                    "kind": "timm",
                    "model": "hf-hub:a/b",
                    "resolution_px": 64,
                    "num_classes": 10,
                    "in_channels": 1,
                }
            },
            "no name of a network",
        ),
    ],
)
def test_a_wrong_description_is_one_line(
    copy: Path, changes: dict[str, object], message: str
) -> None:
    edit(copy, **changes)
    with pytest.raises(ModelError, match=message):
        cmtscale.load_model(copy)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        cmtscale.load_model(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"holds no model\.toml"):
        cmtscale.load_model(tmp_path)


def test_a_file_that_is_no_image_is_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="no image that can be read"):
        cmtscale.load_model(trained).preprocess(tmp_path / "a.png")


def test_a_file_named_twice_is_predicted_twice(
    trained: Path, digits: Dataset, tmp_path: Path
) -> None:
    path = save_image(digits, int(digits.splits.val[0]), tmp_path / "digit.png")
    first, second = predict(cmtscale.load_model(trained), [path, path], top=2)
    assert first == second
