"""The cells of the GPU benchmark: what is measured, in which order, and their outcomes."""

from dataclasses import dataclass
from typing import Literal

from cmtscale.arch.variant import Stage, Variant, published_variants, variant

Section = Literal["parity", "steps", "runs", "search"]
Precision = Literal["fp32", "bf16"]
Attention = Literal["auto", "explicit", "sdpa"]
Network = tuple[Variant, int]  # with the batch that it is timed at

SEARCH_FLAGS = (
    "--budget", "4.0G", "--data", "digits", "--trials", "6",
    "--epochs", "3", "--train-images", "1024", "--batch-size", "32",
)  # fmt: skip
REDUCED_SEARCH_FLAGS = (
    "--budget", "1.22M", "--no-proxy", "--data", "digits", "--trials", "4",
    "--epochs", "1", "--train-images", "64", "--batch-size", "32",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What one cell measures; the defaults are what a search does on CUDA.

    `quantity` is what a parity cell compares. `compiled` is `torch.compile` of the network,
    `cuda_graph` a whole step captured and replayed, `autotuned` cuDNN's choice by timing.
    """

    section: Section
    network: Variant | None  # None: the twins of a search
    batch: int
    quantity: str = ""
    precision: Precision = "bf16"
    attention: Attention = "auto"
    compiled: bool = False
    cuda_graph: bool = False
    autotuned: bool = False
    processes: int = 1

    @property
    def needs_cuda(self) -> bool:
        return self.compiled or self.cuda_graph or self.autotuned

    @property
    def execution(self) -> str:
        """For display; "eager" is torch without any of these options."""
        parts = {
            "compiled": self.compiled,
            "CUDA graph": self.cuda_graph,
            "cuDNN autotuned": self.autotuned,
        }
        return ", ".join(name for name, is_on in parts.items() if is_on) or "eager"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The numbers of a cell, or the cause if it has none.

    Rates are medians over chunks of steps, with the slowest and fastest chunk. `prepare_seconds`
    are those of compiling, capturing and warming up; `error` is relative to float64.
    """

    cause: str = ""
    error: float | None = None
    tolerance: float | None = None
    images_per_second: float | None = None
    slowest: float | None = None
    fastest: float | None = None
    steps: int | None = None
    prepare_seconds: float | None = None
    memory_gb: float | None = None
    tflops: float | None = None
    peak_share: float | None = None
    seconds: float | None = None


Outcomes = dict[Setting, Outcome]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which networks and batches; the first twin stands for all in parity and in runs at a time."""

    is_reduced: bool
    twins: tuple[Variant, ...]
    twin_batches: tuple[int, ...]  # the first is the recipe's
    published: tuple[Variant, ...]
    published_batches: tuple[int, ...]
    compared: tuple[Network, ...]  # timed in every way but compiled
    compiled: tuple[Network, Network]  # a twin and the flagship
    attentions: tuple[Attention, ...]  # whose parity is measured
    parity_batch: int
    processes: tuple[int, ...]
    search_flags: tuple[str, ...]
    search_base: Variant | None  # None: the default of the search
    search_batch: int
    workers: tuple[int, ...]
    chunk_seconds: float
    window_seconds: float

    @property
    def twin(self) -> Variant:
        return self.twins[0]

    @property
    def flagship(self) -> Network:
        return self.compiled[1]

    @property
    def compared_twins(self) -> tuple[Network, ...]:
        return tuple((network, batch) for network, batch in self.compared if network in self.twins)


def twin(
    name: str, dim: int, depths: tuple[int, ...], resolution_px: int, *, channels: int = 1
) -> Variant:
    """A network as a search trains them: heads 1-2-4-8, so that `dim` is every stage's head dim."""
    first, second, third, fourth = (
        Stage(dim=dim * heads, depth=depth, heads=heads, reduction=reduction, expansion=4.0)
        for depth, heads, reduction in zip(depths, (1, 2, 4, 8), (8, 4, 2, 1), strict=True)
    )
    return Variant(
        name=name,
        resolution_px=resolution_px,
        stem_channels=dim // 2,
        num_classes=10,
        in_channels=channels,
        stages=(first, second, third, fourth),
    )


def full_plan() -> Plan:
    """For a card: three twins of about 14 MMACs, the published variants, and CMT-S as flagship."""
    deep = twin("twin-deep", 16, (3, 2, 8, 2), 64)
    compound = twin("twin-compound", 12, (1, 1, 7, 2), 96)
    wide = twin("twin-wide", 22, (1, 1, 4, 1), 64)
    flagship = (variant("cmt-s"), 64)
    return Plan(
        is_reduced=False,
        twins=(deep, compound, wide),
        twin_batches=(32, 128, 512),
        published=published_variants(),
        published_batches=(64, 256),
        compared=((deep, 32), (compound, 32), (variant("cmt-ti"), 64), flagship),
        compiled=((deep, 32), flagship),
        attentions=("explicit", "sdpa"),
        parity_batch=32,
        processes=(1, 2, 4, 8),
        search_flags=SEARCH_FLAGS,
        search_base=None,
        search_batch=32,
        workers=(4, 1),
        chunk_seconds=0.2,
        window_seconds=4.0,
    )


def reduced_plan() -> Plan:
    """For any machine, in seconds: checks that the benchmark works; the numbers mean nothing."""
    tiny = twin("tiny-twin", 8, (1, 1, 1, 1), 64)
    colour = twin("tiny-colour", 8, (1, 1, 2, 1), 64, channels=3)
    return Plan(
        is_reduced=True,
        twins=(tiny,),
        twin_batches=(4,),
        published=(colour,),
        published_batches=(4,),
        compared=((tiny, 4), (colour, 4)),
        compiled=((tiny, 4), (colour, 4)),
        attentions=("explicit",),
        parity_batch=8,
        processes=(1, 2),
        search_flags=REDUCED_SEARCH_FLAGS,
        search_base=twin("tiny", 4, (1, 1, 1, 1), 64),
        search_batch=32,
        workers=(2,),
        chunk_seconds=0.0,
        window_seconds=0.2,
    )


def settings(plan: Plan) -> dict[Section, tuple[Setting, ...]]:
    """Every cell of the plan, by section, the most informative first, as time may run out."""
    return {
        "parity": tuple(_parity(plan)),
        "steps": tuple(dict.fromkeys(_steps(plan))),
        "runs": tuple(
            steps_of((plan.twin, plan.twin_batches[0]), "runs", cuda_graph=graph, processes=count)
            for graph in (False, True)
            for count in plan.processes
        ),
        "search": tuple(search_of(plan, workers) for workers in plan.workers),
    }


def steps_of(network: Network, section: Section = "steps", **changes: object) -> Setting:
    """The training steps of a network; `changes` are fields of `Setting`."""
    return Setting(section=section, network=network[0], batch=network[1], **changes)


def search_of(plan: Plan, workers: int) -> Setting:
    return Setting(section="search", network=None, batch=plan.search_batch, processes=workers)


def _parity(plan: Plan) -> list[Setting]:
    compared = [((variant("cmt-ti"), 2), "logits")]
    compared += [((plan.twin, plan.parity_batch), name) for name in ("loss", "gradient", "update")]
    return [
        steps_of(network, "parity", quantity=name, precision=precision, attention=attention)
        for network, name in compared
        for precision in ("fp32", "bf16")
        for attention in plan.attentions
    ]


def _steps(plan: Plan) -> list[Setting]:
    twins = [(network, batch) for batch in plan.twin_batches for network in plan.twins]
    published = [(network, batch) for batch in plan.published_batches for network in plan.published]
    graphs = [*plan.compared, *twins]
    attention = [steps_of(n, attention=a) for n in plan.compared for a in ("explicit", "sdpa")]
    return [
        *(steps_of(network) for network in [*plan.compared, *twins, *published]),
        *(steps_of(network, cuda_graph=True) for network in graphs),
        *attention,
        *(steps_of(network, precision="fp32") for network in plan.compared),
        *(steps_of(network, autotuned=True) for network in plan.compared),
        *(steps_of(network, compiled=True) for network in plan.compiled),
        *(steps_of(network, compiled=True, cuda_graph=True) for network in plan.compiled),
    ]
