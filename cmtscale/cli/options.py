"""Reading option values that several commands share."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cmtscale.arch import paper
from cmtscale.arch.errors import VariantError
from cmtscale.arch.network import TIMM, split_side

if TYPE_CHECKING:
    from cmtscale.search.executors.engine import Engine

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
EngineOption = Annotated[
    Literal["local", "slurm", "ray"],
    typer.Option("--engine", help="What runs the trainings: processes here, Slurm jobs, or Ray."),
]
Slurm = Annotated[
    str | None,
    typer.Option(
        help="Options of a Slurm job: partition=gpu,gpus=1,time=2:00:00 (or cpus=4 and gpus=0), "
        "others as sbatch names them; or a TOML file."
    ),
]
Address = Annotated[
    str | None, typer.Option(help="Of the Ray cluster; auto: the one that this machine is in.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Runs at a time; by default one per core or per GPU, with Slurm those of 8 jobs."
    ),
]
WorkersPerDevice = Annotated[
    int | None,
    typer.Option(
        help="Runs that share a GPU, or a core; 1, and in a search on GPUs of this machine what it "
        "measures to be fastest."
    ),
]
RunTimeout = Annotated[
    str | None,
    typer.Option(help="The longest that a run may take, 30m: it is ended, and has failed."),
]
HangTimeout = Annotated[
    str,
    typer.Option(help="How long a run that hangs may give no sign of life before it is ended."),
]
AttentionName = Literal["auto", "explicit", "sdpa"]
Attention = Annotated[
    AttentionName | None,
    typer.Option(help="Attention kernel; auto (default): torch's fused one where CUDA has it."),
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes", help="Go on though cmtscale or torch has changed since; recorded."
    ),
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


def read_engine(
    name: Literal["local", "slurm", "ray"],
    *,
    slurm: str | None,
    address: str | None,
    workers_per_device: int | None,
    run_timeout: str | None,
    hang_timeout: str,
) -> "Engine":
    """The engine of the flags; raises a `CmtscaleError` where they do not go together."""
    from cmtscale.arch.budget import parse_duration
    from cmtscale.search.executors.engine import Engine
    from cmtscale.search.executors.slurm_jobs import read_slurm

    return Engine(
        name=name,
        slurm={} if slurm is None else read_slurm(slurm),
        address=address,
        workers_per_device=workers_per_device,
        run_timeout_seconds=(
            None if run_timeout is None else parse_duration(run_timeout, "--run-timeout")
        ),
        hang_seconds=parse_duration(hang_timeout, "--hang-timeout"),
    )
