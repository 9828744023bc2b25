"""What users name: variants, networks of timm, trained models and searches, at any side."""

import shutil
from pathlib import Path

import pytest

from cmtscale.arch.errors import ModelError, RequestError, VariantError
from cmtscale.arch.network import TimmNetwork
from cmtscale.arch.variant import Variant, variant
from cmtscale.deploy.subjects import read_subject
from cmtscale.record.model_folder import read_description
from cmtscale.search.outcome import Outcome


def test_a_published_variant_has_its_published_accuracy_at_its_own_side_only() -> None:
    subject = read_subject("cmt-s")
    assert subject.network == variant("cmt-s")
    assert (subject.accuracy, subject.accuracy_of) == (0.835, "ImageNet-1K, as published")
    assert read_subject("cmt-s@224", resolution_px=None).accuracy == 0.835
    for larger in (read_subject("cmt-s@288"), read_subject("cmt-s", resolution_px=288)):
        assert larger.name == "cmt-s@288"
        assert larger.network.resolution_px == 288
        assert larger.accuracy is None


def test_a_file_that_borrows_a_published_name_borrows_no_accuracy(tmp_path: Path) -> None:
    text = variant("cmt-ti").to_toml()
    (tmp_path / "same.toml").write_text(text)
    (tmp_path / "other.toml").write_text(text.replace("num_classes = 1000", "num_classes = 10"))
    assert read_subject(str(tmp_path / "same.toml")).accuracy == 0.79
    assert read_subject(str(tmp_path / "other.toml")).accuracy is None


def test_a_network_of_timm_has_no_accuracy() -> None:
    subject = read_subject("timm:resnet18@64")
    assert subject.network == TimmNetwork(model="resnet18", resolution_px=64)
    assert subject.name == "timm:resnet18@64"
    assert subject.accuracy is None


def test_a_trained_model_has_its_validation_accuracy(trained: Path) -> None:
    description, _ = read_description(trained / "model")
    for folder in (trained, trained / "model"):
        subject = read_subject(str(folder))
        assert subject.network == description.network
        assert subject.accuracy == description.scores.val_accuracy
        assert subject.accuracy_of == "digits, validation"
    assert read_subject(f"{trained}@96").accuracy is None


def test_validation_images_are_told_apart(trained: Path, tmp_path: Path) -> None:
    texts = set()
    for data, seed in (("folder:/a/pets", 0), ("folder:/b/pets", 0), ("folder:/a/pets", 3)):
        folder = tmp_path / str(len(texts))
        shutil.copytree(trained / "model", folder)
        described = (folder / "model.toml").read_text()
        described = described.replace('data = "digits"', f'data = "{data}"')
        described = described.replace("split_seed = 0", f"split_seed = {seed}")
        (folder / "model.toml").write_text(described)
        texts.add(read_subject(str(folder)).accuracy_of)
    assert texts == {
        "folder:/a/pets, validation",
        "folder:/b/pets, validation",
        "folder:/a/pets, validation (split seed 3)",
    }


def test_of_a_search_its_answer_is_measured_at_real_size(finished: Outcome, tmp_path: Path) -> None:
    subject = read_subject(str(finished.folder))
    assert subject.network == variant(finished.folder / "best.toml")
    assert isinstance(subject.network, Variant)
    running = tmp_path / "running"
    running.mkdir()
    shutil.copy(finished.folder / "request.toml", running)
    with pytest.raises(ModelError, match=r"is a search without best\.toml; let it come to"):
        read_subject(str(running))


def test_what_does_not_exist_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds neither a trained model"):
        read_subject(str(tmp_path))
    with pytest.raises(VariantError, match="is not one of cmt-ti"):
        read_subject(str(tmp_path / "nothing"))
    with pytest.raises(VariantError, match="timm has no network"):
        read_subject("timm:resnet0")
    with pytest.raises(RequestError, match="has a side; leave @288 or --resolution away"):
        read_subject("cmt-s@288", resolution_px=320)
    with pytest.raises(VariantError, match="300 px is not a positive multiple of 32; use 288"):
        read_subject("cmt-s", resolution_px=300)
