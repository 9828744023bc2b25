"""The authors' checkpoints: their names mapped onto ours, and back."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtscale.arch import paper
from cmtscale.arch.errors import WeightsError
from cmtscale.arch.variant import Variant
from cmtscale.model.cmt import CMT
from cmtscale.model.saved import listed

# Where checkpoints keep weights, in the order in which timm looks. Averaged ones go first:
# the authors' `train.py --eval` takes `model_ema` for all variants but Ti, which has none.
AVERAGED, PLAIN = ("state_dict_ema", "model_ema"), ("state_dict", "model")
LISTED_KEYS = 10  # an error names this many keys of a kind and counts the rest
ADAPTABLE = ("stem_conv1.weight", "head.weight", "head.bias")  # depend on channels and classes

# Our module → the published modules that it holds, stacked along the first axis.
STEM = {
    str(3 * layer + offset): (f"stem_{kind}{layer + 1}",)
    for layer in range(3)
    for offset, kind in ((0, "conv"), (2, "norm"))
}
PATCH_EMBEDDING = {"conv": ("proj",), "norm": ("norm",)}
BLOCK = {
    "lpu": ("proj",),
    "norm1": ("norm1",),
    "lmhsa.reduce": ("attn.sr.0",),
    "lmhsa.reduce_norm": ("attn.sr.1",),
    "lmhsa.q": ("attn.q",),
    "lmhsa.kv": ("attn.k", "attn.v"),
    "lmhsa.qkv": ("attn.q", "attn.k", "attn.v"),
    "lmhsa.proj": ("attn.proj",),
    "norm2": ("norm2",),
    "irffn.expand": ("mlp.conv1.0",),
    "irffn.expand_norm": ("mlp.conv1.2",),
    "irffn.depthwise": ("mlp.proj",),
    "irffn.depthwise_norm": ("mlp.proj_bn",),
    "irffn.project": ("mlp.conv2.0",),
    "irffn.project_norm": ("mlp.conv2.1",),
}
HEAD = {"project": ("_fc",), "norm": ("_bn",), "classifier": ("head",)}


def load_published(model: CMT, source: Mapping[str, Any] | str | Path, *, ema: bool = True) -> None:
    """Load a checkpoint of the authors' code into `model`, in place, all of it or nothing.

    `source` is a state dict or a file that `torch.save` wrote; the weights may stand under
    "model_ema", "state_dict_ema", "state_dict" or "model", and their names may begin with
    "module.". Averaged weights are taken where there are any; `ema=False` takes the others. Batch
    counters may be absent. Raises `WeightsError` if the source cannot be read or a tensor is
    missing, left over or of another shape.
    """
    published = read_published(source, ema=ema)
    _require_fit(published, published_state_dict(model))
    model.load_state_dict(_renamed(model, published), strict=False)  # batch counters can be absent


def rename_published(model: CMT, published: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a bare state dict of the authors' code under the names of `model`.

    The first convolution and the classifier may be those of other channels and classes. Raises
    `WeightsError` if another tensor is missing, left over or of another shape.
    """
    expected = published_state_dict(model)
    _require_fit(
        {name: tensor for name, tensor in published.items() if name not in ADAPTABLE},
        {name: tensor for name, tensor in expected.items() if name not in ADAPTABLE},
    )
    return _renamed(model, published)


def read_published(source: Mapping[str, Any] | str | Path, *, ema: bool = True) -> dict[str, Any]:
    """The bare state dict of a checkpoint; see `load_published`."""
    checkpoint = source if isinstance(source, Mapping) else _read(Path(source))
    return _unwrap(checkpoint, ema=ema)


def published_input(published: Mapping[str, Any], variant: Variant) -> tuple[int, int, int]:
    """(resolution in px, classes, channels) that a checkpoint was trained with.

    Where it does not say, what the `variant` has.
    """
    bias, head, stem = (
        published.get(name) for name in ("relative_pos_a", "head.weight", "stem_conv1.weight")
    )
    resolution_px, num_classes = variant.resolution_px, variant.num_classes
    channels = variant.in_channels
    if isinstance(bias, Tensor) and bias.ndim == 3:
        resolution_px = paper.STAGE_STRIDES[0] * round(bias.shape[1] ** 0.5)
    if isinstance(head, Tensor) and head.ndim == 2:
        num_classes = head.shape[0]
    if isinstance(stem, Tensor) and stem.ndim == 4:
        channels = stem.shape[1]
    return resolution_px, num_classes, channels


