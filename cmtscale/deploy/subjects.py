"""What is measured: variants, timm's networks, trained models and what searches chose."""

from dataclasses import dataclass, replace
from pathlib import Path

from cmtscale.arch import paper
from cmtscale.arch.errors import ModelError, RequestError
from cmtscale.arch.network import Network, split_side
from cmtscale.arch.variant import Variant, variant
from cmtscale.model.networks import read_network
from cmtscale.record.folder import BEST, REQUEST
from cmtscale.record.model_folder import DESCRIPTION, MODEL, Training, read_description


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network under the name that its user gave it.

    `accuracy` is the fraction of the images `accuracy_of` that it classifies right, where that is
    known of these weights, or published for this network; else None.
    """

    name: str
    network: Network
    accuracy: float | None = None
    accuracy_of: str = ""


def read_subject(text: str, *, resolution_px: int | None = None) -> Subject:
    """`cmt-s`, a variant's TOML file, `timm:resnet50`, or the folder of a trained model or search.

    With `@288`, or with `resolution_px`, at another side in px. Raises `RequestError` for both at
    once, and `VariantError` or `ModelError` for what does not exist.
    """
    plain, side = split_side(text)
    if side is None:
        side = resolution_px
    elif resolution_px is not None:
        raise RequestError(f"{text} has a side; leave @{side} or --resolution away")
    is_folder = plain.lower() not in paper.VARIANTS and Path(plain).is_dir()
    subject = _in_folder(Path(plain)) if is_folder else _published(plain, read_network(plain))
    if side is None or side == subject.network.resolution_px:
        return replace(subject, name=text)
    network = replace(subject.network, resolution_px=side)
    return Subject(name=f"{plain}@{side}", network=network)  # its accuracy there is not known


def _published(name: str, network: Network) -> Subject:
    row = paper.VARIANTS.get(network.name)
    if row is None or not isinstance(network, Variant):
        return Subject(name=name, network=network)
    if not network.same_network(variant(network.name)):
        return Subject(name=name, network=network)
    return Subject(
        name=name, network=network, accuracy=row.top1 / 100, accuracy_of="ImageNet-1K, as published"
    )


def _validation(training: Training) -> str:
    """The validation images, told from those of a folder of the same name or of another draw."""
    seed = f" (split seed {training.split_seed})" if training.split_seed else ""
    return f"{training.data}, validation{seed}"


def _in_folder(folder: Path) -> Subject:
    for model in (folder, folder / MODEL):
        if (model / DESCRIPTION).is_file():
            description, _ = read_description(model)
            return Subject(
                name=str(folder),
                network=description.network,
                accuracy=description.scores.val_accuracy,
                accuracy_of=_validation(description.training),
            )
    if (folder / BEST).is_file():
        return Subject(name=str(folder), network=variant(folder / BEST))
    if (folder / REQUEST).is_file():
        raise ModelError(f"{folder} is a search without {BEST}; let it come to an answer first")
    raise ModelError(
        f"{folder} holds neither a trained model ({DESCRIPTION}) nor a search's answer ({BEST})"
    )
