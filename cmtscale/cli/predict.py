"""`cmtscale predict`: what a trained model sees in images."""

from pathlib import Path
from typing import Annotated

import typer

from cmtscale.cli.options import MODEL_HELP, Json


def predict(
    model: Annotated[Path, typer.Argument(help=MODEL_HELP)],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes of each image.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Json = False,
) -> None:
    """Classify images; probabilities are calibrated on the training's validation images.

    Files that cannot be read are named, and the exit code is then 1.
    """
    import json
    import sys

    from cmtscale.deploy.load import open_model
    from cmtscale.deploy.predict import image_files, predict
    from cmtscale.train.devices import device_slots

    slot = device_slots(device)[0]
    files = image_files(images)
    loaded, description = open_model(model, device=slot)
    temperature = description.scores.temperature
    broken = 0
    listed = []
    for prediction in predict(loaded, files, top=top, temperature=temperature):
        broken += bool(prediction.error)
        pairs = list(zip(prediction.classes, prediction.probabilities, strict=True))
        if as_json:
            answer = {"error": prediction.error} if prediction.error else {"classes": dict(pairs)}
            listed.append({"image": str(prediction.path), **answer})
        elif prediction.error:
            print(f"cmtscale: {prediction.error}", file=sys.stderr)
        else:
            shown = ", ".join(f"{name} {100 * value:.1f} %" for name, value in pairs)
            print(f"{prediction.path}: {shown}", flush=True)
    if as_json:
        print(json.dumps(listed, indent=1))
    if broken:
        raise typer.Exit(1)
