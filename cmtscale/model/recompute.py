"""Gradient checkpointing: a block's activations are computed again in the backward pass."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class KeptStatistics(AbstractContextManager[None]):
    """While it is open, the BatchNorms of a module keep their running statistics as they are.

    It can be opened again: a graph that is retained is computed again in each backward pass.
    """

    def __init__(self, module: nn.Module) -> None:
        kinds = nn.BatchNorm2d | nn.SyncBatchNorm
        self.norms = [part for part in module.modules() if isinstance(part, kinds)]

    def __enter__(self) -> None:
        # Not track_running_stats = False: torch wants the same tensors saved in both passes.
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *_error: object) -> None:
        for norm, (momentum, batches) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def recomputed(block: nn.Module, maps: Tensor, bias: Tensor) -> Tensor:
    """`block(maps, bias)`, of which only the inputs are kept for the backward pass.

    The second computation draws the same random numbers and moves no BatchNorm statistics.
    """
    out: Tensor = checkpoint(
        block, maps, bias, use_reentrant=False, context_fn=partial(_contexts, block)
    )
    return out


def _contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), KeptStatistics(block)
