"""How fast a trained choice is, and those beside it: measured together, in turn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cmtscale.arch.errors import ModelError
from cmtscale.deploy.bench import bench
from cmtscale.deploy.bench_request import BenchRequest
from cmtscale.deploy.subjects import Subject
from cmtscale.record.model_folder import find_model, read_description
from cmtscale.record.winner import TrainedNetwork, WinnerRecord


def timed(
    folder: Path,
    record: WinnerRecord,
    device: str,
    *,
    watch: Callable[[str], None] = lambda _: None,
) -> WinnerRecord:
    """The record with the latencies of all networks that have a model.

    Measured anew as soon as one lacks its own: what is compared was measured in one run.
    """
    subjects = [
        subject for trained in record.networks if (subject := _subject(folder, trained)) is not None
    ]
    trained_folders = {subject.name for subject in subjects}
    lacking = [
        trained
        for trained in record.networks
        if trained.folder in trained_folders and trained.latency_seconds is None
    ]
    if not lacking:
        return record
    measured = bench(subjects, BenchRequest(device=device), watch=watch)
    medians = {one.name: one.median_seconds for one in measured.measurements}
    p95s = {one.name: one.p95_seconds for one in measured.measurements}
    networks = tuple(
        replace(
            trained,
            latency_seconds=medians.get(trained.folder),
            p95_seconds=p95s.get(trained.folder),
        )
        for trained in record.networks
    )
    return replace(record, networks=networks, timed=measured.conditions)


def _subject(folder: Path, trained: TrainedNetwork) -> Subject | None:
    """The network of a training, under the name of its folder; None without a model."""
    try:
        description, _ = read_description(find_model(folder / trained.folder))
    except ModelError:  # it did not come to its end, or its folder is gone
        return None
    return Subject(name=trained.folder, network=description.network)
