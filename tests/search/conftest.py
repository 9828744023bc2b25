"""Executors that need no worker processes."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from cmtscale.arch.cost import cost
from cmtscale.record.losses import write_image_losses
from cmtscale.record.result import RunResult
from cmtscale.search import driver, plan
from cmtscale.search.executor import Job, work


@dataclass
class InProcess:
    """Carries out one run at a time, here, with one thread as a worker has."""

    started: list[str] = field(default_factory=list)
    closed: int = 0
    _job: Job | None = None

    @property
    def free_slots(self) -> int:
        return 0 if self._job else 1

    def submit(self, job: Job) -> None:
        self.started.append(job.run.run_id)
        self._job = job

    def running(self) -> list[Job]:
        return [self._job] if self._job else []

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, RunResult]]:
        assert timeout_seconds > 0
        job, self._job = self._job, None
        if job is not None:
            yield job, self.outcome(job)

    def close(self) -> None:
        self.closed += 1
        self._job = None

    def outcome(self, job: Job) -> RunResult:
        return work(job, "cpu")


@dataclass
class Pretence(InProcess):
    """Trains nothing: the loss is a formula. Interrupts before run number `stop_after`.

    `failing` says how often a run fails before it ends well.
    """

    stop_after: int | None = None
    failing: dict[str, int] = field(default_factory=dict)

    def outcome(self, job: Job) -> RunResult:
        if self.stop_after is not None and len(self.started) > self.stop_after:
            raise KeyboardInterrupt
        if self.failing.get(job.run.run_id, 0):
            self.failing[job.run.run_id] -= 1
            return RunResult(status="failed", cause="made up", seconds=1.0)
        loss = self.loss(job)
        macs = cost(job.run.variant).macs
        noise = np.random.default_rng([macs, job.run.seed]).standard_normal(270)
        write_image_losses(job.folder, loss + 0.1 * (noise - noise.mean()))
        return RunResult(
            status="complete",
            val_loss=loss,
            val_loss_raw=1.1 * loss,
            val_accuracy=0.5,
            temperature=1.0,
            train_loss=loss,
            images_per_second=100.0,
            seconds=1.0,
        )

    def loss(self, job: Job) -> float:
        counted = cost(job.run.variant)
        return float(counted.params / counted.macs + 1e-3 * job.run.seed)


@pytest.fixture(scope="session")
def in_process_class() -> type[InProcess]:
    return InProcess


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, single_threaded: None) -> InProcess:  # noqa: ARG001
    """Searches train here; `started` says which runs."""
    executor = InProcess()
    monkeypatch.setattr(driver, "LocalExecutor", lambda _: executor)
    return executor


@pytest.fixture
def pretence(monkeypatch: pytest.MonkeyPatch) -> Pretence:
    """Searches train nothing and take no time to plan."""
    executor = Pretence()
    monkeypatch.setattr(driver, "LocalExecutor", lambda _: executor)
    monkeypatch.setattr(plan, "time_runs", lambda networks, *_: (1.0,) * len(networks))
    return executor
