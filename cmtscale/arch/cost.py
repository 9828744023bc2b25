"""The exact cost of a `Variant`, part by part, and the paper's formula beside it.

One multiply-add counts 1, as in the paper and in fvcore. Norms follow fvcore: 5 per element for
LayerNorm, 2 for BatchNorm (eval), 1 for the pool. The arithmetic is written once and works on
Python integers (one variant) as well as on arrays and floats (`growth.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from cmtscale.arch import paper
from cmtscale.arch.errors import VariantError
from cmtscale.arch.variant import Variant, require_resolution

Number = Any  # int, float, or an array of either with one element per variant
PartKind = Literal["stem", "patch_embedding", "lpu", "lmhsa", "irffn", "head"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Operations by kind, parameters and activations (elements written by conv, linear, matmul)."""

    conv: Number = 0
    linear: Number = 0
    matmul: Number = 0
    layer_norm: Number = 0
    batch_norm: Number = 0
    pool: Number = 0
    params: Number = 0
    position_bias: Number = 0  # of params
    activations: Number = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: _plus(getattr(self, name), getattr(other, name)) for name in KINDS})

    def __mul__(self, times: Number) -> "Counts":
        kept = {name: value for name in KINDS if not is_zero(value := getattr(self, name))}
        return Counts(**{name: value * times for name, value in kept.items()})

    @property
    def macs(self) -> Number:
        """Multiply-adds of convolutions, linears and matmuls: the paper's FLOPs."""
        return self.conv + self.linear + self.matmul

    @property
    def fvcore_flops(self) -> Number:
        """What fvcore's `FlopCountAnalysis` totals: MACs, norms and pool."""
        return self.macs + self.layer_norm + self.batch_norm + self.pool


KINDS = tuple(field.name for field in fields(Counts))


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the network and what all its blocks cost.

    `stage` is 1 to 4; None for the stem and the head.
    """

    kind: PartKind
    stage: int | None
    counts: Counts

    @property
    def name(self) -> str:
        """`stem`, `stage1.lmhsa`, …, `head`."""
        return self.kind if self.stage is None else f"stage{self.stage}.{self.kind}"

    @property
    def is_in_blocks(self) -> bool:
        """Whether the blocks of a stage have it, so that its cost grows with their number."""
        return self.kind in ("lpu", "lmhsa", "irffn")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one forward pass of one image of `height` x `width` pixels.

    `paper_formula_macs` sums the paper's block formula over the blocks (no stem, patch embedding,
    head, K/V convolution or norm), `transformer_formula_macs` the standard block's.
    """

    variant: Variant
    height: int
    width: int
    parts: tuple[Part, ...]
    paper_formula_macs: int
    transformer_formula_macs: int

    @property
    def totals(self) -> Counts:
        """All parts together."""
        return sum((part.counts for part in self.parts), start=Counts())

    @property
    def macs(self) -> int:
        """Multiply-adds: the paper's FLOPs."""
        return int(self.totals.macs)

    @property
    def fvcore_flops(self) -> int:
        """fvcore's total: MACs, norms and pool."""
        return int(self.totals.fvcore_flops)

    @property
    def params(self) -> int:
        """Trainable numbers, position bias included."""
        return int(self.totals.params)

    @property
    def position_bias_params(self) -> int:
        """Of `params`, the learned position biases."""
        return int(self.totals.position_bias)

    @property
    def activations(self) -> int:
        """Elements written by convolutions, linears and matmuls (fvcore's activation count)."""
        return int(self.totals.activations)


