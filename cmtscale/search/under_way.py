"""How far the runs are that go on now, from their logs."""

from collections.abc import Iterable
from dataclasses import dataclass

from cmtscale.record.metrics import read_metrics
from cmtscale.search.executors.base import Job
from cmtscale.search.jobs import TrainRun
from cmtscale.train.run_time import part_done


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """A run that goes on: the `part` of its work that is done, and its speed so far."""

    job: TrainRun
    part: float
    images_per_second: float


def under_way(jobs: Iterable[Job], val_images: int) -> list[UnderWay]:
    """The training runs among these jobs; after each epoch they evaluate so many images."""
    return [_under_way(job, val_images) for job in jobs if isinstance(job, TrainRun)]


def _under_way(job: TrainRun, val_images: int) -> UnderWay:
    lines = read_metrics(job.folder)
    if not lines:
        return UnderWay(job=job, part=0.0, images_per_second=0.0)
    recipe = job.run.recipe
    assert recipe.train_images is not None
    images, seconds = lines[-1]["images"], lines[-1]["seconds"]
    ended_epochs = sum("val_accuracy" in line for line in lines)
    sizes = {"train_images": recipe.train_images, "val_images": val_images}
    return UnderWay(
        job=job,
        part=part_done(images, ended_epochs, recipe, **sizes),
        images_per_second=images / seconds if seconds else 0.0,
    )
