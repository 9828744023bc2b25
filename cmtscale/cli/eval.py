"""`cmtscale eval`: how good a trained model is on labelled images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cmtscale.cli.options import DATA_HELP, CacheDir, Json

if TYPE_CHECKING:
    from cmtscale.deploy.evaluate import Evaluated


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model, or of its training.")],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    split: Annotated[
        Literal["val", "test", "train", "all"] | None,
        typer.Option(
            help="val by default; all of a folder that is not split and new to the model."
        ),
    ] = None,
    tta: Annotated[
        Literal["flip"] | None,
        typer.Option(help="Average the probabilities of an image and its mirror image."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for evaluation.json, two tables and two figures."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Score a trained model: accuracy, loss, calibration, and what it confuses.

    Classes are matched by name. Val and test are the images that were val and test in the model's
    training; each reading of test is logged. Files that cannot be read are named and left out, and
    the exit code is then 1.
    """
    from cmtscale.data.sources import parse_spec

    data = parse_spec(data).text  # before anything heavy is imported

    from cmtscale.cli.bars import make_bars
    from cmtscale.cli.console import messages
    from cmtscale.cli.eval_view import print_evaluation, print_json, print_remarks
    from cmtscale.deploy.evaluate import evaluate
    from cmtscale.record.folder import held
    from cmtscale.train.devices import device_slots

    slot = device_slots(device)[0]
    if out is not None:
        with held(out):  # before minutes are spent; a folder that is new is not left behind
            pass
    with make_bars() as bars:
        evaluated = evaluate(
            model,
            data,
            split=split,
            tta=tta,
            device=slot,
            out=out,
            cache_dir=cache_dir,
            watch=lambda done, images: bars.show(
                [("evaluating", done / images)], f"{done:,} of {images:,} images"
            ),
        )
    for reason in evaluated.unreadable:
        messages().print(f"cmtscale: {reason}", markup=False, soft_wrap=True)
    print_remarks(evaluated)  # first: a reading is logged, whoever stops listening
    if as_json:
        print_json(evaluated)
    else:
        print_evaluation(evaluated)
    if out is not None:
        for file in _write(out, evaluated):
            messages().print(str(file), markup=False, soft_wrap=True)
    if evaluated.unreadable:
        raise typer.Exit(1)


def _write(out: Path, evaluated: "Evaluated") -> tuple[Path, ...]:
    from cmtscale.record.evaluation import write_evaluation
    from cmtscale.report.evaluation import save_evaluation_figures

    evaluation = evaluated.evaluation
    files = write_evaluation(out, evaluation, evaluated.predictions)
    figures = save_evaluation_figures(
        out, evaluation, worst=evaluated.mistakes, pixels=evaluated.mistake_pixels
    )
    return files + figures
