"""The parts of CMT (arXiv 2107.06263): stem, patch embedding, LPU, LMHSA, IRFFN, head.

Shapes: B images, C channels, H x W a grid, N = H·W tokens, M keys, D channels per head.
Maps (B, C, H, W) lie channels-last in memory, so that `tokens` and `grid` only re-label axes.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmtscale.arch import paper
from cmtscale.model.absorbed import AbsorbedIRFFN, Running, aligned

Attention = Literal["auto", "explicit", "sdpa"]

# CUDA's memory-efficient kernel takes a learned bias, for head dims that are multiples of this.
FUSED_HEAD_DIM_STEP = 8

# Regrouped attention has smaller products: at this share of the plain MACs it is the faster one.
REGROUPING_PAYS = 0.8


def tokens(maps: Tensor) -> Tensor:
    """The map (B, C, H, W) as tokens (B, N, C), without a copy if it is channels-last."""
    return maps.flatten(2).transpose(1, 2)


def grid(sequence: Tensor, height: int, width: int) -> Tensor:
    """Tokens (B, N, C) as the channels-last map (B, C, H, W), without a copy."""
    maps: Tensor = sequence.transpose(1, 2).unflatten(2, (height, width))
    return maps


def is_fused(attention: Attention, *, device_type: str, head_dim: int) -> bool:
    """Whether torch's fused attention is called, for tensors on a device of this type.

    "auto" calls it on CUDA where a fast kernel takes the head dim; for others torch has a slow one,
    and on a CPU explicit attention is faster.
    """
    if attention == "auto":
        return device_type == "cuda" and head_dim % FUSED_HEAD_DIM_STEP == 0
    return attention == "sdpa"


def _is_autocast(device_type: str) -> bool:
    """Whether mixed precision is on; the meta device, for one, cannot even be asked."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def _allows_fast_pass(maps: Tensor, *layers: nn.Module) -> bool:
    """Whether a pass may read these layers' weights on a CPU and not call the layers.

    A wrapped, hooked or exchanged layer is called as it is, and so is one of another precision.
    """
    return (
        maps.device.type == "cpu"
        and maps.dtype in (torch.float32, torch.float64)
        and not _is_autocast("cpu")
        and all(_is_as_built(layer) and layer.weight.dtype == maps.dtype for layer in layers)
    )


def _is_as_built(layer: nn.Module) -> bool:
    if type(layer) not in (nn.Conv2d, nn.Linear, nn.BatchNorm2d, ResidualDepthwise):
        return False
    if isinstance(layer, nn.BatchNorm2d) and (layer.momentum is None or layer.running_mean is None):
        return False
    hooks = (
        *(layer._forward_hooks, layer._forward_pre_hooks),
        *(layer._backward_hooks, layer._backward_pre_hooks),
    )
    return layer.bias is not None and not any(hooks)


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
    """x + DWConv3x3(x) (Eq. 1 and 6): (B, C, H, W) → (B, C, H, W).

    The shortcut is added to the kernels' centres: the same sum as one pass over the map, not two.
    """

    identity: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim)
        identity = torch.zeros(1, 1, 3, 3)
        identity[..., 1, 1] = 1.0
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        if _is_autocast(maps.device.type):
            return super().forward(maps) + maps  # 1 + w in bfloat16 would lose most of w
        out: Tensor = self._conv_forward(maps, self.weight + self.identity, self.bias)
        return out


