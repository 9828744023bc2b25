"""How networks are to be measured, and what cannot be."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

import torch

from cmtscale.arch.errors import RequestError
from cmtscale.train.devices import device_slots
from cmtscale.train.recipe import require_count

Dtype = Literal["fp32", "bf16", "fp16"]
Backend = Literal["torch", "onnxruntime"]
TIMED = 3  # passes of a turn, behind one that brings the network back into the caches


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """How networks are measured; raises `RequestError` for what cannot be measured so.

    Below fp32 torch computes under autocast, as in training, with weights that are cast once.
    `threads` None: as many as torch takes, but not more than there are cores to use. Each of
    `rounds` has `TIMED` timed passes of each network and batch size.
    """

    batches: tuple[int, ...] = (1,)
    dtype: Dtype = "fp32"
    device: str = "auto"
    threads: int | None = None
    compiled: bool = False
    backend: Backend = "torch"
    rounds: int = 10

    def __post_init__(self) -> None:
        for batch in self.batches:
            require_count("batch", batch)
        require_count("rounds", self.rounds)
        if self.threads is not None:
            require_count("threads", self.threads)
        if self.dtype not in get_args(Dtype):
            raise RequestError(f"dtype {self.dtype!r} is not one of {', '.join(get_args(Dtype))}")
        if self.backend not in get_args(Backend):
            raise RequestError(f"backend {self.backend!r} is neither torch nor onnxruntime")
        if self.backend == "onnxruntime" and (self.dtype != "fp32" or self.compiled):
            raise RequestError("onnxruntime has neither dtype nor compile; leave both away")

    def torch_device(self) -> torch.device:
        """The device; raises `RequestError` if it is not there or does not know the dtype."""
        if self.backend == "onnxruntime":
            if self.device not in ("auto", "cpu"):
                raise RequestError(f"onnxruntime is measured on the CPU, not on {self.device!r}")
            if not all(map(find_spec, ("onnxruntime", "onnxscript"))):
                raise RequestError("onnxruntime is missing; pip install 'cmtscale[export]'")
            return torch.device("cpu")
        device = torch.device(device_slots(self.device)[0])
        if device.type == "cpu" and self.dtype == "fp16":
            raise RequestError("fp16 is measured on GPUs only; use bf16 or fp32 on a CPU")
        return device
