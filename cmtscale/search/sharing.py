"""How many runs share each GPU, measured before a search trains.

A small network leaves a GPU idle between the launches of its kernels, so that several at a time may
train more images a second. They are doubled as long as that pays.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cmtscale.arch.cost import cost
from cmtscale.arch.variant import Variant
from cmtscale.data.dataset import Dataset
from cmtscale.search.candidates import extreme_networks
from cmtscale.search.executors.base import Executor, Failure, Job, carry_out_all
from cmtscale.search.jobs import AskCard, CountImages, MeasureMemory
from cmtscale.search.settings import Settings
from cmtscale.search.timings import Sharing, Timings, of_device, of_slots

if TYPE_CHECKING:
    from cmtscale.train.gpu_memory import Card

# twice the runs must train this many times the images a second; below that, longer single runs and
# idle slots at the end cost more
GAIN = 1.15
USABLE_FRACTION = 0.8  # of a card's memory; the rest is for what is not measured, as fragmentation
COUNTED_SECONDS = 3.0


def share_devices(
    settings: Settings,
    dataset: Dataset,
    timings: Timings,
    executor: Executor,
    note: Callable[[str], None],
) -> Timings:
    """Let as many runs share each device as are fastest; `timings` with what was measured for it.

    What they have already of the same card is not measured again. No more runs share a card than
    fit into its memory with their images, and no more go at a time than the search asks for at
    first. An executor whose slots are fixed stays as it is; others have one slot on each device.
    """
    timings = of_device(timings, executor.devices[0])
    most = min(executor.most_shared, settings.trials * settings.seeds // len(executor.devices))
    if most > 1 and (sharing := _of_this_card(settings, timings.sharing, executor, note)):
        if timings.sharing and sharing is not timings.sharing:  # steps are of another card
            timings = replace(timings, seconds_per_image={})
        fitting = _fitting(settings, dataset, sharing)
        share, speeds = _fastest(settings, sharing, most, fitting, executor, note)
        timings = replace(timings, sharing=replace(sharing, images_per_second=speeds))
        executor.share(share)
    return of_slots(timings, executor.devices)


def _of_this_card(
    settings: Settings, known: Sharing | None, executor: Executor, note: Callable[[str], None]
) -> Sharing | None:
    """What is known if it is of the executor's card, else its memory measured anew.

    The smallest of several. None where a job fails.
    """
    cards: list[Card] | None = _on_all_slots(AskCard(), executor, note)
    if cards is None:
        return None
    name = ", ".join(sorted({card.name for card in cards}))
    card_bytes = min(card.memory_bytes for card in cards)
    if known and (known.card, known.card_bytes) == (name, card_bytes):
        return known
    recipe = settings.run_recipe(0)
    job = MeasureMemory(network=_largest(settings), recipe=recipe, batch=recipe.batch_size)
    taken: list[int] | None = _on_all_slots(job, executor, note)
    if taken is None:
        return None
    return Sharing(card=name, card_bytes=card_bytes, run_bytes=max(taken))


def _fitting(settings: Settings, dataset: Dataset, sharing: Sharing) -> float:
    """How many runs fit into a card's memory, each with the images that it holds there."""
    from cmtscale.data.batches import held_bytes  # loads torch

    counts = (max(images for _, images in settings.horizons), len(dataset.splits.val))
    images_bytes = held_bytes(dataset, counts, free_bytes=sharing.card_bytes)
    run_bytes = sharing.run_bytes + images_bytes
    return USABLE_FRACTION * sharing.card_bytes / run_bytes if run_bytes else math.inf


def _fastest(
    settings: Settings,
    sharing: Sharing,
    most: int,
    fitting: float,
    executor: Executor,
    note: Callable[[str], None],
) -> tuple[int, tuple[float, ...]]:
    """How many runs share a device best, and all speeds that are known after this."""
    speeds = list(sharing.images_per_second)
    share = 1
    for level in range(most.bit_length()):  # 1, 2, 4, … runs
        runs = 2**level
        if runs > max(1, fitting):
            note(f"{runs} runs at a time do not fit into the memory of a GPU ({sharing.card})")
            break
        if level == len(speeds):
            if level == len(sharing.images_per_second):
                note("planning: training steps of runs that share a GPU are timed")
            speed = _images_per_second(runs, settings, executor, note)
            if speed is None:
                break
            speeds.append(speed)
        if level and speeds[level] < GAIN * speeds[level - 1]:
            break
        share = runs
    return share, tuple(speeds)


def _images_per_second(
    runs: int, settings: Settings, executor: Executor, note: Callable[[str], None]
) -> float | None:
    """Of all that share a device together; None where one of them fails."""
    executor.share(runs)
    recipe = settings.run_recipe(0)
    assert recipe.train_images is not None
    job = CountImages(
        network=_typical(settings),
        recipe=recipe,
        batch=min(recipe.batch_size, recipe.train_images),
        seconds=0.0,
    )
    devices = len(set(executor.devices))
    if _on_all_slots(job, executor, note) is None:  # starts the workers, and loads kernels
        return None
    speeds = _on_all_slots(replace(job, seconds=COUNTED_SECONDS), executor, note)
    return None if speeds is None else sum(speeds) / devices


def _on_all_slots(job: Job, executor: Executor, note: Callable[[str], None]) -> list[Any] | None:
    """The results of a job that each slot carries out at the same time; None if one fails."""
    jobs = [job] * len(executor.devices)
    results = [result for _, result in carry_out_all(executor, iter(jobs))]
    for result in results:
        if isinstance(result, Failure):
            note(f"whether more runs can share a GPU is not known: {result.cause}")
            return None
    return results


def _largest(settings: Settings) -> Variant:
    """Of the base and the corners the one whose training takes the most memory."""
    return max(extreme_networks(settings), key=lambda network: cost(network).activations)


def _typical(settings: Settings) -> Variant:
    """Of the corners and the centre, all of about equal MACs, one of median depth.

    Each block is so many launches.
    """
    _, *networks = extreme_networks(settings)  # the base is not of their size
    return sorted(networks, key=lambda network: sum(network.depths))[len(networks) // 2]
