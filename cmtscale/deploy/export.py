"""A trained model as a file for other programs: ONNX, torch.export, or one of safetensors.

Each file is run and compared with the network before it is written; it says itself what it holds
(`about`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from cmtscale.arch.errors import RequestError
from cmtscale.deploy.about import KEY, about
from cmtscale.deploy.capture import capture
from cmtscale.deploy.compare import Agreement, Run, compare
from cmtscale.deploy.load import build_trained, open_model
from cmtscale.deploy.onnx_file import OPSET, require_onnx, require_room, run_onnx, to_onnx
from cmtscale.deploy.pt2_file import run_pt2, to_pt2
from cmtscale.deploy.sides import Sides, find_sides
from cmtscale.model.saved import parse_weights
from cmtscale.record.files import write_atomically
from cmtscale.record.model_folder import ModelDescription
from cmtscale.record.single_file import SAFETENSORS, pack_model, unpack_model

Format = Literal["onnx", "torch-export", "safetensors"]
SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "torch-export": ".pt2",
    "safetensors": SAFETENSORS,
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written, and how it was found to agree; `opset` is None but for ONNX."""

    path: Path
    format: Format
    opset: int | None
    size_bytes: int
    channels: int
    classes: int
    sides: Sides
    agreements: tuple[Agreement, ...]


def export_model(
    model: Path, out: Path | None = None, *, format: Format, opset: int | None = None
) -> Exported:
    """Write the trained model in `model` as one file, by default beside it.

    Raises `ModelError` for no model, `RequestError` for a file that exists, an option without use
    or a library that is missing, and `ExportError` for a network that the format cannot hold or
    that answers otherwise in it; then nothing is written.
    """
    if opset is not None and format != "onnx":
        raise RequestError(f"--opset does nothing with {format}; leave it away, or use onnx")
    out = _default_path(model, format) if out is None else out
    if out.exists():
        raise RequestError(f"{out} exists already; use another --out, or remove it")
    if format == "onnx":
        opset = OPSET if opset is None else opset
        require_onnx(opset)
    loaded, description = open_model(model)
    network = loaded.model
    sides = find_sides(description.network, network)
    if format == "safetensors":
        content, run = _safetensors(description, network, sides)
    else:
        content, run, sides = _graph(description, network, sides, opset)
    channels = description.network.in_channels
    agreements = compare(run, network, channels=channels, sides=sides)
    write_atomically(out, lambda file: file.write(content))
    return Exported(
        path=out,
        format=format,
        opset=opset,
        size_bytes=len(content),
        channels=channels,
        classes=len(description.classes),
        sides=sides,
        agreements=tuple(agreements),
    )


def _graph(
    description: ModelDescription, network: nn.Module, sides: Sides, opset: int | None
) -> tuple[bytes, Run, Sides]:
    """The content of an ONNX file of this opset, or of a `.pt2` file without one."""
    if opset is not None:
        weights = network.state_dict().values()
        require_room(sum(weight.nbytes for weight in weights))
    program, sides = capture(network, channels=description.network.in_channels, sides=sides)
    told = json.dumps(about(description, sides))
    if opset is None:
        content = to_pt2(program, about=told)
        return content, run_pt2(content), sides
    content = to_onnx(program, about=told, opset=opset)
    return content, run_onnx(content), sides


def _safetensors(
    description: ModelDescription, network: nn.Module, sides: Sides
) -> tuple[bytes, Run]:
    content = pack_model(
        description,
        {name: weight.numpy() for name, weight in network.state_dict().items()},
        more={KEY: json.dumps(about(description, sides))},
    )
    source = "the exported file"
    written = unpack_model(content, source=source)
    return content, build_trained(written, parse_weights(content, source=source), source=source)


def _default_path(model: Path, format: Format) -> Path:
    suffix = SUFFIXES[format]
    if model.is_file():
        return model.with_suffix(suffix)
    folder = model if model.name else model.resolve()
    return folder.with_name(folder.name + suffix)
