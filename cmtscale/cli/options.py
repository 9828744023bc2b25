"""Reading option values that several commands share."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from cmtscale.arch import paper
from cmtscale.arch.errors import VariantError
from cmtscale.arch.network import TIMM, split_side

VARIANTS_HELP = "Published variant (cmt-ti, cmt-xs, cmt-s, cmt-b) or a TOML file."
MODEL_HELP = "Folder of a trained model or of its training, or an exported .safetensors file."
DATA_HELP = "digits, fashion-mnist, cifar10, cifar100, flowers102, pets, cars or folder:PATH."
NETWORKS_HELP = (
    "Published variant (cmt-ti, cmt-xs, cmt-s, cmt-b), a TOML file, or timm:NAME; with @288 for "
    "another side in px."
)
# the rule of `arch.base.default_base`
DEFAULT_BASE = "the largest at most half the budget, or else the smallest, scaled down"

Alpha = Annotated[float, typer.Option("--alpha", help="Depth growth per step of phi.")]
Beta = Annotated[float, typer.Option("--beta", help="Dimension growth per step of phi.")]
Gamma = Annotated[float, typer.Option("--gamma", help="Resolution growth per step of phi.")]
CacheDir = Annotated[
    Path | None,
    typer.Option(help="Where packed images are kept ($CMTSCALE_CACHE; see `cmtscale cache`)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0,1 or mps.")]
AttentionName = Literal["auto", "explicit", "sdpa"]
Attention = Annotated[
    AttentionName | None,
    typer.Option(help="Attention kernel; auto (default): torch's fused one where CUDA has it."),
]
SplitSeed = Annotated[
    int | None,
    typer.Option(help="Draws validation and test images where the data set gives none; 0."),
]

ALPHA, BETA, GAMMA = paper.ALPHA, paper.BETA, paper.GAMMA


def needs_torch(network: str) -> bool:
    """Whether `model.networks.read_network` must read it: timm's, or at another side (`@288`)."""
    return network.startswith(TIMM) or split_side(network)[1] is not None


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of `320` or `320x256`; raises `VariantError` for anything else."""
    match = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", text.strip())
    if match is None:
        raise VariantError(f"resolution {text!r} is not a size in px; write 320 or 320x256")
    height = int(match[1])
    return height, int(match[2] or height)
