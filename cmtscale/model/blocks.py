"""The parts of CMT (arXiv 2107.06263): stem, patch embedding, LPU, LMHSA, IRFFN, head.

Shapes: B images, C channels, an H x W grid of N = H·W tokens, M = ⌊H/k⌋·⌊W/k⌋ keys and values, D
channels of a head. A map is (B, C, H, W), a sequence of tokens (B, N, C). Maps lie channels-last in
memory, so that `tokens` and `grid` turn one into the other without a copy.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmtscale.arch import paper

Attention = Literal["auto", "explicit", "sdpa"]

# CUDA's memory-efficient kernel takes a learned bias, for head dims that are multiples of this.
FUSED_HEAD_DIM_STEP = 8


def tokens(maps: Tensor) -> Tensor:
    """The map (B, C, H, W) as tokens (B, N, C)."""
    return maps.flatten(2).transpose(1, 2)


def grid(sequence: Tensor, height: int, width: int) -> Tensor:
    """The tokens (B, N, C) as a map (B, C, H, W)."""
    maps: Tensor = sequence.transpose(1, 2).unflatten(2, (height, width))
    return maps


class Stem(nn.Sequential):
    """Three times Conv3x3, GELU, BatchNorm: (B, C, 2H, 2W) → (B, C', H, W)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        layers: list[nn.Module] = []
        for stride in (paper.STEM_STRIDE, 1, 1):
            layers += [
                nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1),
                nn.GELU(),
                nn.BatchNorm2d(channels),
            ]
            in_channels = channels
        super().__init__(*layers)


class PatchEmbedding(nn.Module):
    """Conv2x2 with stride 2, then LayerNorm: (B, C, 2H, 2W) → (B, C', H, W)."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, dim, 2, stride=2)
        self.norm = nn.LayerNorm(dim, eps=paper.PATCH_LAYER_NORM_EPS)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.conv(maps)
        return grid(self.norm(tokens(maps)), *maps.shape[2:])


class ResidualDepthwise(nn.Conv2d):
    """DWConv3x3(X) + X: (B, C, H, W) → (B, C, H, W).

    The shortcut is added to the centres of the kernels: one pass over the map instead of two.
    """

    identity: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim)
        identity = torch.zeros(1, 1, 3, 3)
        identity[..., 1, 1] = 1.0
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        if _is_autocast_on(maps):
            return super().forward(maps) + maps  # 1 + w in bfloat16 would lose most of w
        out: Tensor = self._conv_forward(maps, self.weight + self.identity, self.bias)
        return out


class LPU(ResidualDepthwise):
    """Local perception unit (Eq. 1): LPU(X) = DWConv(X) + X."""


class LMHSA(nn.Module):
    """Lightweight multi-head self-attention (Eq. 2-3): softmax(Q·K'ᵀ / √D + bias)·V'.

    K' and V' are read from the grid reduced k-fold, by one depthwise convolution and BatchNorm as
    in the authors' code; the paper's text has one convolution for each. Linear layers that read the
    same tensor are joined into one. All of a stage's blocks share the position bias.
    """

    def __init__(self, dim: int, heads: int, reduction: int, attention: Attention) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.scale = self.head_dim**-0.5
        self.attention = attention
        self.reduction = reduction
        if reduction > 1:
            self.reduce = nn.Conv2d(dim, dim, reduction, stride=reduction, groups=dim)
            self.reduce_norm = nn.BatchNorm2d(dim)
            self.q = nn.Linear(dim, dim)
            self.kv = nn.Linear(dim, 2 * dim)
        else:
            self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, sequence: Tensor, bias: Tensor, height: int, width: int) -> Tensor:
        """Tokens (B, N, C) of an H x W grid and bias (heads, N, M) → tokens (B, N, C)."""
        if self.reduction > 1:
            reduced = tokens(self.reduce_norm(self.reduce(grid(sequence, height, width))))
            q = self.q(sequence)  # (B, N, C)
            k, v = self.kv(reduced).chunk(2, dim=2)  # (B, M, C)
        else:
            q, k, v = self.qkv(sequence).chunk(3, dim=2)  # (B, N, C)
        split = [part.unflatten(2, (self.heads, self.head_dim)) for part in (q, k, v)]
        q, k, v = (part.transpose(1, 2) for part in split)  # (B, heads, N or M, D)
        if is_fused(self.attention, device_type=q.device.type, head_dim=self.head_dim):
            mask = bias.to(q.dtype).expand(len(q), -1, -1, -1)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        else:
            scores = q @ (k * self.scale).transpose(-2, -1) + bias
            mixed = scores.softmax(dim=-1) @ v
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))  # (B, N, C)
        return out


class IRFFN(nn.Module):
    """Inverted residual feed-forward network (Eq. 5-6): Conv(F(Conv(X))), F(X) = DWConv(X) + X.

    (B, C, H, W) → (B, C, H, W), with `hidden` channels in between. GELU and BatchNorm follow the
    first two convolutions, BatchNorm the last.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.expand_norm = nn.BatchNorm2d(hidden)
        self.depthwise = ResidualDepthwise(hidden)
        self.depthwise_norm = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, dim, 1)
        self.project_norm = nn.BatchNorm2d(dim)

    def forward(self, maps: Tensor) -> Tensor:
        hidden = self.expand_norm(F.gelu(self.expand(maps)))
        hidden = self.depthwise_norm(F.gelu(self.depthwise(hidden)))
        out: Tensor = self.project_norm(self.project(hidden))
        return out