class LightAttention(nn.Module):
    """Lightweight multi-head self-attention (Eq. 2-3) on tokens (B, N, C) of an H x W grid.

    Keys and values come from the grid reduced k-fold by one depthwise convolution and BatchNorm, as
    in the authors' code; the paper's text has one convolution each. Linear layers that read the
    same tensor are one layer, ordered q, k, v.
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
        """`bias` (heads, N, M) is added to the scaled scores."""
        if self.reduction > 1:
            reduced = tokens(self.reduce_norm(self.reduce(grid(sequence, height, width))))
            if self._regroups(sequence, reduced):
                return self._regrouped(sequence, self.kv(reduced), bias)
            parts = (self.q(sequence), *self.kv(reduced).chunk(2, dim=2))
        else:
            parts = self.qkv(sequence).chunk(3, dim=2)
        split = (part.unflatten(2, (self.heads, -1)) for part in parts)
        q, k, v = (part.transpose(1, 2) for part in split)  # (B, heads, N or M, D)
        if self._is_fused(sequence):
            mask = bias.to(q.dtype).expand(len(q), -1, -1, -1)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        else:
            scores = q @ (k * self.scale).transpose(-2, -1) + bias
            mixed = scores.softmax(dim=-1) @ v
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _is_fused(self, sequence: Tensor) -> bool:
        device_type = sequence.device.type
        return is_fused(self.attention, device_type=device_type, head_dim=self.head_dim)

    def _regroups(self, sequence: Tensor, reduced: Tensor) -> bool:
        """Whether `_regrouped` applies: in training on a CPU, where it saves enough products."""
        _, n, dim = sequence.shape
        m = reduced.shape[1]
        plain, regrouped = n * dim + n * m, n * m * self.heads + m * dim  # MACs / 2C of an image
        return (
            self.training
            and not self._is_fused(sequence)
            and regrouped <= REGROUPING_PAYS * plain
            and _allows_fast_pass(sequence, self.q, self.proj)
        )

    def _regrouped(self, sequence: Tensor, kv: Tensor, bias: Tensor) -> Tensor:
        """The same attention, W_q and W_proj multiplied with the few keys, not the many queries.

        (x·W_q)·kᵀ = x·(W_q·kᵀ) and (p·v)·W_proj = p·(v·W_proj), head by head: the tokens are never
        split into heads or put together again. `kv` is (B, M, 2C).
        """
        batch, m = kv.shape[:2]
        k, v = kv.unflatten(2, (2, self.heads, -1)).permute(2, 3, 0, 1, 4).flatten(2, 3)
        k = k * self.scale  # (heads, B·M, D), as is v
        w_q, b_q = (p.unflatten(0, (self.heads, -1)) for p in (self.q.weight, self.q.bias))
        w_proj = self.proj.weight.t().unflatten(0, (self.heads, -1))
        joined = k @ w_q, k @ b_q.unsqueeze(2), v @ w_proj + self.proj.bias / self.heads
        by_image = (part.unflatten(1, (batch, m)).transpose(0, 1).flatten(1, 2) for part in joined)
        keys, offset, values = by_image  # (B, heads·M, C), (B, heads·M, 1), (B, heads·M, C)
        scores = torch.baddbmm(offset.transpose(1, 2), sequence, keys.transpose(1, 2))
        weights = (scores.unflatten(2, (self.heads, m)) + bias.transpose(0, 1)).softmax(dim=-1)
        out: Tensor = weights.flatten(2) @ values  # each head's sum to 1: b_proj comes out whole
        return out


class InvertedResidualFFN(nn.Module):
    """Inverted residual feed-forward network (Eq. 5-6): (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.expand_norm = nn.BatchNorm2d(hidden)
        self.depthwise = ResidualDepthwise(hidden)
        self.depthwise_norm = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, dim, 1)
        self.project_norm = nn.BatchNorm2d(dim)

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.project_norm(
            self._absorbed(maps) if self._absorbs(maps) else self._plain(maps)
        )
        return out

    def _plain(self, maps: Tensor) -> Tensor:
        hidden = self.expand_norm(F.gelu(self.expand(maps)))
        hidden = self.depthwise_norm(F.gelu(self.depthwise(hidden)))
        return self.project(hidden)  # type: ignore[no-any-return]

    def _absorbs(self, maps: Tensor) -> bool:
        """Whether `_absorbed` applies: it saves passes over maps and adds some over weights."""
        return (
            self.training
            and self.expand_norm.training
            and self.depthwise_norm.training
            and torch.is_grad_enabled()
            and _allows_fast_pass(
                maps,
                *(self.expand, self.expand_norm, self.depthwise),
                *(self.depthwise_norm, self.project),
            )
            and maps.numel() // maps.shape[1] >= 2 * self.expand.out_channels
        )

    def _absorbed(self, maps: Tensor) -> Tensor:
        assert self.expand.bias is not None
        assert self.depthwise.bias is not None
        first, second = Running.of(self.expand_norm), Running.of(self.depthwise_norm)
        out: Tensor = AbsorbedIRFFN.apply(
            maps,
            aligned(self.expand.weight),
            aligned(self.expand.bias),
            aligned(self.expand_norm.weight),
            aligned(self.expand_norm.bias),
            aligned(self.depthwise.weight + self.depthwise.identity),
            aligned(self.depthwise.bias),
            aligned(self.depthwise_norm.weight),
            aligned(self.depthwise_norm.bias),
            aligned(self.project.weight, dim=1),
            self.project.bias,
            first,
            second,
        )
        first.store(self.expand_norm)
        second.store(self.depthwise_norm)
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
    """LPU, then LMHSA and IRFFN as residual branches (Eq. 7-9): (B, C, H, W) → (B, C, H, W)."""

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
        self.lpu = ResidualDepthwise(dim)
        self.norm1 = nn.LayerNorm(dim, eps=paper.BLOCK_LAYER_NORM_EPS)
        self.lmhsa = LightAttention(dim, heads, reduction, attention)
        self.norm2 = nn.LayerNorm(dim, eps=paper.BLOCK_LAYER_NORM_EPS)
        self.irffn = InvertedResidualFFN(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, maps: Tensor, bias: Tensor) -> Tensor:
        """`bias` (heads, N, M) is the stage's position bias for this grid."""
        height, width = maps.shape[2:]
        sequence = tokens(self.lpu(maps))
        sequence = sequence + self.drop_path(self.lmhsa(self.norm1(sequence), bias, height, width))
        branch = self.irffn(grid(self.norm2(sequence), height, width))
        out: Tensor = grid(sequence, height, width) + self.drop_path(branch)
        return out


class Head(nn.Module):
    """Conv1x1, BatchNorm, SiLU, average pool, dropout, classifier: (B, C, H, W) → (B, classes)."""

    def __init__(self, dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Conv2d(dim, paper.HEAD_CHANNELS, 1)
        self.norm = nn.BatchNorm2d(paper.HEAD_CHANNELS)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(paper.HEAD_CHANNELS, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        maps = F.silu(self.norm(self.project(maps)))
        logits: Tensor = self.classifier(self.dropout(self.pool(maps).flatten(1)))
        return logits


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
    the wanted ones ("CMT block": "bicubic interpolation" for another input size).
    """
    heads = bias.shape[0]
    if queries != to_queries:
        maps = bias.transpose(1, 2).unflatten(2, queries)  # (heads, m, H, W)
        maps = F.interpolate(maps, to_queries, mode="bicubic", align_corners=False)
        bias = maps.flatten(2).transpose(1, 2)  # (heads, n', m)
    if keys != to_keys:
        maps = bias.unflatten(2, keys)  # (heads, n', H, W)
        maps = F.interpolate(maps, to_keys, mode="bicubic", align_corners=False)
        bias = maps.flatten(2)  # (heads, n', m')
    assert bias.shape[0] == heads
    return bias
