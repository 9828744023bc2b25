"""`cmtscale export`: a trained model as a file for other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cmtscale.cli.options import MODEL_HELP, Json


def export(
    model: Annotated[Path, typer.Argument(help=MODEL_HELP)],
    format: Annotated[
        Literal["onnx", "torch-export", "safetensors"],
        typer.Option(help="onnx; torch-export, a .pt2 file; or safetensors, read by cmtscale."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The file; by default MODEL.onnx, .pt2 or .safetensors beside MODEL."),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX operator set; by default 18.")] = None,
    as_json: Json = False,
) -> None:
    """Write a trained model as one file, with its classes and preprocessing.

    The file is run and compared with the network first, at two batch sizes and, where the sides of
    images are free, two sizes. If it answers otherwise, or the format cannot hold the network,
    nothing is written and the exit code is 1.
    """
    import json
    from dataclasses import asdict

    from cmtscale.deploy.export import export_model

    exported = export_model(model, out, format=format, opset=opset)
    if as_json:
        print(json.dumps({**asdict(exported), "path": str(exported.path)}, indent=1))
    else:
        from cmtscale.cli.export_view import print_exported

        print_exported(exported)
