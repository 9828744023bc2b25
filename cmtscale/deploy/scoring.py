"""A network over labelled images: what it says of each, plain or averaged with its mirror image."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cmtscale.arch.errors import DataError, ModelError
from cmtscale.data.batches import read_ahead
from cmtscale.data.preprocess import Preprocess
from cmtscale.deploy.images import LabelledImages
from cmtscale.deploy.predict import BATCH
from cmtscale.deploy.summary import ImageScores


class _Batch(NamedTuple):
    """Inputs (B, C, S, S) of the images at `positions`; `failed` says of the others why."""

    positions: list[int]
    inputs: list[Tensor]
    failed: list[str]


@torch.inference_mode()
def score_images(
    model: nn.Module,
    preprocess: Preprocess,
    images: LabelledImages,
    *,
    temperature: float,
    mirrored: bool = False,
    watch: Callable[[int], None] | None = None,
) -> tuple[ImageScores, tuple[str, ...]]:
    """What the network says of each image, in order, and of those that cannot be read, why.

    `mirrored`: probabilities are the mean of those of an image and of its mirror image. `watch`
    hears how many images are done. Raises `DataError` if none can be read, and `ModelError` for
    outputs that are not finite.
    """
    device = next(model.parameters()).device
    positions = range(len(images.labels))
    parts = [positions[start : start + BATCH] for start in range(0, len(positions), BATCH)]
    failed: list[str] = []
    columns: list[dict[str, npt.NDArray[Any]]] = []
    with (
        ThreadPoolExecutor() as threads,
        closing(read_ahead(partial(_read, threads, preprocess, images), parts)) as batches,
    ):
        for part, batch in zip(parts, batches, strict=True):
            failed += batch.failed
            if batch.inputs:
                inputs = torch.stack(batch.inputs).to(device)
                outputs = [model(inputs)] + ([model(inputs.flip(-1))] if mirrored else [])
                logits = torch.stack([output.float().cpu() for output in outputs]).double()
                _require_finite(logits)
                columns.append(
                    {
                        "positions": np.array(batch.positions),
                        **_columns(logits, images.labels[batch.positions], temperature),
                    }
                )
            if watch is not None:
                watch(part.stop)
    if not columns:
        raise DataError(f"no image can be read, first: {failed[0]}")
    merged = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    return ImageScores(**merged), tuple(failed)


def _read(
    threads: ThreadPoolExecutor, preprocess: Preprocess, images: LabelledImages, part: range
) -> _Batch:
    def read(position: int) -> Tensor | str:
        try:
            return preprocess(images.read(position))
        except DataError as error:
            return str(error)

    results = dict(zip(part, threads.map(read, part), strict=True))
    readable = {key: value for key, value in results.items() if isinstance(value, Tensor)}
    return _Batch(
        positions=list(readable),
        inputs=list(readable.values()),
        failed=[value for value in results.values() if isinstance(value, str)],
    )


def _require_finite(logits: Tensor) -> None:
    if not torch.isfinite(logits).all():
        raise ModelError("the network's outputs are not finite numbers; train it anew")


def _columns(
    logits: Tensor, labels: npt.NDArray[np.int64], temperature: float
) -> dict[str, npt.NDArray[Any]]:
    """Of logits (views, B, classes), in float64, what `ImageScores` holds of B images."""
    truth = torch.from_numpy(labels)[:, None]
    logs = _mean_log_softmax(logits / temperature)
    raw_logs = _mean_log_softmax(logits)
    of_truth = logs.gather(1, truth)
    predicted, raw_predicted = logs.argmax(dim=1), raw_logs.argmax(dim=1)
    columns = {
        "labels": truth[:, 0],
        "predicted": predicted,
        "ranks": (logs > of_truth).sum(dim=1),
        "confidences": logs.amax(dim=1).exp(),
        "losses": -of_truth[:, 0],
        "raw_predicted": raw_predicted,
        "raw_confidences": raw_logs.amax(dim=1).exp(),
        "raw_losses": -raw_logs.gather(1, truth)[:, 0],
    }
    return {name: column.numpy() for name, column in columns.items()}


def _mean_log_softmax(logits: Tensor) -> Tensor:
    """Logarithms (B, classes) of the probabilities, averaged over the views (views, B, classes)."""
    return logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))
