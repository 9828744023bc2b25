"""Losses of images in half precision: exact enough for comparisons, kept when runs/ is deleted."""

import shutil
import zipfile

import numpy as np
import pytest

from cmtscale.record.folder import IMAGE_LOSSES, RUNS, VAL_LOSSES
from cmtscale.record.losses import gather_losses, read_losses, write_image_losses


def losses_like(kind, images, seed):
    """Cross-entropies (images,) as a trained network has them: many near 0, a tail up to 15."""
    generator = np.random.default_rng(seed)
    drawn = {
        "exponential": generator.exponential(0.8, images),
        "gamma": generator.gamma(0.3, 2.0, images),  # a good network: most near 0
        "early": generator.gamma(9.0, 0.25, images),  # near chance level, ten classes
    }[kind]
    return np.minimum(drawn, 15.0)


def put(folder, run_id, losses):
    write_image_losses(folder / RUNS / run_id, np.asarray(losses, dtype=float))


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("kind", ["exponential", "gamma", "early"])
@pytest.mark.parametrize("images", [500, 5000])
def test_half_precision_keeps_means_and_the_noise_of_paired_differences(kind, images, tmp_path):
    for seed in range(5):
        one = losses_like(kind, images, seed)
        # another network on the same images: errors on the same ones, losses a few per cent apart
        other = one * np.random.default_rng(100 + seed).lognormal(0.0, 0.2, images)
        for run_id, losses in (("a", one), ("b", other)):
            put(tmp_path, run_id, losses)
        kept = {
            key: half.astype(float) for key, half in gather_losses(tmp_path, ["a", "b"]).items()
        }
        assert kept["a"].mean() == pytest.approx(one.mean(), rel=1e-4)
        exact, half = one - other, kept["a"] - kept["b"]
        assert half.std(ddof=1) == pytest.approx(exact.std(ddof=1), rel=0.01)
        standard_error = exact.std(ddof=1) / images**0.5
        assert abs(half.mean() - exact.mean()) < 0.02 * standard_error


def test_a_loss_that_half_precision_cannot_hold_stays_finite(tmp_path):
    put(tmp_path, "a", [1.0, 70_000.0, 1e30])
    assert gather_losses(tmp_path, ["a"])["a"].tolist() == [1.0, 65504.0, 65504.0]


def test_what_was_gathered_is_read_again_and_a_missing_file_is_empty(tmp_path):
    assert read_losses(tmp_path) == {}
    put(tmp_path, "a", [0.5, 1.5])
    assert read_losses(tmp_path) == {}
    gathered = gather_losses(tmp_path, ["a", "without"])
    assert {key: half.tolist() for key, half in gathered.items()} == {"a": [0.5, 1.5]}
    assert same(read_losses(tmp_path), gathered)


def test_gathering_keeps_what_is_there_when_runs_are_gone_and_adds_what_is_new(tmp_path):
    put(tmp_path, "b", [1.0])
    gather_losses(tmp_path, ["b"])
    shutil.rmtree(tmp_path / RUNS)
    assert gather_losses(tmp_path, ["b"])["b"].tolist() == [1.0]
    put(tmp_path, "a", [2.0])
    gathered = gather_losses(tmp_path, ["a", "b"])
    assert {key: half.tolist() for key, half in gathered.items()} == {"a": [2.0], "b": [1.0]}
    assert same(read_losses(tmp_path), gathered)
    assert list(read_losses(tmp_path)) == ["a", "b"]


def test_a_run_that_was_scored_again_replaces_its_losses(tmp_path):
    put(tmp_path, "a", [1.0])
    gather_losses(tmp_path, ["a"])
    put(tmp_path, "a", [3.0])
    assert gather_losses(tmp_path, ["a"])["a"].tolist() == [3.0]
    assert read_losses(tmp_path)["a"].tolist() == [3.0]


@pytest.mark.parametrize("losses", [[1.0, 2.0], [np.nan, 1.0]])
def test_nothing_is_written_when_nothing_is_new(losses, tmp_path, full_disk):
    put(tmp_path, "a", losses)
    gather_losses(tmp_path, ["a"])
    before = (tmp_path / VAL_LOSSES).stat()
    with full_disk():
        gather_losses(tmp_path, ["a"])
        gather_losses(tmp_path, [])
    after = (tmp_path / VAL_LOSSES).stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_without_any_losses_no_file_is_made(tmp_path):
    assert gather_losses(tmp_path, ["a"]) == {}
    assert list(tmp_path.iterdir()) == []


def test_the_same_losses_are_the_same_bytes_in_any_order_and_at_any_time(tmp_path):
    for name, order in (("one", "ab"), ("other", "ba")):
        for run_id in order:
            put(tmp_path / name, run_id, [ord(run_id), 2.0])
            gather_losses(tmp_path / name, [run_id])
    one, other = (tmp_path / name / VAL_LOSSES for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_however_the_archive_is_damaged_what_runs_hold_is_taken(tmp_path):
    expected = {"a": [float(n) for n in range(40)], "b": [1.0, 2.0]}
    for run_id, losses in expected.items():
        put(tmp_path, run_id, losses)
    gathered = gather_losses(tmp_path, ["a", "b"])
    whole = (tmp_path / VAL_LOSSES).read_bytes()
    flipped = [whole[:n] + bytes([whole[n] ^ 0x10]) + whole[n + 1 :] for n in range(len(whole))]
    for damaged in [
        b"",
        b"\x93NUMPY",
        b"\x00" * 99,
        whole[:-1],
        whole[: len(whole) // 2],
        *flipped,
    ]:
        (tmp_path / VAL_LOSSES).write_bytes(damaged)
        again = gather_losses(tmp_path, ["a", "b"])
        assert same({key: again[key] for key in gathered}, gathered)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x00" * 99, b"cos\n."])
def test_a_damaged_file_of_a_run_leaves_what_was_gathered(content, tmp_path):
    put(tmp_path, "a", [1.0])
    gather_losses(tmp_path, ["a"])
    (tmp_path / RUNS / "a" / IMAGE_LOSSES).write_bytes(content)
    assert gather_losses(tmp_path, ["a"])["a"].tolist() == [1.0]


def test_a_full_disk_leaves_the_archive_as_it_was(tmp_path, full_disk):
    put(tmp_path, "a", [1.0])
    gather_losses(tmp_path, ["a"])
    before = (tmp_path / VAL_LOSSES).read_bytes()
    put(tmp_path, "b", [1.0])
    with full_disk(), pytest.raises(OSError, match="No space left"):
        gather_losses(tmp_path, ["a", "b"])
    assert (tmp_path / VAL_LOSSES).read_bytes() == before
