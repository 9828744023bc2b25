"""From a request to packed images and settings without defaults, before anything is written."""

from collections.abc import Callable
from dataclasses import replace

from cmtscale.arch.errors import CmtscaleError
from cmtscale.data.pack import Dataset
from cmtscale.data.sources import parse_source
from cmtscale.search.candidates import largest_resolution, require_trainable
from cmtscale.search.open import stored_settings
from cmtscale.search.request import SearchRequest, Settings, resolve
from cmtscale.train.loop import open_data, training_indices
from cmtscale.train.recipe import DataRef


def prepare(
    request: SearchRequest, device: str, note: Callable[[str], None]
) -> tuple[DataRef, Dataset, Settings]:
    """The packed images, and the settings, whose networks have their classes and channels.

    What the folder of the request has fixed already (`request.out`: its twin, the side its images
    are packed for) is taken from there where the request leaves it open.
    """
    stored = stored_settings(request.out) if request.out else None
    if stored is not None:
        request = _with_stored_twin(request, stored)
    data = DataRef(
        source=request.data,
        resolution_px=stored.pack_px if stored else _largest_resolution(request),
        split_seed=request.split_seed,
        cache_dir=request.cache_dir,
    )
    path = parse_source(request.data).path
    if path is not None and path.is_dir():
        note(f"reading {path}; its images are packed once, see `cmtscale cache`")
    while True:
        dataset = open_data(data)
        settings = resolve(
            request,
            num_classes=dataset.num_classes,
            channels=dataset.channels,
            train_images=len(dataset.splits.train),
            data_hash=dataset.content_hash,
            pack_px=data.resolution_px,
        )
        require_trainable(settings)
        training_indices(dataset, settings.recipe)  # fewer images than classes are refused here
        if stored or largest_resolution(settings) <= data.resolution_px:
            break
        # many classes: a dearer head
        data = replace(data, resolution_px=largest_resolution(settings))
    precision = settings.recipe.precision_on(device.split(":")[0])
    data = replace(data, content_hash=dataset.content_hash)
    return data, dataset, replace(settings, precision=precision)


def _with_stored_twin(request: SearchRequest, stored: Settings) -> SearchRequest:
    """The request with the folder's twin, where it leaves the twin open."""
    is_open = request.proxy_base is None and not request.proxy_macs
    if not (request.proxy and stored.proxy and is_open):
        return request
    return replace(request, proxy_base=stored.trained_base, proxy_macs=stored.trained_macs)


def _largest_resolution(request: SearchRequest) -> int:
    """The largest side in px for whatever number of classes and channels the data turn out to have.

    Raises what makes the request senseless for all of them, before images are packed.
    """
    sides, refusals = [], []
    for num_classes, channels in ((2, 1), (1000, 3)):  # the cheapest networks and dear ones
        try:
            settings = resolve(
                request, num_classes=num_classes, channels=channels, train_images=2**31
            )
            require_trainable(settings)
            sides.append(largest_resolution(settings))
        except CmtscaleError as error:
            refusals.append(error)
    if not sides:
        raise refusals[0]
    return max(sides)
