"""From a request to settings without defaults and packed images, before anything is trained."""

from collections.abc import Callable
from dataclasses import replace

from cmtscale.data.dataset import Dataset, training_part
from cmtscale.data.sources import open_source, parse_spec
from cmtscale.search.candidates import largest_resolution, require_trainable
from cmtscale.search.executors.base import Executor
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.settings import Settings, stored_settings
from cmtscale.search.time_budget import fitted


def prepare(
    request: SearchRequest, executor: Executor, note: Callable[[str], None]
) -> tuple[Settings, Dataset]:
    """The settings, whose networks have the images' classes and channels, and the packed images.

    What the folder of the request has fixed already (`request.out`: its twin, the side its images
    are packed for) is taken from there where the request leaves it open. A search that has only so
    much time gets twins and lengths of runs that fit into it.
    """
    stored = stored_settings(request.out) if request.out else None
    if stored is not None:
        request = _with_stored_twin(request, stored)
    path = parse_spec(request.data).path
    if path is not None and path.is_dir():
        note(f"reading {path}; its images are packed once, see `cmtscale cache`")
    source = open_source(request.data, split_seed=request.split_seed, cache_dir=request.cache_dir)
    if request.max_seconds is not None and stored is None:
        request = fitted(request, source.describe(), executor, note)
    settings = resolve(request, source.describe())
    require_trainable(settings)
    pack_px = stored.pack_px if stored else largest_resolution(settings)
    dataset = source.pack(pack_px)
    training_part(dataset, settings.recipe.train_images)  # fewer than classes are refused here
    settings = replace(
        settings,
        data_hash=dataset.content_hash,
        pack_px=pack_px,
        precision=settings.recipe.precision_on(executor.devices[0].split(":")[0]),
    )
    return settings, dataset


def _with_stored_twin(request: SearchRequest, stored: Settings) -> SearchRequest:
    """The request with the folder's twin, where it leaves the twin open.

    A search that has only so much time keeps the lengths of its runs, too.
    """
    if request.max_seconds is not None:
        is_open = (request.recipe, request.epochs, request.train_images) == (None, None, None)
        recipe = stored.recipe if is_open else request.recipe
        ladder = request.ladder or stored.ladder
        request = replace(
            request, ladder=ladder, recipe=recipe, proxy=request.proxy and stored.proxy
        )
    is_open = request.proxy_base is None and request.proxy_macs is None
    if not (request.proxy and stored.proxy and is_open):
        return request
    return replace(request, proxy_base=stored.trained_base, proxy_macs=stored.trained_macs)
