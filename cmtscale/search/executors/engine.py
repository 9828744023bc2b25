"""Which engine carries out the jobs of a search, and opening it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cmtscale.arch.errors import RequestError
from cmtscale.search.executors.base import HANG_SECONDS, Executor
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.train.recipe import require_count

EngineName = Literal["local", "slurm", "ray"]
ENGINES: tuple[EngineName, ...] = ("local", "slurm", "ray")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where jobs are carried out: on this machine, in Slurm jobs, or on a Ray cluster.

    `workers_per_device` runs share a GPU or a core (None: 1, or on this machine's GPUs what a
    search measures to be fastest). A job that takes longer than `run_timeout_seconds`, or gives no
    sign of life for `hang_seconds`, is ended and has failed.
    `slurm` are the options of a Slurm job, by name; `address` is that of the Ray cluster.
    """

    name: EngineName = "local"
    workers_per_device: int | None = None
    run_timeout_seconds: int | None = None
    hang_seconds: int = HANG_SECONDS
    slurm: Mapping[str, Any] = field(default_factory=dict)
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise RequestError(f"engine {self.name!r} is not one of {', '.join(ENGINES)}")
        for name in ("workers_per_device", "run_timeout_seconds", "hang_seconds"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        for option, engine in (("slurm", "slurm"), ("address", "ray")):
            if getattr(self, option) and self.name != engine:
                raise RequestError(
                    f"{option} is for the engine {engine}, and this one is {self.name}; "
                    f"add --engine {engine}, or drop it"
                )


LOCAL = Engine()


def open_engine(
    engine: Engine, *, device: str, workers: int | None, cache_dir: Path | None
) -> AbstractContextManager[Executor]:
    """The engine's executor, which closes as a context manager.

    `workers` are the runs at a time (None: as many as there are devices for). Raises `RequestError`
    where a package is missing, or the engine has no such device.
    """
    share = engine.workers_per_device
    limits: dict[str, Any] = {
        "run_timeout_seconds": engine.run_timeout_seconds,
        "hang_seconds": engine.hang_seconds,
    }
    if engine.name == "slurm":
        from cmtscale.search.executors.slurm import SlurmExecutor
        from cmtscale.search.executors.slurm_jobs import SlurmJobs

        jobs = SlurmJobs.of(engine.slurm, device=device, workers=workers, share=share or 1)
        return SlurmExecutor(jobs, cache_dir=cache_dir, **limits)
    if engine.name == "ray":
        from cmtscale.search.executors.ray import RayExecutor

        return RayExecutor(
            engine.address or "auto",
            device=device,
            workers=workers,
            share=share or 1,
            **limits,
        )
    from cmtscale.train.devices import available_cores, device_slots  # loads torch

    if share is not None and workers is not None:
        raise RequestError(
            f"workers {workers} and workers_per_device {share} both say how many runs share a "
            f"device; drop one of them"
        )
    slots = device_slots(device, workers)
    most_shared = 1
    if share is None and workers is None and slots[0].startswith("cuda"):
        most_shared = max(1, available_cores() // len(slots))  # a core feeds each run
    return LocalExecutor(slots * (share or 1), most_shared=most_shared, **limits)