def published_state_dict(model: CMT) -> dict[str, Tensor]:
    """The state dict of `model` under the names and shapes of the authors' code."""
    state = model.state_dict()
    published: dict[str, Tensor] = {}
    for ours, theirs in _names(model):
        parts = state[ours].chunk(len(theirs)) if len(theirs) > 1 else (state[ours],)
        published.update(zip(theirs, parts, strict=True))
    return published


def _renamed(model: CMT, published: Mapping[str, Any]) -> dict[str, Any]:
    """What `published` has of `model`, under our names."""
    return {
        ours: torch.cat([published[name] for name in theirs])
        if len(theirs) > 1
        else published[theirs[0]]
        for ours, theirs in _names(model)
        if theirs[0] in published
    }


def _names(model: CMT) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each of our state-dict keys with the published keys that it holds."""
    modules: tuple[str, ...]
    for key in model.state_dict():
        match key.split("."):
            case ["stem", layer, leaf]:
                modules = STEM[layer]
            case ["stages", stage, "position_bias"]:
                yield key, (f"relative_pos_{_letter(stage)}",)
                continue
            case ["stages", stage, "patch_embedding", layer, leaf]:
                prefix = f"patch_embed_{_letter(stage)}"
                modules = tuple(f"{prefix}.{name}" for name in PATCH_EMBEDDING[layer])
            case ["stages", stage, "blocks", number, *layers, leaf]:
                prefix = f"blocks_{_letter(stage)}.{number}"
                modules = tuple(f"{prefix}.{name}" for name in BLOCK[".".join(layers)])
            case ["head", layer, leaf]:
                modules = HEAD[layer]
            case _:
                raise AssertionError(key)
        yield key, tuple(f"{module}.{leaf}" for module in modules)


def _letter(stage: str) -> str:
    return "abcd"[int(stage)]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        # The authors' files also hold the training arguments, an argparse.Namespace.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        raise WeightsError(f"checkpoint {path} cannot be read: {reason}") from error
    except Exception as error:  # the unpickler raises whatever a foreign file leads it to
        raise WeightsError(
            f"checkpoint {path} is not a file of tensors that torch.load can read safely; "
            f"save its state dict alone with torch.save"
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise WeightsError(
            f"checkpoint {path} holds a {type(checkpoint).__name__}, not a state dict; "
            f"save its state dict with torch.save"
        )
    return checkpoint


def _unwrap(checkpoint: Mapping[str, Any], *, ema: bool) -> dict[str, Any]:
    """The bare state dict, without wrapper and `module.` prefixes."""
    present = [name for name in (*AVERAGED, *PLAIN) if isinstance(checkpoint.get(name), Mapping)]
    wrappers = present if ema else [name for name in present if name in PLAIN]
    if present and not wrappers:
        raise WeightsError(
            f"the checkpoint has averaged weights alone, {listed(present, LISTED_KEYS)}; "
            "load it without ema=False"
        )
    weights = checkpoint[wrappers[0]] if wrappers else checkpoint
    return {str(name).removeprefix("module."): value for name, value in weights.items()}


def _require_fit(published: dict[str, Any], expected: dict[str, Tensor]) -> None:
    """Raise `WeightsError` unless the names and shapes are those of the network."""
    required = {name for name in expected if not name.endswith("num_batches_tracked")}
    misshapen = [
        f"{name} {_shape(published[name])} for {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in published and _shape(published[name]) != _shape(tensor)
    ]
    faults = {
        "missing": sorted(required - published.keys()),
        "left over": sorted(published.keys() - expected.keys()),
        "misshapen": misshapen,
    }
    if any(faults.values()):
        wrong = "; ".join(
            f"{kind}: {listed(names, LISTED_KEYS)}" for kind, names in faults.items() if names
        )
        raise WeightsError(
            f"the checkpoint does not fit the network, nothing was loaded; {wrong}; "
            f"build the variant, resolution and classes that it was trained with"
        )


def _shape(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return "x".join(map(str, value.shape)) or "scalar"
