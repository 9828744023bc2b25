"""How a training looks: its plan, a bar while it trains, and the result."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.cli.bars import Bars
from cmtscale.cli.console import counted, duration
from cmtscale.data.dataset import Dataset
from cmtscale.data.stream import ImageSet
from cmtscale.record.result import RunResult
from cmtscale.train.run_time import part_done
from cmtscale.train.single import TrainingPlan


class TrainView:
    """Prints the plan and each validation; in between a bar moves."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.plan: TrainingPlan | None = None

    def planned(self, plan: TrainingPlan) -> None:
        self.plan = plan
        network, recipe, dataset = plan.run.variant, plan.run.recipe, plan.dataset
        augmented = ", augmented" if recipe.shift_fraction else ""
        self.bars.print(
            f"{network.name}: {format_macs(cost(network).macs)} MACs at {network.resolution_px} "
            f"px, on {plan.device}\n"
            f"{images_line(dataset)}\n"
            f"{counted(recipe.epochs, 'epoch')} of {plan.epoch_images:,} images in batches of "
            f"{recipe.batch_size}{augmented}; about {duration(plan.seconds)} from now"
        )
        self.bars.show([("training", 0.0)], "the first steps")

    def logged(self, line: dict[str, Any]) -> None:
        if "val_accuracy" in line:
            self.bars.print(
                f"step {line['step']}  validation loss {line['val_loss_raw']:.4f}  "
                f"accuracy {100 * line['val_accuracy']:.2f} %  after {duration(line['seconds'])}"
            )
            return
        if self.plan is None:  # no step of it could be timed
            return
        # the last line of an epoch comes before its evaluation
        ended_epochs = (line["images"] - 1) // self.plan.epoch_images
        part = part_done(
            line["images"],
            ended_epochs,
            self.plan.run.recipe,
            train_images=self.plan.epoch_images,
            val_images=len(self.plan.dataset.splits.val),
        )
        seconds_left = line["seconds"] * (1 / part - 1)
        speed = line["images"] / line["seconds"] if line["seconds"] else 0.0
        self.bars.show(
            [("training", part)],
            f"step {line['step']}, training loss {line['train_loss']:.4f}, {speed:.0f} img/s, "
            f"about {duration(seconds_left)} left",
        )


def images_line(images: Dataset | ImageSet) -> str:
    """Which images, how many in each split, and how large they are."""
    splits = images.splits
    return (
        f"{images.name}: {len(splits.train):,} train, {len(splits.val):,} val, "
        f"{len(splits.test):,} test images of {images.native_px} px"
    )


def print_json(result: RunResult, test_accuracy: float | None, *, folder: Path) -> None:
    """How the training ended, as JSON."""
    described = {"folder": str(folder), **asdict(result), "test_accuracy": test_accuracy}
    print(json.dumps(described, indent=1))


def print_result(
    result: RunResult, test_accuracy: float | None, *, folder: Path, test: bool
) -> None:
    """How the training ended; `test` says whether the test split was to be read."""
    if result.status != "complete":
        print(f"{result.status}: {result.cause}")
        if result.status == "infeasible":
            print("the same command tries again; free GPU memory first, or use another --device")
        return
    assert result.val_accuracy is not None
    accuracy = "" if test_accuracy is None else f"test accuracy {100 * test_accuracy:.2f} %; "
    print(
        f"validation accuracy {100 * result.val_accuracy:.2f} %, loss {result.val_loss:.4f} "
        f"(temperature {result.temperature:.3f}); {accuracy}"
        f"{result.images_per_second:.0f} img/s, {result.seconds:.0f} s; in {folder}"
    )
    if result.cause:
        print(result.cause)
    if test and test_accuracy is None:
        print("the test split was not read: the checkpoint is gone")
    elif not test:
        print("the test split: the same command with --test reads it, once")
