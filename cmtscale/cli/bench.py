"""`cmtscale bench`: how fast networks are, side by side."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cmtscale.cli.options import Json


def bench(
    networks: Annotated[
        list[str],
        typer.Argument(
            help="Published variants, TOML files, timm:NAME, folders of trained models or of "
            "searches (their best.toml); with @288 for another side in px."
        ),
    ],
    batch: Annotated[str, typer.Option(help="Images per pass: 1, or several as 1,32.")] = "1",
    resolution: Annotated[
        str | None, typer.Option(help="Another side in px for all of them, as 288.")
    ] = None,
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16"], typer.Option(help="Precision; below fp32 by autocast.")
    ] = "fp32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Threads on a CPU; by default one per core.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Measure after torch.compile.")
    ] = False,
    backend: Annotated[
        Literal["torch", "onnxruntime"], typer.Option(help="What carries the networks out.")
    ] = "torch",
    rounds: Annotated[
        int, typer.Option(help="Turns of each network; in each three passes are timed.")
    ] = 10,
    figure: Annotated[
        Path | None, typer.Option(help="Draw time and accuracy into this PNG, SVG or PDF.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure latency, throughput and memory of forward passes, the networks taking turns.

    Networks that fail, for lack of memory say, are left out with a line; the exit code is 1 if
    none is left.
    """
    import json

    from cmtscale.cli.bench_view import parse_batches, parse_side, print_bench, print_left_out
    from cmtscale.cli.console import messages

    batches, side = parse_batches(batch), parse_side(resolution)
    if figure is not None:
        from cmtscale.report.bench import require_figure, save_bench

        require_figure(figure)

    from cmtscale.deploy.bench import bench as measure
    from cmtscale.deploy.bench_request import BenchRequest
    from cmtscale.deploy.subjects import read_subject

    request = BenchRequest(
        batches=batches,
        dtype=dtype,
        device=device,
        threads=threads,
        compiled=compiled,
        backend=backend,
        rounds=rounds,
    )
    subjects = [read_subject(text, resolution_px=side) for text in networks]
    with messages().status("measuring") as status:
        measured = measure(subjects, request, watch=status.update)
    print_left_out(measured)
    if as_json:
        print(json.dumps(measured.as_json(), indent=1))
    elif measured.measurements:
        print_bench(measured)
    if not measured.measurements:
        raise typer.Exit(1)
    if figure is not None:
        save_bench(measured, figure)
        messages().print(f"figure: {figure}", markup=False)
