"""Jobs as tasks of a Ray cluster, one GPU or core each."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from cmtscale.arch.errors import CmtscaleError, RequestError, TrainingError, first_line
from cmtscale.search.executors.base import HANG_SECONDS, Job
from cmtscale.search.executors.left_over import TOKEN
from cmtscale.search.executors.outcome import (
    failure,
    gave_no_sign,
    outcome_of,
    raise_if_all_stops,
    took_too_long,
    worker_died,
)
from cmtscale.search.executors.pulse import Pulse
from cmtscale.search.executors.ray_connect import ANSWER_SECONDS, connect, import_ray
from cmtscale.search.executors.ray_files import Keeper, Sign
from cmtscale.search.executors.ray_task import carry_out, end_process
from cmtscale.search.jobs import ReadTestSplit, TrainRun

CANCEL_SECONDS = 30.0  # that cancelled tasks get to end in
CALLS_AT_A_TIME = 8  # of the keeper: a sign of life does not wait for a file
UNSEEN = Path("/nowhere/that/nodes/share")


@dataclass(frozen=True, kw_only=True)
class _Task:
    job: Job
    slot: int
    began: float
    name: str
    pulse: Pulse = field(default_factory=lambda: Pulse(beats=0))


class RayExecutor(AbstractContextManager["RayExecutor"]):
    """One task per GPU of the cluster, or per core where it has none; `share` may share one.

    Ray never retries: that is the driver's, in the record. Nodes that see the folder of a run work
    in it, others get its files and the images sent. `is_shared` False sends them in any case. Ray
    is started unless this process has; what was started here is closed with the executor.
    """

    def __init__(
        self,
        address: str = "auto",
        *,
        device: str = "auto",
        workers: int | None = None,
        share: int = 1,
        run_timeout_seconds: int | None = None,
        hang_seconds: int = HANG_SECONDS,
        is_shared: bool = True,
    ) -> None:
        self._ray = import_ray()
        self._owns_ray = connect(self._ray, address)
        self._tasks: dict[Any, _Task] = {}
        self._tokens: dict[Path, Path] = {}
        self._run_timeout_seconds = run_timeout_seconds
        self._hang_seconds = hang_seconds
        self._is_shared = is_shared
        self._has_begun = False
        try:
            self._kind = self._require_kind(device)
            self._devices = self._slots(workers, share)
        except BaseException:
            self._disconnect()
            raise
        one = {"num_cpus": 1 / share}
        if self._kind == "GPU":
            one = {"num_gpus": 1 / share, "num_cpus": 0}
        self._carry_out = self._ray.remote(max_retries=0, **one)(carry_out)
        here = self._on_node(self._ray.get_runtime_context().get_node_id())
        keeper = self._ray.remote(max_concurrency=CALLS_AT_A_TIME, **here)(Keeper)
        self._keeper = keeper.remote()

    def __exit__(self, *_: object) -> None:
        self.cancel()
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._keeper)
        for token in self._tokens.values():
            token.unlink(missing_ok=True)
        self._disconnect()

    @property
    def devices(self) -> tuple[str, ...]:
        return self._devices

    @property
    def free_slots(self) -> int:
        return len(self._devices) - len(self._tasks)

    @property
    def most_shared(self) -> int:
        return 1

    def share(self, runs: int) -> None:
        assert runs == 1

    def submit(self, job: Job) -> None:
        slot = min(set(range(len(self._devices))) - {task.slot for task in self._tasks.values()})
        device = "cuda:0" if self._kind == "GPU" else "cpu"  # the one that Ray lets the task see
        name = uuid4().hex
        reference = self._carry_out.remote(
            job, device, self._keeper, name, self._token(job), self._run_timeout_seconds
        )
        self._tasks[reference] = _Task(job=job, slot=slot, began=time.monotonic(), name=name)
        self._has_begun = True

    def running(self) -> list[Job]:
        return [task.job for task in self._tasks.values()]

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, Any]]:
        if not self._tasks:
            return
        self._require_some()
        references = list(self._tasks)
        self._ray.wait(references, timeout=timeout_seconds, fetch_local=False)
        ready, _ = self._ray.wait(
            references, num_returns=len(references), timeout=0, fetch_local=False
        )
        ended = [(reference, self._tasks.pop(reference)) for reference in ready]
        hung = self._hung()
        for reference, sign in hung.items():
            self._end(reference, sign)
        lost = [self._tasks.pop(reference).job for reference in hung]
        for reference, task in ended:
            yield task.job, self._outcome(reference, task)
        for job in lost:
            yield job, gave_no_sign(self._hang_seconds)

    def stop(self) -> None:
        self._answer(self._keeper.stop.remote(True))

    def cancel(self) -> None:
        """End all tasks at once, with their processes, and wait until they have ended."""
        references = list(self._tasks)
        if references:
            everything = {"num_returns": len(references), "fetch_local": False}
            _, unfinished = self._ray.wait(references, timeout=0, **everything)
            for reference in unfinished:  # as in `_end`
                self._ray.cancel(reference, force=True)
            self._ray.wait(references, timeout=CANCEL_SECONDS, **everything)
        self._tasks.clear()
        with suppress(TrainingError):  # the next look at results says it
            self._answer(self._keeper.stop.remote(False))

    def _outcome(self, reference: Any, task: _Task) -> Any:
        errors = self._ray.exceptions
        try:
            return raise_if_all_stops(self._ray.get(reference))
        except errors.OutOfMemoryError as error:  # Ray ends tasks before the machine is full
            return failure(f"out of memory ({error})")
        except errors.WorkerCrashedError:
            limit = self._run_timeout_seconds
            if limit is not None and time.monotonic() - task.began > limit:
                return took_too_long(limit)
            return worker_died("Ray's WorkerCrashedError")
        except errors.RayTaskError as error:  # it could not be read, or its result be sent
            return raise_if_all_stops(outcome_of(error.cause))
        except errors.RayError as error:
            return failure(f"{type(error).__name__}: {error}")

    def _hung(self) -> dict[Any, Sign]:
        """The tasks that have begun and give no sign of life, with their last one."""
        names = [task.name for task in self._tasks.values()]
        signs = self._answer(self._keeper.signs.remote(names))
        silent = {
            reference: task.pulse.look(signs[task.name].beats)
            for reference, task in self._tasks.items()
            if task.name in signs
        }
        return {
            reference: signs[self._tasks[reference].name]
            for reference, seconds in silent.items()
            if seconds > self._hang_seconds
        }

    def _end(self, reference: Any, sign: Sign) -> None:
        """End a task whose process may be stopped, and so hears nothing that Ray tells it.

        A node that was suspended itself shall not do so later: its process may have another task.
        What has ended is not cancelled: in the moment in which Ray takes in its result, Ray 2.60
        aborts the process that cancels it ("Tried to complete task that was not pending").
        """
        kill = self._ray.remote(max_retries=0, **self._on_node(sign.node_id))(end_process)
        killing = kill.remote(sign.pid, sign.started)
        for task in (killing, reference):
            ended, _ = self._ray.wait([task], timeout=ANSWER_SECONDS, fetch_local=False)
            if not ended:
                self._ray.cancel(task, force=True)

    def _answer(self, reference: Any) -> Any:
        """What the keeper answers; `TrainingError` where it is gone."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise TrainingError(
                f"the Ray cluster has lost the process that hears the tasks of this search "
                f"({first_line(error)}); the same command goes on"
            ) from error

    def _on_node(self, node_id: str) -> dict[str, Any]:
        """The options of what needs no resources, and runs on this node."""
        strategies = self._ray.util.scheduling_strategies
        strategy = strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
        return {"num_cpus": 0, "scheduling_strategy": strategy}

    def _token(self, job: Job) -> Path:
        """A file that is seen on the nodes that see the folder of a run."""
        if not (self._is_shared and isinstance(job, TrainRun | ReadTestSplit)):
            return UNSEEN
        runs = job.folder.parent
        if runs not in self._tokens:
            self._tokens[runs] = runs / f"{TOKEN}{uuid4().hex}"
        with suppress(OSError):  # the job says what is wrong with its folder
            runs.mkdir(parents=True, exist_ok=True)
            self._tokens[runs].touch()  # again: opening the folder has removed what was there
        return self._tokens[runs]

    def _count(self, kind: str) -> int:
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(int(resources.get(kind, 0)) for resources in alive)

    def _require_kind(self, device: str) -> str:
        """`GPU` or `CPU`, whichever the device is and the cluster has."""
        kind = {"auto": "GPU" if self._count("GPU") else "CPU", "cuda": "GPU", "cpu": "CPU"}
        if device not in kind:
            raise RequestError(
                f"device {device!r} is of this machine; with the engine ray use auto, cpu or cuda"
            )
        return kind[device]

    def _slots(self, workers: int | None, share: int) -> tuple[str, ...]:
        self._require_some()
        count = self._count(self._kind)
        is_gpu = self._kind == "GPU"
        slots = [f"cuda:{number}" if is_gpu else "cpu" for number in range(count)] * share
        return tuple(slots[index % len(slots)] for index in range(workers or len(slots)))

    def _require_some(self) -> None:
        """Raise if no node has what a task needs: Ray would wait for one without a word."""
        if self._count(self._kind):
            return
        has = {name: self._count(name) for name in ("CPU", "GPU")}
        kind: type[CmtscaleError] = TrainingError if self._has_begun else RequestError
        raise kind(
            f"the Ray cluster has no {self._kind} (it has {has['CPU']} CPU, {has['GPU']} GPU); "
            f"add a node that has, or use another --device"
        )

    def _disconnect(self) -> None:
        if self._owns_ray:
            self._ray.shutdown()
