"""`.pt2` files of `torch.export`: made from a captured network, and run as loaded again."""

import io

import torch
from torch import Tensor
from torch.export import ExportedProgram

from cmtscale.arch.errors import ExportError
from cmtscale.deploy.about import KEY
from cmtscale.deploy.compare import Run

ABOUT_FILE = f"{KEY}.json"


def to_pt2(program: ExportedProgram, *, about: str) -> bytes:
    """The file's content; `about`, JSON, is its extra file `cmtscale.json`."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={ABOUT_FILE: about})
    return file.getvalue()


def run_pt2(content: bytes) -> Run:
    """The loaded network on the CPU; raises `ExportError` where it cannot run."""
    module = torch.export.load(io.BytesIO(content)).module()

    def run(images: Tensor) -> Tensor:
        try:
            logits: Tensor = module(images)
        except Exception as error:  # of a guard, an assertion or an operator
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ExportError(
                f"the exported graph does not run: {line}; use --format safetensors"
            ) from error
        return logits

    return run
