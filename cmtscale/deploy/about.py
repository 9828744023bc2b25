"""What travels with an exported network, so that it can be used without its folder."""

from dataclasses import asdict
from importlib import metadata
from typing import Any

from cmtscale.deploy.sides import Sides
from cmtscale.record.model_folder import ModelDescription

KEY = (
    "cmtscale"  # of the JSON: in an ONNX file's and safetensors' metadata; `cmtscale.json` in .pt2
)
INPUT, OUTPUT = "images", "logits"


def about(description: ModelDescription, sides: Sides) -> dict[str, Any]:
    """Classes, preprocessing (as `Preprocessing` explains it), temperature and sides, for JSON.

    Probabilities are softmax(logits / temperature).
    """
    return {
        "cmtscale": metadata.version("cmtscale"),
        "network": description.network.name,
        "input": f"{INPUT}: float32 (batch, channels, height, width), preprocessed",
        "output": f"{OUTPUT}: float32 (batch, classes)",
        "classes": list(description.classes),
        **asdict(description.preprocessing),
        "temperature": description.scores.temperature,
        "sides": asdict(sides),
    }
