"""How an evaluation looks: scores, classes, confusions, and what the split was used for."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from cmtscale.cli.console import Column, messages, print_table, results
from cmtscale.record.evaluation import ClassScore, Evaluation
from cmtscale.record.folder import TEST_READS

if TYPE_CHECKING:
    from cmtscale.deploy.evaluate import Evaluated

SHOWN_CLASSES = 20
SHOWN_CONFUSIONS = 5


def print_remarks(evaluated: "Evaluated") -> None:
    """On stderr, what has to be known of the images before a number is quoted."""
    for remark in _remarks(evaluated):
        messages().print(remark, markup=False, soft_wrap=True)


def print_json(evaluated: "Evaluated") -> None:
    """The numbers as JSON."""
    print(json.dumps(asdict(evaluated.evaluation), indent=1))


def print_evaluation(evaluated: "Evaluated") -> None:
    """Scores, the classes that are recognised least, and the most frequent confusions."""
    evaluation = evaluated.evaluation
    out = results()
    mirrored = ", each averaged with its mirror image" if evaluation.tta else ""
    out.print(
        f"{evaluation.model} on {evaluation.data}, {evaluation.split}: "
        f"{evaluation.images:,} images{mirrored}",
        markup=False,
        soft_wrap=True,
    )
    for name, value in _scores(evaluation):
        out.print(f"{name:<18} {value}", markup=False, soft_wrap=True)
    out.print()
    _print_classes(evaluation)
    if evaluation.confusions:
        out.print("\nmost frequent confusions", style="bold")
    sizes = {score.name: score.images for score in evaluation.classes}
    for pair in evaluation.confusions[:SHOWN_CONFUSIONS]:
        out.print(
            f"{pair.images:,} of {sizes[pair.true]:,} {pair.true} taken for {pair.predicted}",
            markup=False,
            soft_wrap=True,
        )


def _scores(evaluation: Evaluation) -> list[tuple[str, str]]:
    low, high = (100 * end for end in evaluation.top1_interval)
    at = f"at the model's temperature {evaluation.temperature:.3f}"
    return [
        ("top-1", f"{_percent(evaluation.top1)} % (95 % interval {low:.2f} to {high:.2f})"),
        *([("top-5", f"{_percent(evaluation.top5)} %")] if evaluation.top5 is not None else []),
        ("loss", f"{evaluation.raw_loss:.4f} nats; {evaluation.loss:.4f} {at}"),
        (
            "calibration error",
            f"{_percent(evaluation.raw_calibration_error)} %; "
            f"{_percent(evaluation.calibration_error)} % {at} "
            f"(ECE, {evaluation.calibration_bins} bins of equal width)",
        ),
    ]


def _print_classes(evaluation: Evaluation) -> None:
    out = results()
    present = [score for score in evaluation.classes if score.images]
    ordered = sorted(present, key=lambda score: score.recall or 0.0)
    columns = [Column("class"), Column("images"), Column("precision"), Column("recall")]
    print_table(out, columns, [_cells(score) for score in ordered[:SHOWN_CLASSES]])
    if hidden := len(ordered[SHOWN_CLASSES:]):
        out.print(f"and {hidden} classes that are recognised better; --out writes all")
    if absent := len(evaluation.classes) - len(present):
        out.print(f"{absent} of the model's {len(evaluation.classes)} classes have no images here")


def _cells(score: ClassScore) -> list[str]:
    return [score.name, f"{score.images:,}", _percent(score.precision), _percent(score.recall)]


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def _remarks(evaluated: "Evaluated") -> list[str]:
    evaluation = evaluated.evaluation
    remarks = []
    if evaluation.reading is not None:
        often = "; a split that is read often chooses, too" if evaluation.reading > 1 else ""
        remarks.append(
            f"the {_ordinal(evaluation.reading)} reading of this test split with this model, "
            f"logged in {evaluated.log}/{TEST_READS}{often}"
        )
    elif evaluation.own_data and evaluation.split == "train":
        remarks.append("the model was trained on images of this split: it says little of others")
    elif evaluation.own_data:
        remarks.append(
            "val fitted the model's temperature, and chose the network where a search did; "
            "--split test reads images that did neither, and logs it"
        )
    remarks += [f"caution: {caution}" for caution in evaluated.cautions]
    if evaluated.unreadable:
        files = evaluation.unreadable + evaluation.images
        remarks.append(f"{evaluation.unreadable:,} of {files:,} files cannot be read: left out")
    return remarks


def _ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, `11th`."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"
