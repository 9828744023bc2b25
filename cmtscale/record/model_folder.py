"""A trained model as a folder: weights, what they are, and a card for people.

    model.safetensors   the weights, float32, under the names of the network's state dict
    model.toml          the network, its classes, preprocessing, training and scores
    README.md           the model card

`model.toml` is written last and holds the hash of the weights: a folder is whole or refused.
"""

import hashlib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tomli_w

from cmtscale.arch.errors import CmtscaleError, ModelError
from cmtscale.arch.network import Network, network_from_table, network_table
from cmtscale.record.files import write_atomically, write_text_atomically
from cmtscale.record.typed import record_of

FORMAT = 1
WEIGHTS, DESCRIPTION, CARD = "model.safetensors", "model.toml", "README.md"
MODEL = "model"  # the folder's name in that of its training
LARGEST_DESCRIPTION = 10_000_000  # bytes of a model.toml; 100,000 classes take 2


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What an image goes through before the network sees it.

    Upright, grey or RGB by `channels`; of its centre square `crop_fraction` is cut out and resized
    to `stored_px` (bicubic); pixels in [0, 1] are normalised by `mean` and `std` of each channel;
    then, where `resolution_px` is another side, enlarged or reduced to it (bilinear). That is what
    packed images go through; a full training resizes once, and has both alike.
    """

    channels: int
    resolution_px: int
    stored_px: int
    crop_fraction: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"{self.channels} channels are neither 1 nor 3")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need {self.channels} numbers each")
        if not 0 < self.crop_fraction <= 1 or not all(value > 0 for value in self.std):
            raise ValueError("crop_fraction and std must be above 0")
        if not all(map(math.isfinite, (*self.mean, *self.std))):
            raise ValueError("mean and std must be finite")
        if not 1 <= self.stored_px <= 10_000:
            raise ValueError(f"stored_px {self.stored_px} is no side of an image")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the weights were trained on, how, and where they began (`started_from`, or "").

    `data_hash` names the files and their splits, packed or not (a set without files: the content).
    """

    data: str
    data_hash: str
    split_seed: int
    recipe: str
    seed: int
    images_seen: int
    seconds: float
    device: str
    started_from: str
    versions: str


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracies are fractions, losses nats; `temperature` divides the logits for calibration.

    `val_loss` is at that temperature. The test split is None until it has been read.
    """

    val_images: int
    val_accuracy: float
    val_loss: float
    temperature: float
    test_images: int | None = None
    test_accuracy: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature} is not a number above 0")


@dataclass(frozen=True, kw_only=True)
class Size:
    """What one image costs: multiply-adds and parameters."""

    macs: int
    params: int


@dataclass(frozen=True, kw_only=True)
class ChosenBy:
    """The search that chose the network: its folder's name, budget, verdict and probability."""

    search: str
    budget_macs: float
    verdict: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """All that `model.toml` says; `recipe` holds every value of the recipe that trained it."""

    network: Network
    size: Size
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    training: Training
    scores: Scores
    recipe: Mapping[str, Any]
    chosen_by: ChosenBy | None = None

    def __post_init__(self) -> None:
        if len(self.classes) != self.network.num_classes:
            raise ValueError(
                f"{len(self.classes)} classes for {self.network.num_classes} outputs of the network"
            )
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("two classes have the same name")
        spec = self.preprocessing
        if spec.channels != self.network.in_channels:
            raise ValueError("preprocessing and network differ in their channels")
        if spec.resolution_px != self.network.resolution_px:
            raise ValueError("preprocessing and network differ in their resolution")


def write_model(
    folder: Path,
    description: ModelDescription,
    weights: Mapping[str, npt.NDArray[Any]],
    *,
    card: str,
) -> None:
    """Write the folder anew; raises `OSError` as it comes, and what was there stays refused."""
    from safetensors.numpy import save

    content = save({name: array.copy(order="C") for name, array in weights.items()})
    write_atomically(folder / WEIGHTS, lambda file: file.write(content))
    write_text_atomically(folder / CARD, card)
    digest = hashlib.sha256(content).hexdigest()
    write_text_atomically(folder / DESCRIPTION, description_toml(description, digest))


def description_toml(description: ModelDescription, digest: str) -> str:
    """The text of `model.toml`; `digest` is the SHA-256 of the weights that it belongs to."""
    table = {
        "format": FORMAT,
        "weights_sha256": digest,
        **_without_none(asdict(description)),
        "network": network_table(description.network),
    }
    return tomli_w.dumps(table)


def find_model(path: Path) -> Path:
    """The model's folder: `path`, or `path/model` for the folder of a training.

    Raises `ModelError` if neither is one.
    """
    for folder in (path, path / MODEL):
        if (folder / DESCRIPTION).is_file():
            return folder
    if not path.exists():
        raise ModelError(f"{path} does not exist; give the folder of a trained model")
    raise ModelError(
        f"{path} holds no {DESCRIPTION}; give the folder of a trained model, which "
        f"`cmtscale train` writes as OUT/{MODEL}"
    )


def read_description(folder: Path) -> tuple[ModelDescription, str]:
    """What `model.toml` says and the hash of its weights; raises `ModelError` for a wrong one."""
    path = folder / DESCRIPTION
    try:
        if path.stat().st_size > LARGEST_DESCRIPTION:
            raise ValueError("it is too large")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}; train or copy the model anew") from error
    return parse_description(text, source=str(path))


def parse_description(text: str, *, source: str) -> tuple[ModelDescription, str]:
    """`read_description` from the text of a `model.toml`; `source` names it in the error."""
    try:
        table = tomllib.loads(text)
        if table.pop("format", None) != FORMAT:
            raise ValueError(f"its format is not {FORMAT}; a newer cmtscale may read it")
        network = network_from_table(_table(table.pop("network", None)), source="network")
        recipe = _table(table.pop("recipe", None))
        digest = str(table.pop("weights_sha256", ""))
        described = {**table, "scores": _with_none(Scores, table.get("scores"))}
        names = {"size", "classes", "preprocessing", "training", "scores", "chosen_by"}
        if unknown := described.keys() - names:
            raise ValueError(f"it has no such {', '.join(sorted(unknown))}")
        body = record_of(_Body, {"chosen_by": None, **described})
        return ModelDescription(
            network=network,
            recipe=recipe,
            size=body.size,
            classes=body.classes,
            preprocessing=body.preprocessing,
            training=body.training,
            scores=body.scores,
            chosen_by=body.chosen_by,
        ), digest
    except (ValueError, CmtscaleError, RecursionError) as error:
        raise ModelError(
            f"{source} cannot be read: {error}; train or copy the model anew"
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Body:
    size: Size
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    training: Training
    scores: Scores
    chosen_by: ChosenBy | None


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("network or recipe is missing")
    return value


def _with_none(kind: type, table: Any) -> dict[str, Any]:
    """TOML has no null: what is missing and may be None is None."""
    return {**{f.name: None for f in fields(kind) if f.default is None}, **_table(table)}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return value
