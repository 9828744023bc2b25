"""The four published CMTs as timm models; importing this module registers them.

`timm.create_model("cmt_s", num_classes=10)` then builds one, and so for `cmt_ti`, `cmt_xs` and
`cmt_b`. It is the network of `cmtscale.build`, with the same state dict, behind timm's interface.

timm has no weights of CMT. `pretrained=True, pretrained_cfg_overlay={"file": PATH}` reads a
checkpoint of the authors, or one with our names, and fits it to other channels and classes and to
`features_only`. Averaged weights are taken where it has them, as by `load_published`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    register_notrace_module,
    resolve_pretrained_cfg,
)
from torch import Tensor, nn

from cmtscale.arch import paper
from cmtscale.arch.errors import VariantError, WeightsError
from cmtscale.arch.network import fit_to_data
from cmtscale.arch.variant import Variant, published_variants, variant
from cmtscale.model.blocks import AveragePool
from cmtscale.model.cmt import CMT, Stage
from cmtscale.model.weights import rename_published

register_notrace_module(Stage)  # torch.fx takes a stage as one step: its grid decides what it does


class TimmCMT(CMT):
    """A CMT with timm's interface: features before pooling, a head to take off, intermediates.

    `forward_features` ends before pooling, so that its 1280 channels are the head's convolution, as
    in timm's EfficientNet. `img_size` is the side for which the position biases are laid out; other
    multiples of 32 are taken too, with biases resized. Raises `VariantError` for an argument that
    makes no network.
    """

    def __init__(
        self,
        variant: Variant,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        img_size: int | tuple[int, int] | None = None,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _require_head(num_classes, global_pool)
        if img_size is not None:
            variant = replace(variant, resolution_px=_side(img_size))
        variant = fit_to_data(variant, num_classes or variant.num_classes, in_chans)
        super().__init__(variant, drop_path=drop_path_rate, dropout=drop_rate, attention="auto")
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.global_pool = global_pool
        self.num_features = self.head_hidden_size = paper.HEAD_CHANNELS
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": dim, "reduction": stride, "module": f"stages.{number}"}
            for number, (dim, stride) in enumerate(
                zip(variant.dims, paper.STAGE_STRIDES, strict=True)
            )
        ]
        if num_classes == 0:
            self.reset_classifier(num_classes, global_pool)
        self.to(device=device, dtype=dtype)

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → what is pooled, (B, num_features, H/32, W/32)."""
        return self.head.features(self.forward_stages(images)[-1])

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features (B, num_features, H, W) → logits (B, classes).

        `pre_logits` gives what is classified (B, num_features), no pooling the map itself.
        """
        vectors = self.head.pooled(features)
        return vectors if pre_logits else self.head.classifier(vectors)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,  # noqa: ARG002  no norm follows a stage
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of some stages of images (B, C, H, W), and the features unless only those.

        `indices` are stages from 0 on, a number the last so many, nothing all. With `stop_early`
        stages after the last of them are left out, and the features are its map.
        """
        if output_fmt != "NCHW":
            raise VariantError(f"output_fmt {output_fmt!r} is not supported; use 'NCHW'")
        wanted = _stage_numbers(indices, len(self.stages))
        count = max(wanted) + 1 if stop_early else len(self.stages)
        outputs = self.forward_stages(x, count)
        intermediates = [maps for number, maps in enumerate(outputs) if number in wanted]
        if intermediates_only:
            return intermediates
        is_last = count == len(self.stages)
        return self.head.features(outputs[-1]) if is_last else outputs[-1], intermediates

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] | None = 1,
        prune_norm: bool = False,  # noqa: ARG002  no norm follows a stage
        prune_head: bool = True,
    ) -> list[int]:
        """Remove the stages after the last of `indices`, and the head; gives the stages' numbers.

        Where a stage goes the head goes too: it takes the last one's map.
        """
        wanted = _stage_numbers(indices, len(self.stages))
        last = max(wanted)
        if prune_head or last + 1 < len(self.stages):
            self.reset_classifier(0, "")
            for name in ("project", "norm", "activation"):
                self.set_submodule(f"head.{name}", nn.Identity())
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        self.stages = self.stages[: last + 1]
        return wanted

    def get_classifier(self) -> nn.Module:
        """The classifier; `nn.Identity` where there is none."""
        return self.head.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put an untrained classifier in the place of the present one; none for 0 classes.

        `global_pool` is "avg", or "" for maps instead of vectors, then without a classifier; None
        leaves it. Without a classifier `variant` keeps its number of classes. Raises `VariantError`
        for anything else and for a head that was pruned.
        """
        pool = self.global_pool if global_pool is None else global_pool
        _require_head(num_classes, pool)
        if num_classes > 0:
            if isinstance(self.head.project, nn.Identity):
                raise VariantError("the head was pruned away; create the model anew to classify")
            super().reset_classifier(num_classes)
        else:
            self.set_submodule("head.classifier", nn.Identity())
        self.set_submodule("head.pool", AveragePool() if pool == "avg" else nn.Identity())
        self.num_classes, self.global_pool = num_classes, pool


def _config(published: Variant) -> dict[str, Any]:
    """What timm knows of a variant: its input, its evaluation, the names of its ends."""
    side = published.resolution_px
    return {
        "url": "",
        "num_classes": published.num_classes,
        "input_size": (published.in_channels, side, side),
        "pool_size": (side // paper.STAGE_STRIDES[-1], side // paper.STAGE_STRIDES[-1]),
        "crop_pct": paper.CROP_FRACTION,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.0",
        "classifier": "head.classifier",
        "paper_name": "CMT: Convolutional Neural Networks Meet Vision Transformers",
        "paper_ids": "arXiv:2107.06263",
    }


default_cfgs = generate_default_cfgs(
    {published.name.replace("-", "_"): _config(published) for published in published_variants()}
)


@register_model
def cmt_ti(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CMT-Ti, 160 px."""
    return _create("cmt_ti", pretrained, **kwargs)


