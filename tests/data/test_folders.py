"""Image folders: layouts, sizes, modes, and a one-line error for each fault."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmtscale.arch.errors import DataError
from cmtscale.data.dataset import Dataset, Description
from cmtscale.data.sources import open_source


def load(folder: Path, *, resolution_px: int = 32) -> Dataset:
    cache_dir = folder.parent / "cache"
    return open_source(f"folder:{folder}", cache_dir=cache_dir).pack(resolution_px)


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    cache = folder.parent / "cache"
    assert not cache.exists() or [path.name for path in cache.iterdir()] == [".lock"]
    return message


def test_a_folder_of_classes_is_split(pets: Path) -> None:
    data = load(pets)
    assert data.images.shape == (40, 32, 32, 3)
    assert data.class_names == ("cat", "dog")
    assert np.array_equal(data.labels, np.repeat([0, 1], 20))
    assert [len(part) for part in (data.splits.train, data.splits.val, data.splits.test)] == [
        28,
        6,
        6,
    ]
    assert data.name == "pets"
    assert data.may_flip


def test_images_are_packed_at_the_native_side_pixel_by_pixel(pets: Path) -> None:
    data = load(pets, resolution_px=224)
    assert (data.native_px, data.images.shape[1]) == (40, 40)
    with Image.open(pets / "dog" / "007.png") as image:
        assert np.array_equal(data.images[27], np.asarray(image))


def test_train_and_val_folders_are_kept_and_test_comes_out_of_train(
    tmp_path: Path, write_images
) -> None:
    for split, count in (("train", 20), ("val", 4)):
        for name in ("cat", "dog"):
            write_images(tmp_path / "pets" / split / name, count)
    data = load(tmp_path / "pets")
    assert np.array_equal(data.splits.val, np.arange(40, 48))
    assert len(data.splits.test) == 4
    assert np.array_equal(np.union1d(data.splits.train, data.splits.test), np.arange(40))


def test_a_test_folder_is_the_test_split(tmp_path: Path, write_images) -> None:
    for split in ("train", "val", "test"):
        for name in ("cat", "dog"):
            write_images(tmp_path / "pets" / split / name, 3)
    data = load(tmp_path / "pets")
    assert np.array_equal(data.splits.test, np.arange(12, 18))
    assert np.array_equal(data.splits.train, np.arange(6))


def test_a_class_may_be_called_train(tmp_path: Path, write_images) -> None:
    for name in ("car", "train"):
        write_images(tmp_path / "vehicles" / name, 5)
    assert load(tmp_path / "vehicles").class_names == ("car", "train")


def test_greyscale_needs_one_channel_only_if_all_are_grey(
    tmp_path: Path, write_images, pets: Path
) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / "letters" / name, 4, mode="L")
    grey = load(tmp_path / "letters")
    assert (grey.channels, grey.images.shape) == (1, (8, 32, 32, 1))
    write_images(pets / "cow", 4, mode="L")
    mixed = load(pets)
    cow = mixed.images[20:24]
    assert mixed.class_names == ("cat", "cow", "dog")
    assert mixed.channels == 3
    assert (cow[..., 0] == cow[..., 2]).all()


def test_the_short_side_is_resized_and_the_centre_is_cut_out(tmp_path: Path) -> None:
    for name, colour in (("a", (200, 0, 0)), ("b", (0, 0, 200))):
        (tmp_path / "bars" / name).mkdir(parents=True)
        for number, size in enumerate([(120, 60), (60, 120), (60, 60)]):
            image = Image.new("RGB", size, (0, 255, 0))
            left, top = (size[0] - 60) // 2, (size[1] - 60) // 2
            image.paste(colour, (left, top, left + 60, top + 60))
            image.save(tmp_path / "bars" / name / f"{number}.png")
    for resolution_px, edge in ((60, 0), (32, 3)):  # resizing mixes cropped pixels into the edge
        data = load(tmp_path / "bars", resolution_px=resolution_px)
        inner = data.images[:, edge : resolution_px - edge, edge : resolution_px - edge]
        assert data.native_px == 60
        assert (inner[:3] == (200, 0, 0)).all()
        assert (inner[3:] == (0, 0, 200)).all()


def test_native_px_is_the_median_short_side_and_smaller_images_are_enlarged(
    tmp_path: Path, write_images
) -> None:
    write_images(tmp_path / "mix" / "a", 3, size=(20, 30))
    write_images(tmp_path / "mix" / "b", 4, size=(90, 48))
    data = load(tmp_path / "mix", resolution_px=96)
    assert (data.native_px, data.images.shape[1:]) == (48, (48, 48, 3))


def test_photos_are_turned_upright_as_their_camera_says(tmp_path: Path, write_images) -> None:
    write_images(tmp_path / "photos" / "a", 3)
    (tmp_path / "photos" / "b").mkdir()
    image = Image.new("RGB", (40, 40))
    image.paste((255, 255, 255), (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # needs a quarter turn clockwise
    for number in range(3):
        image.save(tmp_path / "photos" / "b" / f"{number}.png", exif=exif)
    turned = load(tmp_path / "photos", resolution_px=40).images[5]
    assert turned[:, 20:].min() == 255
    assert turned[:, :20].max() == 0


def test_transparent_palette_images_are_read_without_a_warning(tmp_path: Path) -> None:
    for name, colour in (("a", 0), ("b", 1)):
        (tmp_path / "icons" / name).mkdir(parents=True)
        image = Image.new("P", (32, 32), colour)
        image.putpalette([10, 20, 30, 40, 50, 60])
        for number in range(3):
            path = tmp_path / "icons" / name / f"{number}.png"
            image.save(path, transparency=b"\x00\x80")
    assert (load(tmp_path / "icons").images[3:] == (40, 50, 60)).all()


def test_other_files_and_hidden_ones_are_passed_over(pets: Path) -> None:
    (pets / "README.txt").write_text("two kinds of pets")
    (pets / "cat" / "notes.txt").write_text("asleep")
    (pets / "cat" / "._000.png").write_bytes(b"macOS")
    (pets / ".cache").mkdir()
    assert len(load(pets).labels) == 40


def test_images_may_lie_deeper_in_a_class_folder(pets: Path, write_images) -> None:
    write_images(pets / "cat" / "indoors", 5)
    assert np.bincount(load(pets).labels).tolist() == [25, 20]


def test_corrupt_images_are_counted_and_the_first_is_named(pets: Path) -> None:
    (pets / "cat" / "003.png").write_bytes(b"not a picture")
    (pets / "dog" / "001.png").write_bytes(b"")
    assert refusal(pets) == (
        f"2 of 40 images cannot be read, first {pets / 'cat' / '003.png'}: not an image; "
        "replace or remove them"
    )


def test_a_truncated_image_is_found_though_its_header_is_fine(pets: Path) -> None:
    path = pets / "dog" / "004.png"
    path.write_bytes(path.read_bytes()[:1500])
    assert refusal(pets).startswith(f"1 of 40 images cannot be read, first {path}: ")


def test_16_bit_images_are_refused_instead_of_clipped(pets: Path) -> None:
    pixels = np.full((40, 40), 40_000, dtype=np.uint16)
    Image.fromarray(pixels).save(pets / "cat" / "000.png")
    assert "pixels of mode I;16, only 8 bits are read" in refusal(pets)


def test_a_missing_folder_a_file_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in refusal(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "has no class folders; put the images of each class" in refusal(tmp_path / "empty")


def test_an_empty_class_and_a_single_class_are_refused(pets: Path, write_images) -> None:
    (pets / "cow").mkdir()
    assert f"class folder {pets / 'cow'} holds no images" in refusal(pets)
    single = pets.parent / "single"
    write_images(single / "cat", 5)
    assert "has the single class 'cat'; use two or more" in refusal(single)


def test_a_class_with_too_few_images_is_refused(pets: Path, write_images) -> None:
    write_images(pets / "cow", 2)
    assert "class 'cow' is too small: 2 of the 3 images that train, val, test need" in refusal(pets)


def test_splits_with_different_classes_are_refused(tmp_path: Path, write_images) -> None:
    for class_folder in ("train/cat", "train/dog", "val/cat", "val/cow"):
        write_images(tmp_path / "pets" / class_folder, 3)
    assert "class 'cow' is not in the train split" in refusal(tmp_path / "pets")
    write_images(tmp_path / "pets" / "train" / "cow", 3)
    assert "class 'dog' is not in the val split" in refusal(tmp_path / "pets")


def test_a_split_under_another_name_is_refused_not_ignored(tmp_path: Path, write_images) -> None:
    for class_folder in ("train/cat", "train/dog", "validation/cat", "validation/dog"):
        write_images(tmp_path / "pets" / class_folder, 3)
    assert "has 'validation' beside 'train'; name the splits" in refusal(tmp_path / "pets")


def test_a_folder_that_cannot_be_listed_is_named(pets: Path, monkeypatch) -> None:
    def denied(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", denied)  # root ignores file permissions
    with pytest.raises(DataError, match=f"folder {pets} cannot be read: Permission denied"):
        load(pets)


def test_val_and_test_without_train_are_no_classes(tmp_path, write_images):
    for split in ("val", "test"):
        for name in ("cat", "dog"):
            write_images(tmp_path / "tree" / split / name, 4)
    with pytest.raises(DataError, match="has test, val but no train; add it"):
        open_source(f"folder:{tmp_path / 'tree'}", cache_dir=tmp_path / "cache").pack(32)


def test_a_folder_is_described_before_it_is_packed_and_headers_are_read_once(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    opened: list[str] = []
    real_open = Image.open

    def counting(path, *rest):
        opened.append(str(path))
        return real_open(path, *rest)

    monkeypatch.setattr(Image, "open", counting)
    source = open_source(f"folder:{pets}", cache_dir=cache)
    described = Description(num_classes=2, channels=3, train_images=28, val_images=6)
    assert source.describe() == described
    assert len(opened) == 40
    assert not cache.exists()
    packed = source.pack(32)
    assert len(opened) == 80
    assert (packed.num_classes, packed.channels, len(packed.splits.train)) == (2, 3, 28)
    again = open_source(f"folder:{pets}", cache_dir=cache)
    assert (again.describe(), again.pack(32).content_hash) == (described, packed.content_hash)
    assert len(opened) == 80


def test_two_spellings_of_a_folder_are_one_packed_set(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(pets)
    spellings = ("pets", "./pets/", f"{pets}/../pets", "link")
    paths = {
        open_source(f"folder:{text}", cache_dir=tmp_path / "cache").pack(32).path
        for text in spellings
    }
    assert len(paths) == 1
