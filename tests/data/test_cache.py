"""The cache: packed once and atomically, rebuilt when damaged; clearing removes only our files."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmtscale.arch.errors import DataError
from cmtscale.data import pack
from cmtscale.data.cache import (
    ABANDONED_SECONDS,
    ALIVE,
    cache_report,
    clear_cache,
    default_cache_dir,
    own_folder,
)
from cmtscale.data.dataset import Dataset, open_dataset, read_manifest
from cmtscale.data.pack import FORMAT
from cmtscale.data.sources import open_source


def load(folder: Path, cache_dir: Path, *, side_px: int = 32, split_seed: int = 0) -> Dataset:
    source = open_source(f"folder:{folder}", cache_dir=cache_dir, split_seed=split_seed)
    return source.pack(side_px)


def entries(cache_dir: Path) -> list[str]:
    return [entry.name for entry in cache_report(cache_dir)]


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an image was read again")

    monkeypatch.setattr(Image, "open", refuse)


def test_a_packed_folder_is_not_read_again(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(pets, tmp_path / "cache")
    forbid_reading(monkeypatch)
    second = load(pets, tmp_path / "cache")
    assert second.content_hash == first.content_hash
    assert np.array_equal(second.images, first.images)
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    assert (second.mean, second.std, second.class_names) == (
        first.mean,
        first.std,
        first.class_names,
    )


def test_a_changed_file_another_side_and_another_seed_are_packed_apart(
    pets: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    hashes = [load(pets, cache, side_px=px).content_hash for px in (32, 64)]
    hashes.append(load(pets, cache, split_seed=1).content_hash)
    os.utime(pets / "cat" / "000.png", ns=(1, 1))
    hashes.append(load(pets, cache).content_hash)
    assert hashes[3] == hashes[0]  # a new mtime, the same content
    assert len(set(hashes[:3])) == 3
    assert len(entries(cache)) == 4


def test_a_data_set_is_opened_by_its_ref_without_its_source(pets: Path, tmp_path: Path) -> None:
    packed = load(pets, tmp_path / "cache")
    shutil.rmtree(pets)
    opened = open_dataset(packed.ref)
    assert np.array_equal(opened.images, packed.images)
    assert np.array_equal(opened.splits.val, packed.splits.val)
    with pytest.raises(DataError, match=r"have changed meanwhile; start anew"):
        open_dataset(replace(packed.ref, content_hash="other"))
    clear_cache(tmp_path / "cache")
    with pytest.raises(DataError, match=r"are gone or damaged; run the same command again"):
        open_dataset(packed.ref)


@pytest.mark.parametrize(
    "name", ["images.npy", "labels.npy", "train.npy", "val.npy", "test.npy", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["missing", "cut short", "empty"])
def test_a_damaged_entry_is_packed_anew(pets: Path, tmp_path: Path, name: str, damage: str) -> None:
    before = load(pets, tmp_path / "cache")
    images = np.array(before.images)
    (entry,) = cache_report(tmp_path / "cache")
    path = entry.path / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "cut short" else b"")
    after = load(pets, tmp_path / "cache")
    assert after.content_hash == before.content_hash
    assert np.array_equal(after.images, images)
    assert cache_report(tmp_path / "cache") == [entry]


@pytest.mark.parametrize("name", ["labels", "train", "val", "test"])
def test_arrays_of_another_data_set_are_noticed(pets: Path, tmp_path: Path, name: str) -> None:
    before = load(pets, tmp_path / "cache")
    (entry,) = cache_report(tmp_path / "cache")
    np.save(entry.path / f"{name}.npy", np.arange(5))
    after = load(pets, tmp_path / "cache")
    assert np.array_equal(after.labels, before.labels)
    assert after.splits.hash == before.splits.hash


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_cache_that_cannot_be_written_is_named(pets: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=rf"cache {tmp_path / name} cannot.*--cache-dir") as caught:
        load(pets, tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("written", range(6))
def test_a_full_disk_leaves_nothing_behind(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    done: list[object] = []

    def full_after(file: object) -> None:
        if len(done) == written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done.append(file)

    with monkeypatch.context() as patch:
        patch.setattr(pack, "_to_disk", full_after)
        with pytest.raises(DataError, match="No space left on device; choose another folder"):
            load(pets, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert len(load(pets, tmp_path / "cache").labels) == 40


def test_what_a_killed_process_left_is_removed_by_the_next(pets: Path, tmp_path: Path) -> None:
    partial = own_folder(tmp_path / "cache" / f"{pack.PARTIAL}abc")
    (partial / "images.npy").write_bytes(b"half")
    load(pets, tmp_path / "cache")
    (name,) = entries(tmp_path / "cache")
    assert name.startswith("pets-")


def test_processes_that_pack_at_once_get_the_same_entry(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from cmtscale.data.sources import open_source\n"
        "sys.stdin.read(1)\n"
        "data = open_source('digits', cache_dir=Path(sys.argv[1])).pack(32)\n"
        "print(data.content_hash)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "cache")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    hashes = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(hashes) == 1
    assert len(entries(tmp_path / "cache")) == 1


def test_the_report_counts_bytes_and_clearing_frees_them(pets: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    load(pets, cache)
    (own_folder(cache / "downloads") / "archive").write_bytes(bytes(1000))
    downloads, packed = cache_report(cache)
    assert (downloads.name, downloads.size_bytes) == ("downloads", 1000)
    assert packed.size_bytes > 40 * 32 * 32 * 3
    assert clear_cache(cache) == downloads.size_bytes + packed.size_bytes
    assert cache_report(cache) == []
    assert clear_cache(cache) == 0


def test_a_cache_that_slurm_jobs_work_with_is_not_cleared(pets: Path, tmp_path: Path) -> None:
    load(pets, tmp_path)
    alive = own_folder(tmp_path / "slurm") / "1127-0510-abc" / ALIVE
    alive.parent.mkdir()
    alive.touch()
    with pytest.raises(DataError, match=r"a search is at work with .*1127-0510-abc \(seen 0 s ago"):
        clear_cache(tmp_path)
    assert len(entries(tmp_path)) == 2
    long_ago = alive.stat().st_mtime - ABANDONED_SECONDS - 10
    os.utime(alive, (long_ago, long_ago))
    assert clear_cache(tmp_path) > 0
    assert entries(tmp_path) == []


def test_clearing_touches_only_what_the_cache_wrote(pets: Path, tmp_path: Path) -> None:
    # a user may point --cache-dir at a folder that holds other things
    own_folder(pets.parent / "downloads")
    mine = tmp_path / "home" / "downloads" / "thesis.pdf"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    own_folder(mine.parent)
    load(pets, tmp_path / "home")
    assert len(entries(tmp_path / "home")) == 1
    clear_cache(tmp_path / "home")
    assert mine.read_text() == "years of work"
    assert len(list(pets.rglob("*.png"))) == 40


def test_looking_at_a_cache_that_does_not_exist_makes_none(tmp_path: Path) -> None:
    assert cache_report(tmp_path / "none") == []
    assert clear_cache(tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("CMTSCALE_CACHE", raising=False)
    assert default_cache_dir() == tmp_path / ".cache" / "cmtscale"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "cmtscale"
    monkeypatch.setenv("CMTSCALE_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"
    assert open_source("digits").pack(32).name == "digits"
    assert len(entries(tmp_path / "own")) == 1


def test_a_channel_without_contrast_becomes_zero_not_nan(tmp_path: Path) -> None:
    for name, red in (("a", 0), ("b", 255)):
        (tmp_path / "red" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (32, 32), (red, 7, 0)).save(tmp_path / "red" / name / f"{number}.png")
    data = load(tmp_path / "red", tmp_path / "cache")
    assert data.mean == pytest.approx([0.5, 7 / 255, 0])
    assert data.std == pytest.approx([0.5, 1 / 255, 1 / 255])


def test_the_format_changes_with_what_a_manifest_holds(pets: Path, tmp_path: Path) -> None:
    entry = load(pets, tmp_path / "cache").path
    names = "class_names content_hash files may_flip mean name native_px set_hash shape splits std"
    assert (FORMAT, sorted(read_manifest(entry))) == (2, names.split())
