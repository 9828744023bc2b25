"""`.pt2` files of `torch.export`: made from a captured network, and run as loaded again."""

import io

import torch
from torch import Tensor
from torch.export import ExportedProgram

from cmtscale.arch.errors import ExportError, first_line
from cmtscale.deploy.about import KEY
from cmtscale.deploy.compare import Run

ABOUT_FILE = f"{KEY}.json"


def to_pt2(program: ExportedProgram, *, about: str) -> bytes:
    """The file's content; `about`, JSON, is its extra file `cmtscale.json`."""
    file = io.BytesIO()
    try:
        torch.export.save(program, file, extra_files={ABOUT_FILE: about})
    except Exception as error:  # of its serialisation, for what a graph may hold
        raise _refused("cannot be saved", error) from error
    return file.getvalue()


def run_pt2(content: bytes) -> Run:
    """The loaded network on the CPU; raises `ExportError` where it cannot run."""
    try:
        module = torch.export.load(io.BytesIO(content)).module()
    except Exception as error:
        raise _refused("cannot be loaded", error) from error

    def run(images: Tensor) -> Tensor:
        try:
            logits: Tensor = module(images)
        except Exception as error:  # of a guard, an assertion or an operator
            raise _refused("does not run", error) from error
        return logits

    return run


def _refused(what: str, error: Exception) -> ExportError:
    return ExportError(f"the exported graph {what}: {first_line(error)}; use --format safetensors")
