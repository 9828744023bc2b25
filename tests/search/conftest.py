"""Executors that need no worker processes, and whether Slurm runs jobs here."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from cmtscale.arch.cost import cost
from cmtscale.data.dataset import Description
from cmtscale.record.losses import write_image_losses
from cmtscale.record.result import RunResult
from cmtscale.search.executors import engine
from cmtscale.search.executors.base import Failure, Job, Stopped
from cmtscale.search.jobs import TimePrediction, TimeSteps, TrainRun
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.settings import Settings
from cmtscale.train.run_time import run_seconds
from cmtscale.train.stop import never


@pytest.fixture(scope="session")
def slurm() -> None:
    """Skips where no Slurm runs jobs; executors/one_node_slurm.sh starts one."""
    pytest.importorskip("submitit", reason="cmtscale[slurm] is not installed")
    if shutil.which("sbatch") is None:
        pytest.skip("this machine has no Slurm")
    states = subprocess.run(
        ["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False
    )
    if not {"idle", "mixed", "allocated"} & set(states.stdout.split()):
        pytest.skip(f"Slurm has no node here that runs jobs: {states.stdout}{states.stderr}")


@dataclass
class InProcess:
    """Carries out one job at a time in this process, with one thread as a worker has.

    `started` lists the trained runs and `timed` the timed networks; `cancelled` and `closed` count
    calls.
    """

    devices: tuple[str, ...] = ("cpu",)
    most_shared: int = 1
    started: list[str] = field(default_factory=list)
    timed: list[str] = field(default_factory=list)
    cancelled: int = 0
    closed: int = 0
    stopping: bool = False
    _job: Job | None = None

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    @property
    def free_slots(self) -> int:
        return 0 if self._job else 1

    def share(self, runs: int) -> None:
        assert self._job is None
        assert 1 <= runs <= self.most_shared
        if self.most_shared > 1:
            self.devices = tuple(dict.fromkeys(self.devices)) * runs

    def submit(self, job: Job) -> None:
        assert self._job is None
        if isinstance(job, TrainRun):
            self.started.append(job.run.run_id)
        elif isinstance(job, TimeSteps):
            self.timed.append(job.network.name)
        self._job = job

    def running(self) -> list[Job]:
        return [self._job] if self._job else []

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, Any]]:
        assert timeout_seconds > 0
        job, self._job = self._job, None
        if job is not None:
            yield job, Stopped() if self.stopping else self.outcome(job)

    def stop(self) -> None:
        self.stopping = True

    def cancel(self) -> None:
        self.cancelled += 1
        self.stopping = False
        self._job = None

    def outcome(self, job: Job) -> Any:
        return job.carry_out("cpu", never)


@dataclass
class FakeTraining(InProcess):
    """Trains nothing: the loss falls as a power of the images seen, and times are made up.

    A step takes 0.001 seconds per image, a prediction a nanosecond per parameter. Raises
    KeyboardInterrupt once more than `stop_after` runs were started. `failing` maps run ids to how
    often they fail before they complete.
    """

    stop_after: int | None = None
    failing: dict[str, int] = field(default_factory=dict)

    def outcome(self, job: Job) -> Any:
        if isinstance(job, TimeSteps):
            return 0.001
        if isinstance(job, TimePrediction):
            return {network.name: 1e-9 * cost(network).params for network in job.networks}
        if not isinstance(job, TrainRun):
            return super().outcome(job)
        if self.stop_after is not None and len(self.started) > self.stop_after:
            raise KeyboardInterrupt
        if self.failing.get(job.run.run_id, 0):
            self.failing[job.run.run_id] -= 1
            return Failure(cause="made up")
        loss = self.loss(job)
        parts = [[], [cost(job.run.variant).macs], [cost(job.run.variant).macs, job.run.seed]]
        noise = sum(np.random.default_rng([0, *part]).standard_normal(270) for part in parts)
        write_image_losses(job.folder, loss * (1 + 0.1 * (noise - noise.mean())))
        return RunResult(
            status="complete",
            val_loss=loss,
            val_loss_raw=1.1 * loss,
            val_accuracy=0.5,
            temperature=1.0,
            train_loss=loss,
            images_per_second=100.0,
            seconds=self.seconds(job),
        )

    def seconds(self, job: TrainRun) -> float:
        """As long as the steps say."""
        recipe = job.run.recipe
        assert recipe.train_images is not None
        return run_seconds(0.001, recipe, train_images=recipe.train_images, val_images=270)

    def loss(self, job: TrainRun) -> float:
        """A level by parameters, a slope by blocks, and 1 % of noise between seeds."""
        network, recipe = job.run.variant, job.run.recipe
        assert recipe.train_images is not None
        level = 3 * (cost(network).params / cost(network).macs) ** 0.08
        slope = 0.2 + 0.001 * sum(network.depths)
        key = [cost(network).macs, recipe.epochs, job.run.seed]
        noise = np.random.default_rng(key).standard_normal()
        seen = recipe.epochs * recipe.train_images
        return float(level * (seen / 128) ** -slope * np.exp(0.01 * noise))


@pytest.fixture(scope="session")
def tiny_settings(tiny_request: SearchRequest) -> Settings:
    """The settings of `tiny_request`, resolved for the digits."""
    return resolve(
        tiny_request, Description(num_classes=10, channels=1, train_images=1257, val_images=270)
    )


@pytest.fixture(scope="session")
def in_process_class() -> type[InProcess]:
    return InProcess


@pytest.fixture(scope="session")
def fake_training_class() -> type[FakeTraining]:
    return FakeTraining


@pytest.fixture
def use_executor(monkeypatch: pytest.MonkeyPatch) -> Callable[[InProcess], None]:
    """Makes an executor the default of searches, with the device slots of their request."""

    def use(executor: InProcess) -> None:
        def make(devices: tuple[str, ...], *, most_shared: int, **_: object) -> InProcess:
            executor.devices, executor.most_shared = devices, most_shared
            return executor

        monkeypatch.setattr(engine, "LocalExecutor", make)

    return use


@pytest.fixture
def in_process(
    use_executor: Callable[[InProcess], None],
    single_threaded: None,  # noqa: ARG001
) -> InProcess:
    """Searches train in this process."""
    executor = InProcess()
    use_executor(executor)
    return executor


@pytest.fixture
def fake_training(use_executor: Callable[[InProcess], None]) -> FakeTraining:
    """Searches train nothing and take no time to plan."""
    executor = FakeTraining()
    use_executor(executor)
    return executor