class DropPath(nn.Module):
    """Drop a whole residual branch per image with probability `rate` (stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return branch
        keep = 1.0 - self.rate
        shape = (len(branch), *[1] * (branch.ndim - 1))
        return branch * branch.new_empty(shape).bernoulli_(keep).div_(keep)


class Block(nn.Module):
    """A CMT block (Eq. 7-9): (B, C, H, W) → (B, C, H, W).

    Y = LPU(X), Z = LMHSA(LN(Y)) + Y, X' = IRFFN(LN(Z)) + Z.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        heads: int,
        reduction: int,
        *,
        drop_path: float,
        attention: Attention,
    ) -> None:
        super().__init__()
        self.lpu = LPU(dim)
        self.norm1 = nn.LayerNorm(dim, eps=paper.BLOCK_LAYER_NORM_EPS)
        self.lmhsa = LMHSA(dim, heads, reduction, attention)
        self.norm2 = nn.LayerNorm(dim, eps=paper.BLOCK_LAYER_NORM_EPS)
        self.irffn = IRFFN(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, maps: Tensor, bias: Tensor) -> Tensor:
        """`bias` (heads, N, M) is the stage's position bias for this grid."""
        height, width = maps.shape[2:]
        y = tokens(self.lpu(maps))  # (B, N, C)
        z = y + self.drop_path(self.lmhsa(self.norm1(y), bias, height, width))
        branch = self.irffn(grid(self.norm2(z), height, width))  # (B, C, H, W)
        out: Tensor = grid(z, height, width) + self.drop_path(branch)
        return out


class AveragePool(nn.Sequential):
    """Global average pooling: (B, C, H, W) → (B, C)."""

    def __init__(self) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Head(nn.Module):
    """Conv1x1, BatchNorm, SiLU, average pool, dropout, classifier: (B, C, H, W) → (B, classes)."""

    def __init__(self, dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Conv2d(dim, paper.HEAD_CHANNELS, 1)
        self.norm = nn.BatchNorm2d(paper.HEAD_CHANNELS)
        self.activation = nn.SiLU()
        self.pool = AveragePool()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(paper.HEAD_CHANNELS, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pooled(self.features(maps)))
        return logits

    def features(self, maps: Tensor) -> Tensor:
        """What is pooled: (B, C, H, W) → (B, 1280, H, W)."""
        features: Tensor = self.activation(self.norm(self.project(maps)))
        return features

    def pooled(self, features: Tensor) -> Tensor:
        """What is classified: (B, 1280, H, W) → (B, 1280)."""
        vectors: Tensor = self.dropout(self.pool(features))
        return vectors


def is_fused(attention: Attention, *, device_type: str, head_dim: int) -> bool:
    """Whether torch's fused attention is called, for tensors on a device of this type.

    "auto" calls it on CUDA where a fast kernel takes the head dim; for others torch has a slow one,
    and on a CPU explicit attention is faster.
    """
    if attention == "auto":
        return device_type == "cuda" and head_dim % FUSED_HEAD_DIM_STEP == 0
    return attention == "sdpa"


def initialise(module: nn.Module) -> None:
    """The authors' initialisation of one layer; use with `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    if isinstance(module, nn.Linear | nn.Conv2d):
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def resize_position_bias(
    bias: Tensor,
    *,
    queries: tuple[int, int],
    keys: tuple[int, int],
    to_queries: tuple[int, int],
    to_keys: tuple[int, int],
) -> Tensor:
    """A position bias (heads, n, m) resized bicubically, first over the query grid, then the keys'.

    `queries` and `keys` are the (H, W) grids that it was laid out for, `to_queries` and `to_keys`
    the wanted ones ("CMT block": "bicubic interpolation" for another input size). To the same grid
    it gives the same numbers, without asking whether it is: a graph can hold for all sizes.
    """
    heads = bias.shape[0]
    maps = bias.transpose(1, 2).unflatten(2, queries)  # (heads, m, H, W)
    maps = F.interpolate(maps, to_queries, mode="bicubic", align_corners=False)
    bias = maps.flatten(2).transpose(1, 2)  # (heads, n', m)
    maps = bias.unflatten(2, keys)  # (heads, n', H, W)
    maps = F.interpolate(maps, to_keys, mode="bicubic", align_corners=False)
    bias = maps.flatten(2)  # (heads, n', m')
    assert bias.shape[0] == heads
    return bias


def _is_autocast_on(maps: Tensor) -> bool:
    """Whether mixed precision is on; the meta device cannot be asked.

    `torch.amp.is_autocast_available` breaks the graph of `torch.compile` in torch 2.11.
    """
    return not maps.is_meta and torch.is_autocast_enabled(maps.device.type)