def cost(variant: Variant, *, height: int | None = None, width: int | None = None) -> Cost:
    """The exact cost of `variant` on one image, by default at its own resolution.

    Another `height` or `width` (legal for its network, else `VariantError`) is the cost of running
    the built network there: the position bias is resized, so `params` stay those of the variant.
    """
    height = variant.resolution_px if height is None else height
    width = variant.resolution_px if width is None else width
    for side in (height, width):
        require_resolution(side)
        if side < variant.least_resolution_px:
            raise VariantError(
                f"resolution {side} px is too small for the reductions of {variant.name}; "
                f"use {variant.least_resolution_px} or more"
            )
    built = variant.resolution_px
    parts = count_parts(
        grids=integer_grids(variant, height, width),
        bias_grids=integer_grids(variant, built, built),
        stem_channels=variant.stem_channels,
        dims=variant.dims,
        hiddens=[stage.hidden for stage in variant.stages],
        depths=variant.depths,
        like=variant,
    )
    pixels = height * width
    blocks = [
        (stage, pixels // stride**2)
        for stage, stride in zip(variant.stages, paper.STAGE_STRIDES, strict=True)
    ]
    return Cost(
        variant=variant,
        height=height,
        width=width,
        parts=tuple(parts),
        paper_formula_macs=round(
            sum(
                stage.depth * paper_block_macs(n, stage.dim, stage.reduction, stage.expansion)
                for stage, n in blocks
            )
        ),
        transformer_formula_macs=round(
            sum(
                stage.depth * transformer_block_macs(n, stage.dim, stage.expansion)
                for stage, n in blocks
            )
        ),
    )


def paper_block_macs(n: float, d: float, k: float, expansion: float) -> float:
    """MACs of one CMT block by the paper's formula, generalised in R (it has R = 4).

    2nd²(1 + 1/k²) + 2n²d/k² + 2Rnd² + 9Rnd + 9nd for n tokens of dim d, K/V reduction k.
    It leaves out the K/V depthwise convolution, biases and norms.
    """
    attention = 2 * n * d**2 * (1 + 1 / k**2) + 2 * n**2 * d / k**2
    return attention + 2 * expansion * n * d**2 + 9 * expansion * n * d + 9 * n * d


def transformer_block_macs(n: float, d: float, expansion: float) -> float:
    """MACs of a standard transformer block: 4nd² + 2n²d + 2Rnd²; 12nd² + 2n²d for R = 4."""
    return 4 * n * d**2 + 2 * n**2 * d + 2 * expansion * n * d**2


# ------------------------------------------------------------------------------ the arithmetic
# n query tokens, m key tokens, d channels, h FFN hidden width, k K/V reduction ratio.

Grids = Sequence[tuple[Number, Number]]  # (n, m) of each stage


def is_zero(value: Number) -> bool:
    return isinstance(value, int) and value == 0


def _plus(left: Number, right: Number) -> Number:
    """The sum, without an array operation where one side is a plain 0."""
    if is_zero(left):
        return right
    return left if is_zero(right) else left + right


def integer_grids(like: Variant, height: Number, width: Number) -> Grids:
    """Tokens and keys of each stage of a `height` x `width` image."""
    grids = []
    for stage, stride in zip(like.stages, paper.STAGE_STRIDES, strict=True):
        rows, columns = height // stride, width // stride
        grids.append((rows * columns, (rows // stage.reduction) * (columns // stage.reduction)))
    return grids


def count_parts(
    *,
    grids: Grids,
    bias_grids: Grids,
    stem_channels: Number,
    dims: Sequence[Number],
    hiddens: Sequence[Number],
    depths: Sequence[Number],
    like: Variant,
) -> Iterator[Part]:
    """Every part with its blocks together; heads, reductions and the ends are those of `like`."""
    # The stem works at stride 2: four times the tokens of stage 1.
    stem = _stem(4 * grids[0][0], stem_channels, like.in_channels)
    yield Part(kind="stem", stage=None, counts=stem)
    before = stem_channels
    for index, spec in enumerate(like.stages):
        (n, m), (n_bias, m_bias) = grids[index], bias_grids[index]
        d, h, depth = dims[index], hiddens[index], depths[index]
        bias = spec.heads * n_bias * m_bias
        attention = _lmhsa(n, m, d, spec.heads, spec.reduction) * depth
        attention += Counts(params=bias, position_bias=bias)
        stage = index + 1
        yield Part(kind="patch_embedding", stage=stage, counts=_patch_embedding(n, before, d))
        yield Part(kind="lpu", stage=stage, counts=_lpu(n, d) * depth)
        yield Part(kind="lmhsa", stage=stage, counts=attention)
        yield Part(kind="irffn", stage=stage, counts=_irffn(n, d, h) * depth)
        before = d
    yield Part(kind="head", stage=None, counts=_head(grids[-1][0], dims[-1], like.num_classes))


def _stem(n: Number, c: Number, in_channels: int) -> Counts:
    return Counts(
        conv=n * (9 * in_channels * c + 18 * c**2),
        batch_norm=6 * n * c,
        params=9 * in_channels * c + 18 * c**2 + 9 * c,
        activations=3 * n * c,
    )


def _patch_embedding(n: Number, before: Number, d: Number) -> Counts:
    return Counts(
        conv=4 * before * d * n,
        layer_norm=5 * n * d,
        params=4 * before * d + 3 * d,
        activations=n * d,
    )


def _lpu(n: Number, d: Number) -> Counts:
    return Counts(conv=9 * n * d, params=10 * d, activations=n * d)


def _lmhsa(n: Number, m: Number, d: Number, heads: int, k: int) -> Counts:
    reduced = 1 if k > 1 else 0  # k = 1 has neither the K/V convolution nor its BatchNorm
    return Counts(
        conv=reduced * m * k**2 * d,
        linear=2 * n * d**2 + 2 * m * d**2,
        matmul=2 * n * m * d,
        layer_norm=5 * n * d,
        batch_norm=reduced * 2 * m * d,
        params=4 * d**2 + 6 * d + reduced * (k**2 + 3) * d,
        activations=3 * n * d + (2 + reduced) * m * d + heads * n * m,
    )


def _irffn(n: Number, d: Number, h: Number) -> Counts:
    return Counts(
        conv=2 * n * d * h + 9 * n * h,
        layer_norm=5 * n * d,
        batch_norm=4 * n * h + 2 * n * d,
        params=2 * d * h + 15 * h + 5 * d,
        activations=2 * n * h + n * d,
    )


def _head(n: Number, d: Number, classes: int) -> Counts:
    c = paper.HEAD_CHANNELS
    return Counts(
        conv=n * d * c,
        linear=c * classes,
        batch_norm=2 * n * c,
        pool=n * c,
        params=c * d + 3 * c + c * classes + classes,
        activations=n * c + classes,
    )