@register_model
def cmt_xs(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CMT-XS, 192 px."""
    return _create("cmt_xs", pretrained, **kwargs)


@register_model
def cmt_s(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CMT-S, 224 px."""
    return _create("cmt_s", pretrained, **kwargs)


@register_model
def cmt_b(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CMT-B, 256 px."""
    return _create("cmt_b", pretrained, **kwargs)


def _create(
    name: str,
    pretrained: bool,
    *,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Have timm build `name`; Python refuses a keyword that neither timm nor `TimmCMT` has."""
    if pretrained:
        config = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay)
        if not (config.has_weights or config.state_dict):
            raise WeightsError(
                f"timm has no weights of {name}; use pretrained=False and "
                f"cmtscale.load_published(model, PATH), or name the authors' file: "
                f"pretrained_cfg_overlay={{'file': PATH}}"
            )
    model: nn.Module = build_model_with_cfg(
        partial(TimmCMT, variant(name)),
        name,
        pretrained,
        pretrained_cfg=pretrained_cfg,
        pretrained_cfg_overlay=pretrained_cfg_overlay,
        pretrained_filter_fn=_with_our_names,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **kwargs,
    )
    return model


def _with_our_names(checkpoint: dict[str, Any], model: CMT) -> dict[str, Any]:
    """The checkpoint's tensors under our names, if it has the authors'."""
    if "stem.0.weight" in checkpoint:
        return checkpoint
    return rename_published(model, checkpoint)


def _require_head(num_classes: int, global_pool: str) -> None:
    """Raise `VariantError` for a head that there is not."""
    if global_pool not in ("avg", ""):
        raise VariantError(f"global_pool {global_pool!r} is not one of 'avg', ''; use 'avg'")
    if not global_pool and num_classes:
        raise VariantError(
            f"without pooling {num_classes} classes have no vector to classify; "
            f"use num_classes=0 or global_pool='avg'"
        )


def _side(img_size: int | tuple[int, int]) -> int:
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if height != width:
        raise VariantError(
            f"img_size {height}x{width} is not square; use {max(height, width)}: the network then "
            f"takes {height}x{width} px images too"
        )
    return height


def _stage_numbers(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """The stages that `indices` names, counted from 0."""
    if indices is None:
        indices = count
    chosen = range(-indices, 0) if isinstance(indices, int) else indices
    if not chosen or not all(-count <= index < count for index in chosen):
        raise VariantError(
            f"stages {indices!r} are not there; use a number from 1 to {count}, or "
            f"indices from 0 to {count - 1}"
        )
    return [index % count for index in chosen]
