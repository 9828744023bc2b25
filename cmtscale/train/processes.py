"""The processes that train one network together, as `torchrun` starts them; or this one alone."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _abort_process_group as abort

from cmtscale.arch.errors import CmtscaleError, RequestError, StoppedError, TrainingError
from cmtscale.train.devices import best_device

T = TypeVar("T")

# how long a process waits for another: the others do, while the first one writes to a slow disk
PATIENCE = timedelta(minutes=10)
STORE_PATIENCE = timedelta(seconds=10)


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process's `rank` among `count`, `local_count` of them on this machine.

    Messages go over gloo, gradients as DDP likes.
    """

    rank: int = 0
    count: int = 1
    local_count: int = 1
    messages: Any = None  # the process group for what is not on a GPU

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def first(self, act: Callable[[], T]) -> T:
        """What `act` gives in the first process, in all of them; so is an error of it."""
        outcome: T | BaseException | None = None
        if self.is_first:
            try:
                outcome = act()
            except (CmtscaleError, OSError) as error:
                if self.count == 1:
                    raise
                outcome = error
        if self.count > 1:
            box = [outcome]
            dist.broadcast_object_list(box, src=0, group=self.messages)
            outcome = box[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome  # type: ignore[return-value]

    def largest(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.count == 1:
            return value
        box = torch.tensor(value)
        dist.all_reduce(box, dist.ReduceOp.MAX, group=self.messages)
        return int(box)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of the processes' tensors, on the CPU."""
        values = values.cpu()
        if self.count > 1:
            dist.all_reduce(values, group=self.messages)
            values /= self.count
        return values

    def gather(self, value: T) -> list[T]:
        """Each process's value, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self.messages)
        return values


ALONE = Processes()


def is_first_process() -> bool:
    """Whether this process is the one that writes and prints; also where no others are joined."""
    return os.environ.get("RANK", "0") == "0"


def is_first_to_say(text: str) -> bool:
    """Whether none of the other processes has said this; always true without `torchrun`.

    They agree through torchrun's store, which is there before they have met and after they part.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, is_master=False, timeout=STORE_PATIENCE)  # type: ignore[attr-defined]
        return store.add(f"cmtscale/{attempt}/{text}", 1) == 1
    except dist.DistError:  # torchrun has ended: rather twice than never
        return True


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that `torchrun` has started, and the device of this one.

    Without `torchrun`, this process and `device`. Raises `RequestError` for a device that several
    processes cannot share out, and `TrainingError` in each that another one has left alone.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE, device
        return
    device = best_device() if device == "auto" else device
    if "," in device or ":" in device:
        raise RequestError(f"device {device}: torchrun's processes share the GPUs out; use cuda")
    local_rank = int(os.environ["LOCAL_RANK"])
    is_cuda = device.startswith("cuda")
    if is_cuda:
        device = f"cuda:{local_rank}"
        if local_rank >= torch.cuda.device_count():
            raise RequestError(
                f"process {local_rank} of this machine has no GPU, there are "
                f"{torch.cuda.device_count()}; start as many processes"
            )
        torch.cuda.set_device(local_rank)
    try:
        dist.init_process_group("nccl" if is_cuda else "gloo", timeout=PATIENCE)
        messages: Any = dist.group.WORLD
        if is_cuda:
            messages = dist.new_group(backend="gloo", timeout=PATIENCE)
        here = int(os.environ.get("LOCAL_WORLD_SIZE", count))
        rank = dist.get_rank()
        yield Processes(rank=rank, count=count, local_count=here, messages=messages), device
    except StoppedError:  # of all
        dist.destroy_process_group()
        raise
    except Exception as error:
        if dist.is_initialized():
            abort()  # to destroy the group would wait for the others
        if isinstance(error, RuntimeError) and _is_of_the_group(error):
            raise TrainingError(
                "another process of this training has ended or does not answer; its own line says "
                "why; the same command goes on"
            ) from error
        raise
    else:
        dist.destroy_process_group()


def _is_of_the_group(error: RuntimeError) -> bool:
    """Whether the error says that other processes cannot be reached; gloo has no type for it."""
    if isinstance(error, CmtscaleError):
        return False
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)
