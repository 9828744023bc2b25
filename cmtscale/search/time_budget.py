"""What fits into the time that a search is given: how large twins, how long runs.

Larger twins are nearer to the real networks, so they come first: their steps are timed, from small
to large, until a search of them no longer fits. Where not even the smallest fit on three rungs,
runs get fewer lengths; where the real networks fit, they get longer.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from cmtscale.arch.budget import format_duration
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


# In the order that they are tried in; the second is for targets out of the first one's reach.
LENGTHS = (
    Length(ladder=PRESETS["standard"]),
    Length(ladder=PRESETS["thorough"]),
    Length(ladder=PRESETS["quick"]),
    Length(ladder=Ladder(rungs=1)),
    Length(ladder=Ladder(rungs=1, noise_degrees=4)),  # some noise is known, and the rest decided
    Length(ladder=PRESETS["flat"]),
    Length(ladder=PRESETS["flat"], images=LEAST_IMAGES),
)


def fitted(
    request: SearchRequest, data: Description, executor: Executor, note: Callable[[str], None]
) -> SearchRequest:
    """The request with the largest twins that its time allows, and runs as long as fit.

    What it says of either stays; a tour stays as it is. Whether runs share a GPU is measured for
    the twins that are chosen here: a search then ends sooner, or decides more. Raises
    `RequestError` where nothing fits.
    """
    assert request.max_seconds is not None
    if request.data == TOUR_DATA:
        return request
    usable = [length for length in LENGTHS if _says_something(request, length, data)]
    if not usable:
        _settings(request, LENGTHS[0], data)  # raises, and says why
    note("planning: training steps of twins are timed, from small to large")
    slots = len(executor.devices)
    room = FOR_RUNS * request.max_seconds * slots
    (size, settings), *larger = _sizes(request, usable[0], data)
    candidates = grid(settings)
    seconds = _seconds_per_image(settings, executor)
    needs = [
        seconds * _images(_settings(size, length, data), candidates, data) for length in usable
    ]
    fitting = [length for length, need in zip(usable, needs, strict=True) if need <= room]
    if not fitting:
        least = math.ceil(min(needs) / FOR_RUNS / slots)
        raise RequestError(
            f"{format_duration(request.max_seconds)} is too short: the smallest twins with the "
            f"shortest runs take about {format_duration(least)}; give more time (--max-time), or "
            f"try fewer candidates (--trials)"
        )
    length = fitting[0]
    if length != usable[0]:
        return _with_length(size, length, data)
    for grown_size, grown in larger:
        grown_candidates = grid(grown)
        images = _images(grown, grown_candidates, data)
        if seconds / settings.trained_macs * grown.trained_macs * images > _HOPELESS * room:
            break
        try:
            require_trainable(grown)
            grown_seconds = _seconds_per_image(grown, executor)
        except RequestError:  # more than the memory holds
            break
        if grown_seconds * images > room:
            break
        size, settings, candidates, seconds = grown_size, grown, grown_candidates, grown_seconds
    else:  # the largest fit
        for longer in _longer(data):
            if _says_something(size, longer, data):
                if seconds * _images(_settings(size, longer, data), candidates, data) > room:
                    break
                length = longer
    return _with_length(size, length, data)


def _sizes(
    request: SearchRequest, length: Length, data: Description
) -> Iterator[tuple[SearchRequest, Settings]]:
    """The request with ever larger twins, and at last with the real networks."""
    settings = _settings(request, length, data)
    if not request.proxy or request.proxy_base is not None or request.proxy_macs is not None:
        yield request, settings
        return
    request = replace(request, base=settings.base)  # it is not solved for again
    macs = 0.0
    for network in reversed(twin_bases(settings.base)):
        if cost(network).macs >= _LEAST_STEP * macs:
            size = replace(request, proxy_base=network)
            settings = _settings(size, length, data)
            if settings.trained_macs < request.budget_macs:
                macs = cost(network).macs
                yield size, settings
    real = replace(request, proxy=False)
    yield real, _settings(real, length, data)


def _longer(data: Description) -> Iterator[Length]:
    """Four rungs, then ever longer ones, as long as a run of the first sees no image twice."""
    images = IMAGES_SEEN
    while images <= data.train_images:
        yield Length(ladder=PRESETS["thorough"], images=images)
        images *= GROWTH


def _with_length(request: SearchRequest, length: Length, data: Description) -> SearchRequest:
    """The request with runs of this length, where it leaves it open."""
    request = replace(request, ladder=request.ladder or length.ladder)
    is_open = request.train_images is None and request.epochs is None and request.recipe is None
    if not is_open or length.images == IMAGES_SEEN:
        return request
    count = min(length.images, data.train_images)
    return replace(request, epochs=math.ceil(length.images / count), train_images=count)


def _settings(request: SearchRequest, length: Length, data: Description) -> Settings:
    """What it resolves to with runs of this length, without a limit on latencies.

    Nothing was timed yet, so all candidates could be within it.
    """
    return resolve(replace(_with_length(request, length, data), max_latency_seconds=None), data)


def _says_something(request: SearchRequest, length: Length, data: Description) -> bool:
    """Whether runs of this length say something of the target that was asked for."""
    try:
        _settings(request, length, data)
    except RequestError:
        if request.target_images is None and request.target_epochs is None:
            raise
        return False
    return True


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
