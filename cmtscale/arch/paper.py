"""Every published constant of CMT, once, with its place in the paper.

Guo et al., "CMT: Convolutional Neural Networks Meet Vision Transformers", arXiv 2107.06263.
Our own choices do not belong here.
"""

from dataclasses import dataclass

STEM_STRIDE = 2  # "Overall architecture": three 3x3 convolutions, strides 2, 1, 1
STAGE_STRIDES = (
    4,
    8,
    16,
    32,
)  # "Overall architecture": 2x2 patch embedding, stride 2, before each stage
HEAD_CHANNELS = 1280  # Table 1: the 1x1 projection before global average pooling

PHI_BASE = 2.5  # "Scaling strategy": alpha * beta**1.5 * gamma**2 ≈ 2.5
WIDTH_EXPONENT = 1.5  # "Scaling strategy"
RESOLUTION_EXPONENT = 2.0  # "Scaling strategy"
ALPHA, BETA, GAMMA = (
    1.2,
    1.3,
    1.15,
)  # "Scaling strategy", found by grid search; their product is 2.352

CROP_FRACTION = 224 / 256  # authors' evaluation: the short side is first side · 256/224

BLOCK_LAYER_NORM_EPS = 1e-6  # authors' code; the patch embedding's LayerNorm keeps 1e-5
PATCH_LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One column of Table 1, with the reported size and accuracy.

    `params_m` in millions, `flops_g` in 10^9 (the paper's FLOPs are multiply-adds),
    `top1` in per cent on ImageNet-1K (authors' README).
    """

    resolution_px: int
    stem_channels: int
    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    expansion: float
    params_m: float
    flops_g: float
    top1: float


HEADS = (1, 2, 4, 8)  # Table 1
REDUCTIONS = (8, 4, 2, 1)  # Table 1: K/V reduction ratio k

VARIANTS = {
    "cmt-ti": TableRow(
        resolution_px=160,
        stem_channels=16,
        dims=(46, 92, 184, 368),
        depths=(2, 2, 10, 2),
        expansion=3.6,
        params_m=9.49,
        flops_g=0.64,
        top1=79.0,
    ),
    "cmt-xs": TableRow(
        resolution_px=192,
        stem_channels=16,
        dims=(52, 104, 208, 416),
        depths=(3, 3, 12, 3),
        expansion=3.77,  # the paper prints 3.8; the authors' code has 3.77
        params_m=15.24,
        flops_g=1.54,
        top1=81.8,
    ),
    "cmt-s": TableRow(
        resolution_px=224,
        stem_channels=32,
        dims=(64, 128, 256, 512),
        depths=(3, 3, 16, 3),
        expansion=4.0,
        params_m=25.14,  # the authors' code has 26.26 M; unexplained
        flops_g=4.04,
        top1=83.5,
    ),
    "cmt-b": TableRow(
        resolution_px=256,
        stem_channels=38,
        dims=(76, 152, 304, 608),
        depths=(4, 4, 20, 4),
        expansion=4.0,
        params_m=45.72,
        flops_g=9.33,
        top1=84.5,
    ),
}
