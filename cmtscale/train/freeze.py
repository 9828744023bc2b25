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
    if frozen == ALL and not isinstance(network, CMT):
        kept = {id(weight) for head in classifiers(network) for weight in head.parameters()}
        for weight in network.parameters():  # tokens and positions belong to no part
            weight.requires_grad_(id(weight) in kept)


def train_mode(network: nn.Module, frozen: str) -> None:
    """Train mode, but for frozen parts: no drop path there, statistics of BatchNorm stay."""
    network.train()
    for part in frozen_parts(network, frozen):
        part.eval()


def classifiers(network: nn.Module) -> tuple[nn.Module, ...]:
    """The classifiers of a network: one, or two of a distilled one of timm."""
    if isinstance(network, CMT):
        return (network.head.classifier,)
    head = network.get_classifier()  # type: ignore[operator]  # every network of timm has it
    return head if isinstance(head, tuple) else (head,)


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
    inner = {part for head in classifiers(network) for part in head.modules()}
    for module in network.modules():
        if not any(part in inner for part in module.modules()):
            yield module
