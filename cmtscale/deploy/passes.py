"""Forward passes to be timed: with torch, or with onnxruntime."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cmtscale.arch.network import Network
from cmtscale.deploy.about import INPUT
from cmtscale.deploy.capture import capture
from cmtscale.deploy.sides import Sides
from cmtscale.model.networks import build_network

Pass = Callable[[], object]  # one forward pass of a batch; it returns when the device has done it


def build_for_timing(network: Network, device: torch.device) -> nn.Module:
    """The network in eval mode with fresh weights: its speed does not depend on them.

    Torch's generator of random numbers is left as it was.
    """
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_network(network).eval().to(device)


def torch_pass(
    model: Callable[[Tensor], Any], network: Network, batch: int, device: torch.device
) -> Pass:
    """A pass of one batch of random images, channels-last, that lie on the device already."""
    images = _images(network, batch).to(device, memory_format=torch.channels_last)

    def run() -> None:
        model(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    return run


def onnx_pass(model: nn.Module, network: Network, batch: int, *, threads: int) -> Pass:
    """A pass of `onnxruntime` on the CPU, over the graph that `export` writes at the own side.

    Raises `ExportError` for a network with an operator that ONNX does not have.
    """
    from cmtscale.deploy.onnx_file import OPSET, open_session, require_onnx, to_onnx

    require_onnx(OPSET)
    sides = Sides(own_px=network.resolution_px).fixed("it is timed at its own")
    program, _ = capture(model, channels=network.in_channels, sides=sides)
    session = open_session(to_onnx(program, about="{}", opset=OPSET), threads=threads)
    feed = {INPUT: _images(network, batch).numpy()}
    return lambda: session.run(None, feed)


def _images(network: Network, batch: int) -> Tensor:
    side = network.resolution_px
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, network.in_channels, side, side, generator=generator)
