"""What training and predicting take on the machine that searches.

Decisions weigh what a run would tell against the time that it takes. Before a network has trained,
a few of its steps are timed, which other work on the machine can slow by any factor; afterwards its
runs say it. Both are kept in `timings.json`.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError, ResultsError
from cmtscale.arch.variant import Variant
from cmtscale.record.files import read_json, write_json
from cmtscale.record.folder import TIMINGS
from cmtscale.record.row import Row
from cmtscale.search.executors.base import Executor, Failure, Job, carry_out_all
from cmtscale.search.jobs import TimePrediction, TimeSteps
from cmtscale.search.ladder import REFERENCE_SEEDS
from cmtscale.search.runs import ended_rows
from cmtscale.search.settings import Settings
from cmtscale.train.run_time import run_seconds

FOR_RUNS = 0.9  # of a search's time; the rest is for packing images, latencies and the test split
TIMING_SECONDS = 20.0  # networks not timed by then are estimated by their MACs


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """What was measured for runs that share a GPU: a `card` by its name, with `card_bytes`.

    `run_bytes` is what the network that takes the most takes of them, without its images.
    `images_per_second` are what 1, 2, 4, … runs train together.
    """

    card: str
    card_bytes: int
    run_bytes: int
    images_per_second: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "images_per_second", tuple(self.images_per_second))
        sizes = (self.card_bytes, self.run_bytes)
        if not isinstance(self.card, str) or not all(isinstance(s, int) and s >= 0 for s in sizes):
            raise ValueError(f"{self.card!r} of {sizes} bytes is no card")
        if not all(isinstance(s, float) and 0 < s < math.inf for s in self.images_per_second):
            raise ValueError(f"{self.images_per_second} are not all images a second")


@dataclass(frozen=True, kw_only=True)
class Timings:
    """`seconds_per_image` of a training step by trained network, `latency_seconds` by real one.

    All on a `device` of one type, such as `cpu`; steps with `share` runs on each GPU. `sharing` is
    what that was chosen by (None: nothing was measured).
    """

    device: str = ""
    share: int = 1
    seconds_per_image: Mapping[str, float] = field(default_factory=dict)
    latency_seconds: Mapping[str, float] = field(default_factory=dict)
    sharing: Sharing | None = None

    def save(self, folder: Path) -> None:
        """Write `timings.json`, atomically."""
        write_json(folder / TIMINGS, asdict(self))


def read_timings(folder: Path) -> Timings:
    """What a folder has; empty where it has none. Raises `ResultsError` if it is damaged."""
    path = folder / TIMINGS
    try:
        table = read_json(path)
    except FileNotFoundError:
        return Timings()
    for name in ("share", "sharing"):  # older files have none
        table.setdefault(name, getattr(Timings(), name))
    is_whole = table.keys() == asdict(Timings()).keys() and all(
        isinstance(times, dict)
        and all(isinstance(t, float) and 0 < t < math.inf for t in times.values())
        for times in (table["seconds_per_image"], table["latency_seconds"])
    )
    try:
        if not (is_whole and isinstance(table["device"], str) and isinstance(table["share"], int)):
            raise ValueError
        if table["sharing"] is not None:
            table["sharing"] = Sharing(**table["sharing"])
    except (TypeError, ValueError):
        words = f"{path} is damaged; restore it, or remove it (it is measured again)"
        raise ResultsError(words) from None
    return Timings(**table)


def seconds_of(
    settings: Settings, timings: Timings, network: str, rung: int, val_images: int
) -> float:
    """Estimated seconds of one run of a trained network; of the mean one if it has no time."""
    known = timings.seconds_per_image
    recipe = settings.run_recipe(rung)
    assert recipe.train_images is not None
    return run_seconds(
        known.get(network, sum(known.values()) / max(1, len(known))),
        recipe,
        train_images=recipe.train_images,
        val_images=val_images,
    )


def allowance(settings: Settings, last_rung_seconds: Sequence[float], slots: int) -> float:
    """What all runs together may take: the search's time on so many slots, if it has one.

    Else it is the ladder's share of what one run of each candidate takes at the last rung.
    """
    if settings.max_seconds is not None:
        return FOR_RUNS * settings.max_seconds * slots
    return settings.ladder.spend * REFERENCE_SEEDS * sum(last_rung_seconds)


def of_device(timings: Timings, device: str) -> Timings:
    """`timings` if they are of the type of this device; else none."""
    device_type = device.split(":")[0]
    return timings if timings.device == device_type else Timings(device=device_type)


def of_slots(timings: Timings, devices: Sequence[str]) -> Timings:
    """`timings` of the type of these slots' devices; steps only if as many runs shared a GPU.

    Slots of a CPU have a core each, so that they share nothing.
    """
    timings = of_device(timings, devices[0])
    share = 1 if timings.device == "cpu" else math.ceil(len(devices) / len(set(devices)))
    return (
        timings if timings.share == share else replace(timings, share=share, seconds_per_image={})
    )


def with_steps(
    timings: Timings, networks: Iterable[Variant], settings: Settings, executor: Executor
) -> Timings:
    """`timings` with the seconds of a training step per image of all `networks`, all slots busy.

    Steps are timed at the batch size of the runs. After 20 s no more are begun: networks that have
    no time by then, or that do not fit into memory, are estimated by their MACs; where none of
    these fits they are taken to be as slow as the slowest of the others. Raises `RequestError` if
    there are no others.
    """
    known = timings.seconds_per_image
    macs = {network.name: cost(network).macs for network in networks}
    untimed = [network for network in networks if network.name not in known]
    if not untimed:
        return timings
    recipe = settings.run_recipe(0)
    assert recipe.train_images is not None
    batch = min(recipe.batch_size, recipe.train_images)
    began = time.monotonic()
    timed: dict[str, float] = {}

    def jobs() -> Iterator[Job]:
        for network in untimed:
            if not timed or time.monotonic() - began < TIMING_SECONDS:
                yield TimeSteps(network=network, recipe=recipe, batch=batch)

    failure = Failure(cause="")
    for job, result in carry_out_all(executor, jobs()):
        assert isinstance(job, TimeSteps)
        if isinstance(result, Failure):
            failure = result
        else:
            timed[job.network.name] = result
    if not timed and not known:
        raise RequestError(
            f"a training step could not be timed ({failure.cause}); if memory is short, search "
            f"with smaller twins (--proxy-macs); if a limit was, lengthen it"
        )
    if not timed:
        slowest = max(known.values())
        return replace(timings, seconds_per_image={**known, **{n.name: slowest for n in untimed}})
    per_mac = sum(timed.values()) / sum(macs[name] for name in timed)
    new = {n.name: timed.get(n.name, per_mac * macs[n.name]) for n in untimed}
    return replace(timings, seconds_per_image={**known, **new})


def with_runs(
    timings: Timings, rows: Iterable[Row], settings: Settings, val_images: int
) -> Timings:
    """`timings` with the seconds per image of whole runs, for all networks that have one."""
    seconds: dict[str, float] = {}
    images: dict[str, float] = {}
    for row in ended_rows(settings, rows).values():
        if row.status == "complete" and row.seconds:
            recipe = settings.run_recipe(settings.horizons.index(row.horizon))
            sizes = {"train_images": row.train_images, "val_images": val_images}
            worth = run_seconds(1.0, recipe, **sizes)
            seconds[row.candidate] = seconds.get(row.candidate, 0.0) + row.seconds
            images[row.candidate] = images.get(row.candidate, 0.0) + worth
    measured = {name: taken / images[name] for name, taken in seconds.items()}
    return replace(timings, seconds_per_image={**timings.seconds_per_image, **measured})


def with_latencies(
    timings: Timings, networks: Iterable[Variant], settings: Settings, executor: Executor
) -> Timings:
    """`timings` with the seconds that each real network takes for one image.

    They are measured together, interleaved, on one slot, all anew where one has none yet. Networks
    that cannot be run there have none.
    """
    networks = tuple(networks)
    if all(network.name in timings.latency_seconds for network in networks):
        return timings
    job = TimePrediction(networks=networks, recipe=settings.run_recipe(0))
    ((_, result),) = carry_out_all(executor, iter([job]))
    new = {} if isinstance(result, Failure) else result
    return replace(timings, latency_seconds={**timings.latency_seconds, **new})
