"""The test split: for the winner of a search or a final training, read once each."""

from dataclasses import dataclass
from pathlib import Path

import torch

from cmtscale.data.batches import device_split
from cmtscale.data.dataset import open_dataset
from cmtscale.model.cmt import build
from cmtscale.train.autocast import make_autocast
from cmtscale.train.checkpoint import load_checkpoint
from cmtscale.train.evaluate import Predictions, predict
from cmtscale.train.micro_batches import AtOnce, halved_until_it_fits
from cmtscale.train.recipe import Run
from cmtscale.train.stop import CheckIn, never


@dataclass(frozen=True, kw_only=True)
class SplitScore:
    """The accuracy of one network on the images of the test split."""

    images: int
    accuracy: float


def read_test_split(
    run: Run, *, device: torch.device, folder: Path, check_in: CheckIn = never
) -> SplitScore | None:
    """What the run's last checkpoint in `folder` scores; None if that is gone.

    As many images are seen at once as when it was validated, or as fit after halvings. Raises
    `torch.OutOfMemoryError` where one image does not fit. Each reading belongs into the log of
    readings (`cmtscale.record.reads`).
    """
    state = load_checkpoint(folder, run.identity)
    if state is None:
        return None
    dataset = open_dataset(run.data)
    split = device_split(dataset, dataset.splits.test, device=device)
    model = build(run.variant, attention=run.recipe.attention).to(device)
    model.load_state_dict(state["model"])
    autocast = make_autocast(run.recipe, device)
    at_once = AtOnce(images=min(run.recipe.batch_size, len(split)))
    at_once.at_most(state.get("scored_at_once", at_once.images))

    def attempt() -> Predictions:
        return predict(
            model, split, batch_size=at_once.images, autocast=autocast, check_in=check_in
        )

    predictions = halved_until_it_fits(attempt, at_once)
    return SplitScore(images=len(split), accuracy=predictions.accuracy)
