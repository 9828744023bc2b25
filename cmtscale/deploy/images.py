"""The images of one split of a data set, labelled as a model names its classes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cmtscale.arch.errors import DataError
from cmtscale.data.cache import default_cache_dir
from cmtscale.data.dataset import Dataset
from cmtscale.data.folders import is_split_tree
from cmtscale.data.named import NAMED
from cmtscale.data.sources import (
    FOLDER,
    LARGEST_NATIVE_PX,
    DataSpec,
    open_source,
    parse_spec,
    read_tree,
)
from cmtscale.data.splits import SPLIT_NAMES, IntArray, make_splits
from cmtscale.data.tree import ImageTree, set_hash
from cmtscale.record.model_folder import ModelDescription

ALL = "all"  # the one split of a folder that has none, and that the model was not trained on
LISTED = 5  # names of classes in an error


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """The images of a split: `read(position)` is one, or its file.

    `labels` (n,) are outputs of the model, `names` what records call the images: a path within the
    folder, or a number within the data set. `is_own`: the model was trained on this data set, and
    the split is the one of then; where that is not certain, or may matter though it is not,
    `caution` says so.
    """

    data: str
    split: str
    names: Sequence[str]
    labels: IntArray
    read: Callable[[int], Image.Image | Path]
    may_flip: bool
    is_own: bool
    caution: str


def open_images(
    description: ModelDescription, data: str, *, split: str | None, cache_dir: Path | None
) -> LabelledImages:
    """The split of the data set `data` (None: val, or all of a folder without splits).

    Splits that the data set does not give are drawn as for the model's training, by its split
    seed. A folder that the model was not trained on has the splits that it gives itself, or `all`;
    one that is itself a split of a data set, such as PATH/test, is that split of PATH. Classes are
    matched by name. Raises `DataError` for a data set with classes that the model lacks, without
    this split, or whose split would be drawn otherwise than for the training.
    """
    spec = parse_spec(data)
    cache_dir = (cache_dir or default_cache_dir()).expanduser()
    if spec.text in NAMED:
        return _small(description, spec, split, cache_dir)
    files = _owned(description, spec, read_tree(spec, cache_dir))
    if not files.is_own and (outer := _enclosing(spec, cache_dir)):
        files = _owned(description, *outer)
        split = _split_in(spec, files.spec, split)
    return _files(description, files, split)


def _small(
    description: ModelDescription, spec: DataSpec, split: str | None, cache_dir: Path
) -> LabelledImages:
    training = description.training
    split = _one_of(SPLIT_NAMES, split, spec.text)
    source = open_source(spec.text, split_seed=training.split_seed, cache_dir=cache_dir)
    dataset = source.pack(LARGEST_NATIVE_PX)
    labels = outputs_of(dataset.class_names, description.classes, spec.text)
    indices: IntArray = getattr(dataset.splits, split)
    is_same = dataset.set_hash == training.data_hash
    return LabelledImages(
        data=spec.text,
        split=split,
        names=[str(index) for index in indices],
        labels=labels[dataset.labels[indices]],
        read=lambda position: _packed_image(dataset, int(indices[position])),
        may_flip=dataset.may_flip,
        is_own=is_same,
        caution="" if is_same else _other_data(spec.text, training.data),
    )


def _packed_image(dataset: Dataset, index: int) -> Image.Image:
    pixels = dataset.images[index]  # (side, side, C)
    return Image.fromarray(pixels[..., 0] if dataset.channels == 1 else pixels)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Files:
    """The files of a data set, and whether the model was trained on it.

    `is_own`: on this data set, wherever its files lie now. `is_same`: on these files, split alike.
    """

    spec: DataSpec
    tree: ImageTree
    is_own: bool
    is_same: bool


def _owned(description: ModelDescription, spec: DataSpec, tree: ImageTree) -> _Files:
    is_same = _is_unchanged(description, tree)
    is_own = is_same or spec.text == description.training.data
    return _Files(spec=spec, tree=tree, is_own=is_own, is_same=is_same)


def _is_unchanged(description: ModelDescription, tree: ImageTree) -> bool:
    """Whether these are the files of the model's training, split as they were then."""
    training = description.training
    with suppress(DataError):  # classes that are too small to be split were not trained on
        splits = make_splits(tree.labels, tree.class_names, tree.given, seed=training.split_seed)
        return set_hash(tree.files_hash, splits) == training.data_hash
    return False


