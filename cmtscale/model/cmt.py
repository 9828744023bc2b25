"""The CMT network: `build(variant)` gives the published architecture as an `nn.Module`."""

from dataclasses import replace
from itertools import islice
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from cmtscale.arch import paper
from cmtscale.arch.errors import VariantError
from cmtscale.arch.variant import Stage as StageSpec
from cmtscale.arch.variant import Variant, nearest_multiple
from cmtscale.model import blocks
from cmtscale.model.recompute import recomputed

WITH_THE_LAYER_BEFORE = (99999,)  # timm's MATCH_PREV_GROUP
CACHED_SIZES = 4  # resized position biases a stage keeps; one at 1280 px can take 256 MB


class Stage(nn.Module):
    """Patch embedding, blocks, and the position bias that all its blocks share ("CMT block").

    `position_bias` (heads, n, m) is laid out for the square grid of side `grid_px`.
    """

    def __init__(
        self,
        spec: StageSpec,
        *,
        in_channels: int,
        side: int,
        drop_paths: list[float],
        attention: blocks.Attention,
    ) -> None:
        super().__init__()
        self.side = side
        self.reduction = spec.reduction
        self.patch_embedding = blocks.PatchEmbedding(in_channels, spec.dim)
        self.position_bias = nn.Parameter(
            torch.randn(spec.heads, side**2, (side // spec.reduction) ** 2)
        )
        self.blocks = nn.ModuleList(
            blocks.Block(
                spec.dim,
                spec.hidden,
                spec.heads,
                spec.reduction,
                drop_path=rate,
                attention=attention,
            )
            for rate in drop_paths
        )
        self.is_recomputed = False
        self._resized: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, 2H, 2W) → (B, C', H, W)."""
        maps = self.patch_embedding(maps)
        bias = self.bias_for(maps.shape[2], maps.shape[3])
        for block in self.blocks:
            maps = recomputed(block, maps, bias) if self.is_recomputed else block(maps, bias)
        return maps

    def bias_for(self, height: int, width: int) -> Tensor:
        """The position bias (heads, H·W, keys) for an H x W grid, cached in eval without gradients.

        A cached bias is used only while the parameter still holds the values it came from.
        """
        if (height, width) == (self.side, self.side):
            return self.position_bias
        tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        if self.training or torch.is_grad_enabled() or tracing:
            return self.resize_bias(height, width)
        source, resized = self._resized.get((height, width), (None, None))
        if source is None or resized is None or not _same(source, self.position_bias):
            while len(self._resized) >= CACHED_SIZES:
                self._resized.pop(next(iter(self._resized)))
            resized = self.resize_bias(height, width)
            self._resized[height, width] = self.position_bias.detach().clone(), resized
        return resized

    def resize_bias(self, height: int, width: int) -> Tensor:
        """The position bias for an H x W grid, resized also if that is its own."""
        k = self.reduction
        return blocks.resize_position_bias(
            self.position_bias,
            queries=(self.side, self.side),
            keys=(self.side // k, self.side // k),
            to_queries=(height, width),
            to_keys=(height // k, width // k),
        )

    def train(self, mode: bool = True) -> "Stage":
        self._resized.clear()
        return super().train(mode)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_resized": {}}


class CMT(nn.Module):
    """A CMT (arXiv 2107.06263), channels-last throughout; `build` makes one from a `Variant`."""

    def __init__(
        self,
        variant: Variant,
        *,
        drop_path: float,
        dropout: float,
        attention: blocks.Attention,
    ) -> None:
        if not 0 <= drop_path < 1:
            raise VariantError(f"drop_path {drop_path} is not a fraction; use 0 to below 1")
        if not 0 <= dropout < 1:
            raise VariantError(f"dropout {dropout} is not a fraction; use 0 to below 1")
        if attention not in get_args(blocks.Attention):
            raise VariantError(
                f"attention {attention!r} is not one of auto, explicit, sdpa; use auto"
            )
        super().__init__()
        self.variant = variant
        last = max(1, sum(variant.depths) - 1)
        rates = [drop_path * block / last for block in range(sum(variant.depths))]
        self.stem = blocks.Stem(variant.in_channels, variant.stem_channels)
        self.stages = nn.ModuleList()
        channels = variant.stem_channels
        for spec, stride in zip(variant.stages, paper.STAGE_STRIDES, strict=True):
            self.stages.append(
                Stage(
                    spec,
                    in_channels=channels,
                    side=variant.resolution_px // stride,
                    drop_paths=[rates.pop(0) for _ in range(spec.depth)],
                    attention=attention,
                )
            )
            channels = spec.dim
        self.head = blocks.Head(channels, variant.num_classes, dropout)
        self.apply(blocks.initialise)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → logits (B, classes); raises `VariantError` for an illegal size."""
        logits: Tensor = self.head(self.forward_stages(images)[-1])
        return logits

    def forward_stages(self, images: Tensor, count: int = 4) -> tuple[Tensor, ...]:
        """Images (B, C, H, W) → the first `count` stages' maps.

        A stage's map is (B, dim, H/s, W/s), s = 4, 8, 16, 32.
        """
        self._require_legal(images)
        maps = self.stem(images.contiguous(memory_format=torch.channels_last))
        outputs = []
        for stage in islice(self.stages, count):
            maps = stage(maps)
            outputs.append(maps)
        return tuple(outputs)

    def reset_classifier(self, num_classes: int) -> None:
        """Put an untrained classifier in the place of the present one.

        Raises `VariantError` for less than one class.
        """
        self.variant = replace(self.variant, num_classes=num_classes)
        like = self.head.project.weight
        classifier = nn.Linear(
            paper.HEAD_CHANNELS, num_classes, device=like.device, dtype=like.dtype
        )
        blocks.initialise(classifier)
        self.head.classifier = classifier.train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep no activations inside blocks: the backward pass computes them once more.

        A training step gives the same gradients and BatchNorm statistics in less memory.
        """
        for stage in self.stages:
            assert isinstance(stage, Stage)
            stage.is_recomputed = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are no vectors and yet should not decay: position biases.

        timm's optimizers ask for this; they exempt biases and norms themselves.
        """
        return {f"stages.{number}.position_bias" for number in range(len(self.stages))}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers in the order of depth, as patterns over parameter names, for timm's `layer_decay`.

        The stem, each block (each stage if `coarse`), the classifier. A patch embedding and a
        position bias belong to the first block of their stage, the head's convolution to the last.
        """
        stages: list[tuple[str, tuple[int] | None]]
        if coarse:
            stages = [(r"^stages\.(\d+)", None)]
        else:
            stages = [
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^stages\.(\d+)\.(?:patch_embedding|position_bias)", (0,)),
            ]
        head = (r"^head\.(?:project|norm)", WITH_THE_LAYER_BEFORE)
        return {"stem": r"^stem", "blocks": [*stages, head]}

    def _require_legal(self, images: Tensor) -> None:
        """Raise `VariantError` for images that this network cannot take."""
        if isinstance(images, Proxy):
            return  # torch.fx traces without images
        if images.ndim != 4:
            raise VariantError(
                f"images have shape {tuple(images.shape)}; give a batch (B, C, H, W)"
            )
        batch, channels, height, width = images.shape
        expected = self.variant.in_channels
        if channels != expected:
            raise VariantError(
                f"images have {channels} channels, {self.variant.name} takes {expected}; "
                f"convert them or build a variant with in_channels = {channels}"
            )
        least = self.variant.least_resolution_px
        stride = paper.STAGE_STRIDES[-1]
        if height % stride or width % stride or min(height, width) < least:
            nearest = (max(least, nearest_multiple(side, stride)) for side in (height, width))
            raise VariantError(
                f"images are {height}x{width} px; the sides must be multiples of {stride}, "
                f"{least} or more; use {'x'.join(map(str, nearest))}"
            )
        if self.training and batch == 1:
            self._require_statistics(height, width)

    def _require_statistics(self, height: int, width: int) -> None:
        """Raise `VariantError` where BatchNorm would see one value per channel."""
        number = stage_of_one_value(self.variant, height, width)
        if number is not None:
            raise VariantError(
                f"batch 1 at {height}x{width} px leaves BatchNorm in stage {number} one value per "
                f"channel; train with a batch of 2 or more, or call eval()"
            )


def stage_of_one_value(variant: Variant, height: int, width: int) -> int | None:
    """The first stage (from 1) where BatchNorm sees one value per channel of an image, if any."""
    for number, (stage, stride) in enumerate(
        zip(variant.stages, paper.STAGE_STRIDES, strict=True), start=1
    ):
        for cell in (stride, stride * stage.reduction):
            if (height // cell) * (width // cell) == 1:
                return number
    return None


def build(
    variant: Variant,
    *,
    drop_path: float = 0.0,
    dropout: float = 0.0,
    attention: blocks.Attention = "auto",
) -> CMT:
    """The published network of `variant`, initialised as in the authors' code.

    `drop_path` is the last block's rate, rising linearly from 0 at the first; `dropout` acts before
    the classifier (published: 0.1, CMT-B 0.3). `attention` "sdpa" calls torch's fused attention,
    which gives the same numbers, "explicit" never does, and "auto" does so on CUDA for head dims
    that are multiples of 8. Raises `VariantError` for a rate or an attention that there is not.
    """
    return CMT(variant, drop_path=drop_path, dropout=dropout, attention=attention)


def _same(source: Tensor, parameter: Tensor) -> bool:
    return (
        source.device == parameter.device
        and source.dtype == parameter.dtype
        and torch.equal(source, parameter)
    )
