"""What fits into the time that a search is given: how large twins, how long runs.

Larger twins are nearer to the real networks, so they come first: their steps are timed, from small
to large, until a search of them no longer fits. Where not even the smallest fit on three rungs,
runs get fewer lengths; where the real networks fit, they get longer.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.twins import twin_bases
from cmtscale.data.dataset import Description
from cmtscale.search.candidates import Candidate, extreme_networks, grid, require_trainable
from cmtscale.search.executors.base import Executor
from cmtscale.search.ladder import GROWTH, PRESETS, Ladder
from cmtscale.search.request import TOUR_DATA, SearchRequest
from cmtscale.search.resolve import IMAGES_SEEN, resolve
from cmtscale.search.runs import fixed_runs
from cmtscale.search.settings import Settings
from cmtscale.search.timings import FOR_RUNS, Timings, allowance, seconds_of, with_steps

LEAST_IMAGES = 3_200  # of a run: a hundred steps
_LEAST_STEP = 1.5  # in MACs, between two twin bases that are tried
_HOPELESS = 3.0  # times the time: what is estimated to take so long is not even timed
_SECOND_AN_IMAGE = Timings(seconds_per_image={"": 1.0})


@dataclass(frozen=True, kw_only=True)
class Length:
    """A ladder, and the images that a run of its first rung sees."""

    ladder: Ladder
    images: int = IMAGES_SEEN


SHORTER = (  # what is tried first comes first
    Length(ladder=PRESETS["standard"]),
    Length(ladder=PRESETS["quick"]),
    Length(ladder=Ladder(rungs=1)),
    Length(ladder=PRESETS["flat"]),
    Length(ladder=PRESETS["flat"], images=LEAST_IMAGES),
)


def fitted(
    request: SearchRequest, data: Description, executor: Executor, note: Callable[[str], None]
) -> SearchRequest:
    """The request with the largest twins that its time allows, and runs as long as fit.

    What it says of either stays; a tour stays as it is. Raises `RequestError` where nothing fits.
    """
    assert request.max_seconds is not None
    if request.data == TOUR_DATA:
        return request
    note("planning: training steps of twins are timed, from small to large")
    slots = len(executor.devices)
    room = FOR_RUNS * request.max_seconds * slots
    smallest, *larger = _twins(request, data)
    candidates = grid(resolve(smallest, data))
    seconds = _seconds_per_image(resolve(smallest, data), executor)
    tried = [_with_length(smallest, length) for length in SHORTER]
    needs = [seconds * _images(resolve(one, data), candidates, data) for one in tried]
    taken = next((one for one, need in zip(tried, needs, strict=True) if need <= room), None)
    if taken is None:
        raise RequestError(
            f"{request.max_seconds} seconds are too short: the smallest twins with the shortest "
            f"runs take about {math.ceil(min(needs) / FOR_RUNS / slots)}; give more time "
            f"(--max-time), or try fewer candidates (--trials)"
        )
    if taken != tried[0]:
        return taken
    macs = resolve(taken, data).trained_macs
    for option in larger:
        grown = _with_length(option, SHORTER[0])
        settings = resolve(grown, data)
        candidates = grid(settings)
        images = _images(settings, candidates, data)
        if seconds / macs * settings.trained_macs * images > _HOPELESS * room:
            return taken
        try:
            require_trainable(settings)
            grown_seconds = _seconds_per_image(settings, executor)
        except RequestError:  # more than the memory holds
            return taken
        if grown_seconds * images > room:
            return taken
        taken, seconds, macs = grown, grown_seconds, settings.trained_macs
    for length in _longer(data):
        longer = _with_length([smallest, *larger][-1], length)
        if seconds * _images(resolve(longer, data), candidates, data) > room:
            return taken
        taken = longer
    return taken


def _twins(request: SearchRequest, data: Description) -> Iterator[SearchRequest]:
    """The request with ever larger twins, and at last with the real networks."""
    if not request.proxy or request.proxy_base is not None or request.proxy_macs is not None:
        yield request
        return
    base = resolve(request, data).base
    request = replace(request, base=base)  # it is not solved for again
    macs = 0.0
    for network in reversed(twin_bases(base)):
        option = replace(request, proxy_base=network)
        if cost(network).macs >= _LEAST_STEP * macs and (
            resolve(option, data).trained_macs < request.budget_macs
        ):
            macs = cost(network).macs
            yield option
    yield replace(request, proxy=False)


def _longer(data: Description) -> Iterator[Length]:
    """Four rungs, then ever longer ones, as long as a run of the first sees no image twice."""
    images = IMAGES_SEEN
    while images <= data.train_images:
        yield Length(ladder=PRESETS["thorough"], images=images)
        images *= GROWTH


def _with_length(request: SearchRequest, length: Length) -> SearchRequest:
    """The request with runs of this length, where it leaves it open."""
    request = replace(request, ladder=request.ladder or length.ladder)
    is_open = request.train_images is None and request.epochs is None and request.recipe is None
    if not is_open or length.images == IMAGES_SEEN:
        return request
    return replace(request, epochs=1, train_images=length.images)


def _images(settings: Settings, candidates: Sequence[Candidate], data: Description) -> float:
    """What the whole search of a grid takes, in training steps of one image each."""
    settings = replace(settings, max_seconds=None)
    worth = [
        seconds_of(settings, _SECOND_AN_IMAGE, "", rung, data.val_images)
        for rung in range(settings.ladder.rungs)
    ]
    certain = sum(worth[run.rung] for run in fixed_runs(settings, candidates))
    last = [worth[-1] for candidate in candidates if candidate.role != "base"]
    return max(certain, allowance(settings, last, slots=1))


def _seconds_per_image(settings: Settings, executor: Executor) -> float:
    """Of a training step, mean over the corners of the triangle and the paper's constants."""
    _, *networks = extreme_networks(settings)  # the base is not of their size
    timings = with_steps(Timings(), networks, settings, executor)
    return sum(timings.seconds_per_image.values()) / len(timings.seconds_per_image)
