"""Mean and deviation of a training's images, estimated once and kept in its folder."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cmtscale.data.stream import ImageSet, estimate_moments
from cmtscale.record.files import read_json, write_json
from cmtscale.train.full_run import FullRun
from cmtscale.train.processes import Processes

MOMENTS = "images.json"


def with_moments(run: FullRun, image_set: ImageSet, folder: Path, processes: Processes) -> FullRun:
    """The run with the mean and deviation of its images, estimated once for its folder."""
    if image_set.moments is not None:
        return run

    def moments() -> tuple[tuple[float, ...], tuple[float, ...]]:
        with suppress(FileNotFoundError):
            kept = read_json(folder / MOMENTS)
            return tuple(kept["mean"]), tuple(kept["std"])
        spec = run.preprocessing
        mean, std = estimate_moments(
            image_set, side_px=spec.stored_px, crop_fraction=spec.crop_fraction
        )
        write_json(folder / MOMENTS, {"mean": mean, "std": std})
        return mean, std

    mean, std = processes.first(moments)
    return replace(run, preprocessing=replace(run.preprocessing, mean=mean, std=std))
