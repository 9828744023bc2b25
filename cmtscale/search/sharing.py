"""How many runs share each GPU, measured before a search trains.

A small network leaves a GPU idle between the launches of its kernels, so that several at a time may
train more images a second. They are doubled as long as that pays.
"""

from collections.abc import Callable
from dataclasses import replace

from cmtscale.arch.cost import cost
from cmtscale.arch.variant import Variant
from cmtscale.search.candidates import extreme_networks
from cmtscale.search.executors.base import Executor, Failure, carry_out_all
from cmtscale.search.jobs import CountImages
from cmtscale.search.settings import Settings
from cmtscale.search.timings import Timings, of_device

GAIN = 1.15  # that twice the runs need: each takes longer, and the last ones leave slots idle
COUNTED_SECONDS = 3.0


def share_devices(
    settings: Settings, timings: Timings, executor: Executor, note: Callable[[str], None]
) -> Timings:
    """Let as many runs share each device as are fastest; `timings` with what was measured for it.

    What they have already is not measured again. An executor whose slots are fixed stays as it is,
    and no more run at a time than the search asks for at first.
    """
    timings = of_device(timings, executor.devices[0].split(":")[0])
    first_runs = settings.trials * settings.seeds
    most = min(executor.most_shared, first_runs // len(executor.devices))
    if most < 2:
        executor.share(1)
        return timings
    speeds = list(timings.shared_images_per_second)
    measured = len(speeds)
    share = 1
    for level in range(most.bit_length()):  # 1, 2, 4, … runs
        if level == len(speeds):
            if level == measured:
                note("planning: training steps of runs that share a GPU are timed")
            speeds.append(_images_per_second(2**level, settings, executor, note))
        if not speeds[level] or (level and speeds[level] < GAIN * speeds[level - 1]):
            break
        share = 2**level
    executor.share(share)
    if len(speeds) > measured and share > 1:  # steps were timed with a device for each
        timings = replace(timings, seconds_per_image={})
    return replace(timings, shared_images_per_second=tuple(speeds))


def _images_per_second(
    runs: int, settings: Settings, executor: Executor, note: Callable[[str], None]
) -> float:
    """Of all that share a device together; 0 where one of them fails.

    First each trains the network that takes the most memory: runs whose batches have to be halved
    would come out otherwise than alone. That starts the workers, too.
    """
    executor.share(runs)
    recipe = settings.run_recipe(0)
    assert recipe.train_images is not None
    batch = min(recipe.batch_size, recipe.train_images)
    slots, devices = len(executor.devices), len(set(executor.devices))
    speeds: list[float] = []
    for network, seconds in ((_largest(settings), 0.0), (_typical(settings), COUNTED_SECONDS)):
        job = CountImages(network=network, recipe=recipe, batch=batch, seconds=seconds)
        results = [result for _, result in carry_out_all(executor, iter([job] * slots))]
        for result in results:
            if isinstance(result, Failure):
                note(f"{runs} at a time on a GPU do not go: {result.cause}")
                return 0.0
        speeds = results
    return sum(speeds) / devices


def _largest(settings: Settings) -> Variant:
    """Of the base and the corners the one whose training takes the most memory."""
    return max(extreme_networks(settings), key=lambda network: cost(network).activations)


def _typical(settings: Settings) -> Variant:
    """Of the corners and the centre, all of about equal MACs, one of median depth.

    Each block is so many launches.
    """
    _, *networks = extreme_networks(settings)  # the base is not of their size
    return sorted(networks, key=lambda network: sum(network.depths))[len(networks) // 2]
