"""The test split: for the winner of a search or a final training, read once each."""

from dataclasses import dataclass
from pathlib import Path

import torch

from cmtscale.data.batches import device_split
from cmtscale.data.dataset import open_dataset
from cmtscale.model.cmt import build
from cmtscale.train.autocast import make_autocast
from cmtscale.train.checkpoint import load_checkpoint
from cmtscale.train.evaluate import predict
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

    Each reading belongs into the log of readings (`cmtscale.record.reads`).
    """
    state = load_checkpoint(folder, run.identity, device)
    if state is None:
        return None
    dataset = open_dataset(run.data)
    split = device_split(dataset, dataset.splits.test, device=device)
    model = build(run.variant, attention=run.recipe.attention).to(device)
    model.load_state_dict(state["model"])
    autocast = make_autocast(run.recipe, device)
    predictions = predict(
        model, split, batch_size=run.recipe.batch_size, autocast=autocast, check_in=check_in
    )
    return SplitScore(images=len(split), accuracy=predictions.accuracy)
