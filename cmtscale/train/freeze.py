"""Parts of a network that do not train."""

from collections.abc import Iterator

from torch import nn

from cmtscale.arch.errors import RequestError
from cmtscale.model.cmt import CMT

ALL = "all"


def freeze(network: nn.Module, frozen: str) -> None:
    """Let parts keep their weights: "" none, "3" stem and three stages, "all" all but the head.

    Numbers are for CMTs. Raises `RequestError` for anything else.
    """
    for part in frozen_parts(network, frozen):
        part.requires_grad_(False)


def train_mode(network: nn.Module, frozen: str) -> None:
    """Train mode, but for frozen parts: no drop path there, statistics of BatchNorm stay."""
    network.train()
    for part in frozen_parts(network, frozen):
        part.eval()


def frozen_parts(network: nn.Module, frozen: str) -> Iterator[nn.Module]:
    """The modules that `frozen` names."""
    if not frozen:
        return
    if isinstance(network, CMT):
        stages = {ALL: len(network.stages), **{str(n): n for n in range(len(network.stages) + 1)}}
        if frozen not in stages:
            raise RequestError(
                f"freeze {frozen!r} is not 0 to {len(network.stages)} (the stem and so many "
                "stages) or all (but the head)"
            )
        yield network.stem
        yield from network.stages[: stages[frozen]]
        return
    if frozen != ALL:
        raise RequestError(f"freeze {frozen!r} is for CMTs; timm's networks take all, or none")
    head = network.get_classifier()  # type: ignore[operator]  # every network of timm has it
    inner = set(head.modules())
    for module in network.modules():
        if not any(part in inner for part in module.modules()):
            yield module
