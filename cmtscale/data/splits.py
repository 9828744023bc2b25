"""Fixed, seeded, stratified splits; the same seed draws the same images on every machine.

`RandomState` on purpose: its stream is frozen (NEP 19), that of `default_rng` may change.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cmtscale.arch.errors import DataError

IntArray = npt.NDArray[np.int64]

SPLIT_NAMES = ("train", "val", "test")
# Our choices. A pool without any split of its own is small: 15 % keeps its scores readable.
# Beside a given split, 10 % of the training images is enough.
POOL_FRACTION = 0.15
CARVED_FRACTION = 0.10


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """Indices of the training, validation and test images: disjoint, each sorted."""

    train: IntArray
    val: IntArray
    test: IntArray

    @cached_property
    def hash(self) -> str:
        """Sha256 over the three index arrays."""
        digest = hashlib.sha256()
        for name in SPLIT_NAMES:
            indices: IntArray = getattr(self, name)
            digest.update(f"{name} {len(indices)}\n".encode())
            digest.update(indices.astype("<i8").tobytes())
        return digest.hexdigest()


def make_splits(
    labels: IntArray, class_names: Sequence[str], given: Mapping[str, IntArray], *, seed: int
) -> Splits:
    """Keep the `given` splits and carve the missing ones, stratified, from the training images.

    `given` is empty for a pool: 15 % test, 15 % validation. Otherwise it holds at least `train`,
    and each missing split gets 10 % of those. Raises `DataError` if a class is too small to be
    in every split.
    """
    missing = [name for name in ("test", "val") if name not in given]
    fraction = CARVED_FRACTION if given else POOL_FRACTION
    train = given.get("train", np.arange(len(labels)))
    _require_class_sizes(labels[train], class_names, carved=missing)
    count = max(round(fraction * len(train)), len(class_names))
    random = np.random.RandomState(seed)
    parts = dict(given)
    for position, name in enumerate(missing):
        spare = len(missing) - position
        parts[name] = stratified_draw(labels, train, count=count, spare=spare, random=random)
        train = np.setdiff1d(train, parts[name], assume_unique=True)
    return Splits(train=train, val=parts["val"], test=parts["test"])


def stratified_draw(
    labels: IntArray,
    indices: IntArray,
    *,
    count: int,
    random: np.random.RandomState,
    spare: int = 0,
) -> IntArray:
    """Draw exactly `count` of `indices`, classes in proportion, at least one of each; sorted.

    Every class keeps at least `spare` images; the caller has seen to it that this is possible.
    """
    classes, sizes = np.unique(labels[indices], return_counts=True)
    room = sizes - 1 - spare
    rest = count - len(classes)
    assert room.min() >= 0, "a class is too small for its share"
    assert 0 <= rest <= room.sum(), "count is out of reach"
    quotas = room * (rest / max(1, room.sum()))
    shares = np.floor(quotas + 1e-9).astype(np.int64)
    largest_remainders = np.argsort(shares - quotas, kind="stable")
    shares[largest_remainders[: rest - shares.sum()]] += 1
    drawn = [
        random.permutation(indices[labels[indices] == label])[: 1 + share]
        for label, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _require_class_sizes(labels: IntArray, class_names: Sequence[str], carved: list[str]) -> None:
    sizes = np.bincount(labels, minlength=len(class_names))
    smallest = int(sizes.argmin())
    needed = 1 + len(carved)
    if sizes[smallest] < needed:
        raise DataError(
            f"class {class_names[smallest]!r} is too small: {sizes[smallest]} of the {needed} "
            f"images that {', '.join(['train', *sorted(carved, reverse=True)])} need, one each; "
            f"add images or remove the class"
        )
