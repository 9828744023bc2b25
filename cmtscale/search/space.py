"""How much disk a search needs, from what it will train."""

from collections.abc import Sequence

from cmtscale.arch.cost import cost
from cmtscale.arch.variant import Variant
from cmtscale.data.epochs import batches_per_epoch
from cmtscale.train.recipe import Recipe

BYTES_PER_PARAM = 12  # of a checkpoint: fp32 weights, and the two moments of AdamW
BYTES_PER_BLOCK = 42_000  # of it: names and alignment of some 110 tensors, BatchNorm's statistics
WHILE_RUNNING = 2  # checkpoints more: the one before the newest, and one that is being written
BYTES_PER_STEP = 12  # a line of 120 for each 20 steps, in the run's log and in curves.csv
BYTES_PER_IMAGE = 6  # half precision: val_losses.npy and, twice while it is replaced, the gathered
RUN_BYTES = 25_000  # small files, blocks of 4 KiB each, and the run's lines in tables
INDEX_BYTES = 4_500_000  # study.db with its write-ahead log, which SQLite lets grow to 1,000 pages


def checkpoint_bytes(network: Variant) -> int:
    """A checkpoint of a run of this network."""
    return BYTES_PER_PARAM * cost(network).params + BYTES_PER_BLOCK * sum(network.depths)


def run_bytes(network: Variant, recipe: Recipe, val_images: int) -> int:
    """What a run that has ended keeps."""
    assert recipe.train_images is not None
    steps = recipe.epochs * batches_per_epoch(recipe.train_images, recipe.batch_size)
    logs = BYTES_PER_STEP * steps + BYTES_PER_IMAGE * val_images
    return checkpoint_bytes(network) + logs + RUN_BYTES


def search_bytes(
    left: Sequence[int], networks: Sequence[Variant], *, slots: int, further: float
) -> int:
    """The most that a search comes to need of the disk from now on.

    `left` are the bytes of the certain runs that have not ended, `further` those of what may be
    decided beside them; `networks` are trained at so many `slots` at a time. 0 where nothing is
    left.
    """
    if not left and not further:
        return 0
    at_a_time = slots if further else min(slots, len(left))
    running = WHILE_RUNNING * at_a_time * max(map(checkpoint_bytes, networks))
    return round(sum(left) + further + running) + INDEX_BYTES
