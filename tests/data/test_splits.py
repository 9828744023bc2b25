"""Splits are disjoint, stratified, complete and stable across versions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmtscale.arch.errors import DataError
from cmtscale.data.dataset import Dataset, training_part
from cmtscale.data.splits import make_splits, stratified_draw

DIGITS_HASH = "9be28da5c24dafead32c880f1a1302892377cf661a742fd46c81311a48ced060"


def label_array(*sizes: int) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


def names(count: int) -> list[str]:
    return [f"class{number}" for number in range(count)]


def test_digits_splits_have_the_published_hash(digits: Dataset) -> None:
    # a change here makes every earlier result on digits incomparable
    assert digits.splits.hash == DIGITS_HASH


@given(sizes=st.lists(st.integers(3, 60), min_size=2, max_size=8), seed=st.integers(0, 99))
def test_a_pool_is_split_completely_and_every_class_is_everywhere(
    sizes: list[int], seed: int
) -> None:
    labels = label_array(*sizes)
    splits = make_splits(labels, names(len(sizes)), {}, seed=seed)
    parts = (splits.train, splits.val, splits.test)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for part in parts:
        assert set(labels[part]) == set(range(len(sizes)))
        assert np.array_equal(part, np.sort(part))


def test_a_pool_gives_15_per_cent_to_validation_and_to_test_in_proportion() -> None:
    labels = label_array(600, 200, 200)
    splits = make_splits(labels, names(3), {}, seed=0)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (700, 150, 150)
    for part in (splits.val, splits.test):
        assert np.abs(np.bincount(labels[part]) - [90, 30, 30]).max() <= 1


def test_given_splits_are_kept_and_missing_ones_come_out_of_train() -> None:
    labels = label_array(50, 50)
    val = np.arange(0, 100, 5)
    train = np.setdiff1d(np.arange(100), val)
    splits = make_splits(labels, names(2), {"train": train, "val": val}, seed=0)
    assert np.array_equal(splits.val, val)
    assert len(splits.test) == 8
    assert np.array_equal(np.union1d(splits.train, splits.test), train)


def test_the_seed_decides_the_split() -> None:
    labels = label_array(40, 40)
    hashes = [make_splits(labels, names(2), {}, seed=seed).hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_hash_tells_apart_the_same_images_in_other_splits() -> None:
    labels = label_array(20, 20)
    splits = make_splits(labels, names(2), {}, seed=0)
    swapped = type(splits)(train=splits.train, val=splits.test, test=splits.val)
    assert swapped.hash != splits.hash


def test_a_class_too_small_for_three_splits_is_named() -> None:
    with pytest.raises(
        DataError, match=r"'class1' is too small: 2 of the 3 .*train, val, test need"
    ):
        make_splits(label_array(30, 2), names(2), {}, seed=0)


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_a_stratified_draw_is_exact_and_gives_larger_classes_more(
    sizes: list[int], fraction: float, seed: int
) -> None:
    labels = label_array(*sizes)
    count = max(len(sizes), round(fraction * len(labels)))
    indices = np.arange(len(labels))
    drawn = stratified_draw(labels, indices, count=count, random=np.random.RandomState(seed))
    assert len(np.unique(drawn)) == count
    taken = np.bincount(labels[drawn], minlength=len(sizes))
    assert taken.min() >= 1
    for size, share in zip(sizes, taken, strict=True):
        smaller = [other for near, other in zip(sizes, taken, strict=True) if near < size]
        assert share >= max(smaller, default=0)


def test_a_subset_is_stratified_seeded_and_of_the_training_split(digits: Dataset) -> None:
    drawn = training_part(digits, 400, seed=3)
    assert len(drawn) == 400
    assert np.isin(drawn, digits.splits.train).all()
    shares = np.bincount(digits.labels[digits.splits.train]) * 400 / 1257
    assert np.abs(np.bincount(digits.labels[drawn]) - shares).max() < 1.5
    assert np.array_equal(drawn, training_part(digits, 400, seed=3))
    assert not np.array_equal(drawn, training_part(digits, 400, seed=4))


@pytest.mark.parametrize("count", [9, 1258])
def test_an_impossible_subset_names_the_range(digits: Dataset, count: int) -> None:
    with pytest.raises(DataError, match=rf"{count} training images.*use 10 .* to 1257"):
        training_part(digits, count)
