"""How far the runs are that go on now, from their logs."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cmtscale.record.metrics import read_metrics
from cmtscale.record.worker import Worker, read_worker
from cmtscale.search.executors.base import Job
from cmtscale.search.jobs import TrainRun
from cmtscale.train.recipe import Recipe
from cmtscale.train.run_time import part_done


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """A run that goes on: the `part` of its work that is done, its speed so far, and where."""

    run_id: str
    part: float
    images_per_second: float
    worker: Worker | None


def under_way(jobs: Iterable[Job], val_images: int) -> list[tuple[TrainRun, UnderWay]]:
    """The training runs among these jobs; after each epoch they evaluate so many images."""
    return [
        (job, run_under_way(job.folder, job.run.recipe, val_images))
        for job in jobs
        if isinstance(job, TrainRun)
    ]


def run_under_way(folder: Path, recipe: Recipe, val_images: int) -> UnderWay:
    """How far the run in this folder is, which is named after it."""
    lines, worker = read_metrics(folder), read_worker(folder)
    if not lines:
        return UnderWay(run_id=folder.name, part=0.0, images_per_second=0.0, worker=worker)
    assert recipe.train_images is not None
    images, seconds = lines[-1]["images"], lines[-1]["seconds"]
    ended_epochs = sum("val_accuracy" in line for line in lines)
    sizes = {"train_images": recipe.train_images, "val_images": val_images}
    return UnderWay(
        run_id=folder.name,
        part=part_done(images, ended_epochs, recipe, **sizes),
        images_per_second=images / seconds if seconds else 0.0,
        worker=worker,
    )
