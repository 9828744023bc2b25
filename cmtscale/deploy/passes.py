"""Forward passes to be timed: with torch, or with onnxruntime."""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from cmtscale.arch.errors import RequestError
from cmtscale.arch.network import Network
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
    """A pass of `onnxruntime` on the CPU, over an export for this batch size.

    Raises `RequestError` for a network with an operator that ONNX does not have.
    """
    import onnxruntime

    images = _images(network, batch)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        _export(model, images, path, network.name)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)


def _images(network: Network, batch: int) -> Tensor:
    side = network.resolution_px
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, network.in_channels, side, side, generator=generator)


def _export(model: nn.Module, images: Tensor, path: Path, name: str) -> None:
    try:
        torch.onnx.export(model, (images,), path, dynamo=True, verbose=False)
    except torch.onnx.OnnxExporterError as error:
        operator = re.search(r"OpOverload\(op='([^']+)'", str(error))
        reason = f"ONNX has no {operator[1]}" if operator else str(error).partition("\n")[0]
        raise RequestError(f"{name} cannot be exported: {reason}") from error
