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


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """How a variant was trained on ImageNet-1K: authors' README, its table of commands.

    `gpu_batch_size` is that of each of `TRAINING_GPUS`; `lr` is for a batch of `LR_BATCH` images.
    """

    epochs: int
    gpu_batch_size: int
    lr: float
    weight_decay: float
    drop_path: float
    warmup_lr: float
    min_lr: float
    ema_decay: float | None
    dropout: float  # authors' code: before the classifier


TRAINING_GPUS = 8  # authors' README
LR_BATCH = 512  # authors' code, after DeiT (arXiv 2012.12877): lr · total batch / 512
WARMUP_EPOCHS = 20  # authors' README
# DeiT's augmentation (arXiv 2012.12877, table 9), which the authors' code keeps
RAND_AUGMENT = "rand-m9-mstd0.5-inc1"
COLOUR_JITTER = 0.4
MIXUP, CUTMIX = 0.8, 1.0
LABEL_SMOOTHING = 0.1
RANDOM_ERASING = 0.25
REPEATS = 3  # of each image in an epoch: repeated augmentation
CROP_FRACTION = 224 / 256  # evaluation: resized to resolution · 256 / 224, centre crop

TRAININGS = {
    "cmt-ti": TrainingRow(
        epochs=800,
        gpu_batch_size=256,
        lr=8e-4,
        weight_decay=0.05,
        drop_path=0.1,
        warmup_lr=1e-7,
        min_lr=1e-5,
        ema_decay=None,
        dropout=0.1,
    ),
    "cmt-xs": TrainingRow(
        epochs=400,
        gpu_batch_size=256,
        lr=7e-4,
        weight_decay=0.04,
        drop_path=0.08,
        warmup_lr=1e-6,
        min_lr=2e-5,
        ema_decay=0.9998,
        dropout=0.1,
    ),
    "cmt-s": TrainingRow(
        epochs=300,
        gpu_batch_size=128,
        lr=5e-4,
        weight_decay=0.05,
        drop_path=0.1,
        warmup_lr=1e-7,
        min_lr=1e-5,
        ema_decay=0.99996,
        dropout=0.1,
    ),
    "cmt-b": TrainingRow(
        epochs=300,
        gpu_batch_size=64,
        lr=5e-4,
        weight_decay=0.05,
        drop_path=0.25,
        warmup_lr=1e-6,
        min_lr=2e-5,
        ema_decay=0.99996,
        dropout=0.3,
    ),
}
