"""Validation accuracy over the epochs of the trainings here; python figure.py writes curves.png."""

import json
import re
from pathlib import Path

from matplotlib.figure import Figure

from cmtscale.report.layout import BLACK, BLUE, COLUMN_IN, VERMILLION, styled

HERE = Path(__file__).parent
STEPS_PER_EPOCH = 421  # of 128 images
FIRST_EPOCHS = 40
VALIDATED = re.compile(r"epoch (\d+)  validation loss \S+  accuracy (\S+) %")

Curve = list[tuple[float, float]]


def logged(name: str, *, after: int = 0) -> Curve:
    """Epochs and accuracies in % of a metrics file."""
    lines = map(json.loads, (HERE / name).read_text().splitlines())
    return [
        (after + line["step"] / STEPS_PER_EPOCH, 100 * line["val_accuracy"])
        for line in lines
        if "val_accuracy" in line
    ]


def printed(name: str) -> Curve:
    """The same, of what a training has printed."""
    found = VALIDATED.findall((HERE / name).read_text())
    return [(float(epoch), float(accuracy)) for epoch, accuracy in found]


@styled
def draw() -> Figure:
    figure = Figure(figsize=(1.4 * COLUMN_IN, 2.8), layout="constrained")
    ax = figure.add_subplot()
    first = logged("cmt.jsonl")
    longer = [first[-1], *logged("longer.jsonl", after=FIRST_EPOCHS)]
    for curve, look, label in (
        (first, {"color": BLUE, "marker": "o"}, "CMT, one CPU core"),
        (longer, {"color": BLUE, "marker": "o", "ls": ":", "mfc": "white"}, "CMT, trained on"),
        (printed("h200-cmt.log"), {"color": BLACK, "marker": "s"}, "CMT, H200"),
        (printed("h200-mobilenet.log"), {"color": VERMILLION, "marker": "^"}, "MobileNetV3, H200"),
    ):
        ax.plot(*zip(*curve, strict=True), ms=3, lw=1, label=label, **look)
    ax.set(xlabel="epochs", ylabel="validation accuracy (%)", ylim=(87, 95.2))
    ax.legend(frameon=False, loc="lower right")
    return figure


if __name__ == "__main__":
    draw().savefig(HERE / "curves.png", dpi=200)