def _enclosing(spec: DataSpec, cache_dir: Path) -> tuple[DataSpec, ImageTree] | None:
    """The data set of which a folder is a split; None for any other folder."""
    if spec.path is None or spec.path.name not in SPLIT_NAMES:
        return None
    if not is_split_tree(spec.path.parent):  # which may hold anything, and a lot of it
        return None
    outer = parse_spec(f"{FOLDER}{spec.path.parent}")
    with suppress(DataError):
        tree = read_tree(outer, cache_dir)
        if spec.path.name in tree.given:
            return outer, tree
    return None


def _split_in(part: DataSpec, outer: DataSpec, split: str | None) -> str:
    """The split of `outer` that the folder `part` is, where no other one is asked for."""
    if split not in (None, ALL, part.name):
        raise DataError(
            f"{part.text} is the {part.name} split of {outer.text}; leave --split away, or give "
            f"{outer.text}"
        )
    return part.name


def _files(description: ModelDescription, files: _Files, split: str | None) -> LabelledImages:
    training, spec, tree = description.training, files.spec, files.tree
    labels = outputs_of(tree.class_names, description.classes, spec.text)
    caution = ""
    if files.is_own:
        drawn = make_splits(tree.labels, tree.class_names, tree.given, seed=training.split_seed)
        splits: Mapping[str, IntArray] = {name: getattr(drawn, name) for name in SPLIT_NAMES}
    else:
        splits = tree.given or {ALL: np.arange(len(tree.paths))}
        caution = _other_data(spec.text, training.data)
    split = _one_of(tuple(splits), split, spec.text)
    if files.is_own and not files.is_same and split not in (*tree.given, "train"):
        _require_sizes(description, splits, spec.text)
        caution = (
            f"{spec.text} cannot be shown to hold the files of the training, or has changed since: "
            f"where files were added or removed, {split} holds images that were trained on"
        )
    indices = splits[split]
    paths = [tree.paths[index] for index in indices]
    return LabelledImages(
        data=spec.text,
        split=split,
        names=[path.relative_to(tree.root).as_posix() for path in paths],
        labels=labels[tree.labels[indices]],
        read=lambda position: paths[position],
        may_flip=True,
        is_own=files.is_own,
        caution=caution,
    )


def outputs_of(names: Sequence[str], classes: Sequence[str], data: str) -> IntArray:
    """(len(names),): which output of a model with these `classes` each class of a data set is.

    By name: the data set may have fewer classes, and in another order. Raises `DataError` for one
    that the model lacks.
    """
    number = {name: index for index, name in enumerate(classes)}
    if foreign := [name for name in names if name not in number]:
        raise DataError(
            f"{data} has classes that the model lacks: {_listed(foreign)}; it knows "
            f"{_listed(classes)}; rename the class folders, or give another model"
        )
    return np.array([number[name] for name in names], dtype=np.int64)


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(repr(name) for name in names[:LISTED]) + rest


def _one_of(existing: tuple[str, ...], wanted: str | None, data: str) -> str:
    if wanted is None and existing == (ALL,):
        return ALL
    chosen = wanted or "val"
    if chosen not in existing:
        raise DataError(
            f"{data} has no {chosen} split; it has {', '.join(existing)}: choose with --split"
        )
    return chosen


def _other_data(data: str, trained_on: str) -> str:
    if data == trained_on:
        return (
            f"{data} is not as it was when the model was trained on it; whether the same images "
            "were trained on is not known"
        )
    return (
        f"the model was trained on {trained_on}, not on {data}; scores are too high where both "
        "hold the same images"
    )


def _require_sizes(
    description: ModelDescription, splits: Mapping[str, IntArray], data: str
) -> None:
    """Refuse a folder from which other images would be drawn than for the training."""
    scores = description.scores
    for name, count in (("val", scores.val_images), ("test", scores.test_images)):
        if count is not None and count != len(splits[name]):
            raise DataError(
                f"{data} has changed since the model was trained on it: {name} had {count:,} "
                f"images and would have {len(splits[name]):,}, most of which were trained on; "
                "give new images in a folder of their own"
            )
