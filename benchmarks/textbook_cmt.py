"""A textbook implementation of CMT, the baseline of the benchmarks.

The published network (arXiv 2107.06263) under the published names, so that it loads the authors'
state dict as it is. Maps are NCHW; every block flattens and transposes them to tokens and back;
q, k and v are separate layers. A test compares it with the parity data.
"""

import torch
from torch import Tensor, nn

from cmtscale.arch.variant import Stage, Variant


class PatchEmbed(nn.Module):
    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, 2, stride=2)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        b, c, h, w = x.shape
        x = self.norm(x.flatten(2).transpose(1, 2))
        return x.transpose(1, 2).reshape(b, c, h, w).contiguous()


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.sr = None
        if reduction > 1:
            self.sr = nn.Sequential(
                nn.Conv2d(dim, dim, reduction, stride=reduction, groups=dim),
                nn.BatchNorm2d(dim),
            )

    def forward(self, x: Tensor, height: int, width: int, bias: Tensor) -> Tensor:
        b, n, c = x.shape
        q = self.q(x).reshape(b, n, self.heads, -1).permute(0, 2, 1, 3)
        if self.sr is not None:
            x = x.transpose(1, 2).reshape(b, c, height, width).contiguous()
            x = self.sr(x).flatten(2).transpose(1, 2)
        k = self.k(x).reshape(b, -1, self.heads, c // self.heads).permute(0, 2, 1, 3)
        v = self.v(x).reshape(b, -1, self.heads, c // self.heads).permute(0, 2, 1, 3)
        attention = (q @ k.transpose(-2, -1)) * self.scale + bias
        x = (attention.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c)
        return self.proj(x)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.BatchNorm2d(hidden))
        self.proj = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.proj_bn = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Sequential(nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        b, _, c = x.shape
        x = x.transpose(1, 2).reshape(b, c, height, width).contiguous()
        x = self.conv1(x)
        x = self.proj_bn(self.act(self.proj(x) + x))
        return self.conv2(x).flatten(2).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.proj = nn.Conv2d(stage.dim, stage.dim, 3, padding=1, groups=stage.dim)
        self.norm1 = nn.LayerNorm(stage.dim, eps=1e-6)
        self.attn = Attention(stage.dim, stage.heads, stage.reduction)
        self.norm2 = nn.LayerNorm(stage.dim, eps=1e-6)
        self.mlp = Mlp(stage.dim, stage.hidden)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = (self.proj(x) + x).flatten(2).transpose(1, 2)
        x = x + self.attn(self.norm1(x), h, w, bias)
        x = x + self.mlp(self.norm2(x), h, w)
        return x.transpose(1, 2).reshape(b, c, h, w).contiguous()


class TextbookCMT(nn.Module):
    def __init__(self, variant: Variant) -> None:
        super().__init__()
        channels = variant.in_channels
        for i, stride in enumerate((2, 1, 1), start=1):
            conv = nn.Conv2d(channels, variant.stem_channels, 3, stride=stride, padding=1)
            self.add_module(f"stem_conv{i}", conv)
            self.add_module(f"stem_norm{i}", nn.BatchNorm2d(variant.stem_channels))
            channels = variant.stem_channels
        self.act = nn.GELU()
        for letter, stride, stage in zip("abcd", (4, 8, 16, 32), variant.stages, strict=True):
            side = variant.resolution_px // stride
            bias = torch.randn(stage.heads, side**2, (side // stage.reduction) ** 2)
            self.register_parameter(f"relative_pos_{letter}", nn.Parameter(bias))
            self.add_module(f"patch_embed_{letter}", PatchEmbed(channels, stage.dim))
            blocks = nn.ModuleList(Block(stage) for _ in range(stage.depth))
            self.add_module(f"blocks_{letter}", blocks)
            channels = stage.dim
        self._fc = nn.Conv2d(channels, 1280, 1)
        self._bn = nn.BatchNorm2d(1280)
        self.swish = nn.SiLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(1280, variant.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        for i in (1, 2, 3):
            conv, norm = getattr(self, f"stem_conv{i}"), getattr(self, f"stem_norm{i}")
            x = norm(self.act(conv(x)))
        for letter in "abcd":
            x = getattr(self, f"patch_embed_{letter}")(x)
            for block in getattr(self, f"blocks_{letter}"):
                x = block(x, getattr(self, f"relative_pos_{letter}"))
        x = self.pool(self.swish(self._bn(self._fc(x)))).flatten(1)
        return self.head(x)
