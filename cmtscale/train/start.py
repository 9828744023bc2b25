"""Weights that a training begins with: of a trained model, or of an authors' checkpoint."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from cmtscale.arch.errors import RequestError, WeightsError
from cmtscale.arch.network import Network, TimmNetwork
from cmtscale.arch.variant import Variant
from cmtscale.model.blocks import resize_position_bias
from cmtscale.model.cmt import CMT, Stage, build
from cmtscale.model.saved import differing, listed, read_saved
from cmtscale.model.weights import load_published, published_input, read_published
from cmtscale.record.model_folder import Training
from cmtscale.record.single_file import SAFETENSORS
from cmtscale.train.freeze import classifiers


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Weights under the names of our networks, for a network of `side_px` and its `classes`.

    `classes` are None where they have no names, and `training` where none is recorded. `digest` is
    the sha256 of the file, `label` says for people which it is.
    """

    weights: Mapping[str, Tensor]
    network: Network
    classes: tuple[str, ...] | None
    training: Training | None
    digest: str
    label: str

    def require_same_splits(self, data: str, split_seed: int, data_hash: str) -> None:
        """Raise `RequestError` where it was trained on images that are now validated or tested on.

        That is, on the same `data` with splits of another seed. Equal hashes are equal splits.
        """
        training = self.training
        if training is None or training.data != data or training.data_hash == data_hash:
            return
        if training.split_seed != split_seed:
            raise RequestError(
                f"{self.label} was trained on {data} with split seed {training.split_seed}; with "
                f"{split_seed} it knows images that this training validates and tests on; "
                f"use --split-seed {training.split_seed}"
            )

    def fill(self, network: nn.Module, spec: Network, classes: tuple[str, ...]) -> None:
        """Load the weights in place into a network, which `spec` describes, of these classes.

        The classifier stays fresh where classes differ; a position bias for another side is
        resized bicubically. Raises `WeightsError` if anything else does not fit, and
        `RequestError` for other channels.
        """
        if spec.in_channels != self.network.in_channels:
            raise RequestError(
                f"{self.label} takes images of {self.network.in_channels} channels, these have "
                f"{spec.in_channels}; train from scratch"
            )
        same_classes = self.network.num_classes == len(classes) and self.classes in (None, classes)
        fresh = set() if same_classes else _classifier_names(network)
        expected, weights = (
            {name: value for name, value in state.items() if name not in fresh}
            for state in (network.state_dict(), self.weights)
        )
        if isinstance(network, CMT):
            weights |= _resized_biases(weights, network)
        if wrong := differing(weights, expected):
            raise WeightsError(
                f"{self.label} is a {self.network.name} and does not fit this network: "
                f"{listed(wrong)} differ; train the network that it is"
            )
        network.load_state_dict(weights, strict=False)


def read_start(path: Path, network: Network) -> Start:
    """The weights of a trained model, or of an authors' checkpoint (a file) of the `network`.

    Raises a `CmtscaleError` for what is neither, and for a checkpoint of another variant.
    """
    if path.is_file() and path.suffix != SAFETENSORS:
        return _read_published(path, network)
    saved = read_saved(path)
    return Start(
        weights=dict(saved.weights),
        network=saved.description.network,
        classes=saved.description.classes,
        training=saved.description.training,
        digest=saved.digest,
        label=str(path),
    )


def _read_published(path: Path, network: Network) -> Start:
    if isinstance(network, TimmNetwork):
        raise RequestError(
            f"{path} is a file, and authors' checkpoints are of CMTs, not of {network.name}; "
            "give the folder of a trained model"
        )
    published = read_published(path)
    resolution_px, num_classes, channels = published_input(published, network)
    variant: Variant = replace(
        network, resolution_px=resolution_px, num_classes=num_classes, in_channels=channels
    )
    with torch.random.fork_rng(devices=[]):
        model = build(variant)
    load_published(model, published)
    return Start(
        weights=model.state_dict(),
        network=variant,
        classes=None,
        training=None,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        label=str(path),
    )


def _classifier_names(network: nn.Module) -> set[str]:
    """The names of the classifier's weights."""
    inner = {id(weight) for head in classifiers(network) for weight in head.parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) in inner}


def _resized_biases(weights: Mapping[str, Tensor], network: CMT) -> dict[str, Tensor]:
    """Position biases of the network's stages, for the sides that it has."""
    resized = {}
    for number, stage in enumerate(network.stages):
        assert isinstance(stage, Stage)
        name, k = f"stages.{number}.position_bias", stage.reduction
        bias = weights.get(name)
        if bias is None or bias.ndim != 3:
            continue
        side = round(bias.shape[1] ** 0.5)
        if side**2 == bias.shape[1] and (side // k) ** 2 == bias.shape[2]:
            resized[name] = resize_position_bias(
                bias,
                queries=(side, side),
                keys=(side // k, side // k),
                to_queries=(stage.side, stage.side),
                to_keys=(stage.side // k, stage.side // k),
            )
    return resized
