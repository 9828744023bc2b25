"""A GPU's memory that is too small: micro-batches of the same batch, or an infeasible run."""

import math
import weakref

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from cmtscale.arch.errors import StoppedError
from cmtscale.model.cmt import CMT
from cmtscale.record.metrics import read_metrics
from cmtscale.train import loop
from cmtscale.train.loop import train
from cmtscale.train.micro_batches import AtOnce, MicroBatches, halved_until_it_fits
from cmtscale.train.testing import read_test_split

CPU = torch.device("cpu")


class Memory:
    """Holds so many images `at_once`; remembers how many each forward pass was of, and by whom."""

    def __init__(self, at_once):
        self.at_once = at_once
        self.training, self.scoring = [], []
        self.networks = []

    def hold(self, network, images):
        if not any(ref() is network for ref in self.networks):
            self.networks.append(weakref.ref(network))
        (self.training if network.training else self.scoring).append(len(images))
        if len(images) > self.at_once:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def memory(monkeypatch):
    """A function that makes the memory as small as it is told."""
    forward = CMT.forward

    def install(at_once):
        small = Memory(at_once)

        def checked(network, images):
            small.hold(network, images)
            return forward(network, images)

        monkeypatch.setattr(CMT, "forward", checked)
        return small

    return install


@pytest.fixture
def coarse_run(make_run, make_variant):
    """A run whose network trains with one image; the arguments are a recipe's."""

    def make(**recipe):
        return make_run(variant=make_variant(resolution_px=64), **recipe)

    return make


# ------------------------------------------------------------------------------ the same batch


@pytest.mark.parametrize(("batch_size", "at_once"), [(20, 10), (20, 5), (25, 12), (20, 2)])
def test_gradients_are_those_of_the_whole_batch(make_run, memory, monkeypatch, batch_size, at_once):
    """Statistics stand still, as those of BatchNorm would be of fewer images."""
    gradients = []
    clip = torch.nn.utils.clip_grad_norm_

    def remember(parameters, limit):
        gradients.append([parameter.grad.clone() for parameter in parameters])
        return clip(parameters, limit)

    def stand_still(model, _step):
        for norm in model.modules():
            if isinstance(norm, _BatchNorm):
                norm.eval()

    monkeypatch.setattr(loop, "set_momentum", stand_still)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", remember)
    run = make_run(epochs=1, batch_size=batch_size)
    losses = [train(run, device=CPU).train_loss]
    whole = gradients.copy()
    gradients.clear()
    memory(at_once)
    losses.append(train(run, device=CPU).train_loss)
    assert len(gradients) == len(whole) == 60 // batch_size  # one clip and one step for a batch
    for one, other in zip(whole[0], gradients[0], strict=True):
        largest = one.abs().max()  # sums of float32 in another order
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5 * float(largest) + 1e-8)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_nothing_that_a_run_computes_is_larger_than_what_fits(make_run, memory):
    small = memory(6)
    result = train(make_run(), device=CPU)
    assert result.status == "complete"
    assert result.cause == (
        "memory: batches of 20 in micro-batches of 5; BatchNorm saw as many images at a time; "
        "scored with BatchNorm's statistics of 3 images at once, not 60"
    )
    assert small.training == [20, 10] + 2 * 3 * 4 * [5]
    assert small.scoring[:4] == [60, 30, 15, 7]  # each once: the second epoch begins at 3
    assert max(small.scoring[4:]) == 3
    assert all(map(math.isfinite, (result.val_loss, result.train_loss)))


def test_a_run_that_fits_says_nothing_of_memory(make_run, memory):
    small = memory(128)  # an estimation of BatchNorm's statistics is of 60
    assert train(make_run(), device=CPU).cause == ""
    assert (set(small.training), max(small.scoring)) == ({20}, 60)


@pytest.mark.parametrize(("batch_size", "at_once"), [(24, 30), (2, 2)])
def test_scoring_alone_may_need_smaller_parts(make_run, memory, batch_size, at_once):
    run = make_run(batch_size=batch_size, epochs=1)
    whole = train(run, device=CPU)
    small = memory(at_once)
    result = train(run, device=CPU)
    assert result.status == "complete"
    assert result.cause == (
        f"memory: scored with BatchNorm's statistics of {at_once} images at once, not 60"
    )
    assert set(small.training) == {batch_size}
    assert result.train_loss == whole.train_loss
    assert small.scoring[0] == 60  # the estimation, which did not fit
    assert small.scoring[-1] <= at_once


def test_halvings_begin_at_the_images_of_a_step(make_run, memory):
    small = memory(40)
    result = train(make_run(batch_size=1000, epochs=1), device=CPU)
    assert result.cause.startswith("memory: batches of 60 in micro-batches of 30; ")
    assert small.training == [60, 30, 30]


def test_the_test_split_is_read_in_parts_that_fit(make_run, memory, tmp_path):
    run = make_run(epochs=1)
    train(run, device=CPU, folder=tmp_path)
    whole = read_test_split(run, device=CPU, folder=tmp_path)
    small = memory(7)
    assert read_test_split(run, device=CPU, folder=tmp_path) == whole
    assert small.scoring[:3] == [20, 10, 5]
    assert max(small.scoring[2:]) == 5


def test_the_test_split_is_read_in_the_parts_of_the_validation(make_run, memory, tmp_path):
    run = make_run(epochs=1)
    memory(7)
    train(run, device=CPU, folder=tmp_path)
    small = memory(7)
    read_test_split(run, device=CPU, folder=tmp_path)
    assert small.scoring[0] == max(small.scoring) == 7


# ------------------------------------------------------------------------------ going on


def test_it_goes_on_from_its_newest_checkpoint(make_run, memory, tmp_path):
    small, lines = memory(60), []

    def shrink(line):
        lines.append(line)
        if "val_accuracy" in line:
            small.at_once = 10

    result = train(make_run(), device=CPU, folder=tmp_path, watch=shrink)
    assert result.status == "complete"
    assert [line["step"] for line in lines] == [3, 3, 6, 6]  # the first epoch is not repeated
    assert read_metrics(tmp_path) == lines
    assert small.training == 3 * [20] + [20] + 3 * 2 * [10]
    assert result.cause.startswith(
        "memory: batches of 20 from step 4 on in micro-batches of 10; BatchNorm saw as many images"
    )


def test_the_step_from_which_memory_was_short_is_kept(make_run, memory, tmp_path):
    small, lines = memory(60), []

    def shrink(line):
        lines.append(line)
        if "val_accuracy" in line:
            small.at_once = 10

    run, answers = make_run(), iter(18 * [False] + [True])  # after step 5
    with pytest.raises(StoppedError):
        train(run, device=CPU, folder=tmp_path, watch=shrink, check_in=lambda: next(answers, False))
    small.at_once = 5
    result = train(run, device=CPU, folder=tmp_path)
    assert result.cause.startswith(
        "memory: batches of 20 from step 4 on in micro-batches of 10, from step 6 on in "
        "micro-batches of 5; BatchNorm saw"
    )


def test_a_run_that_goes_on_keeps_the_size(make_run, memory, tmp_path):
    run, answers = make_run(), iter([False, True])
    memory(5)
    with pytest.raises(StoppedError):
        train(run, device=CPU, folder=tmp_path, check_in=lambda: next(answers))
    small = memory(5)
    result = train(run, device=CPU, folder=tmp_path)
    assert result.status == "complete"
    assert small.training == 4 * 4 * [5]  # of four steps


def test_what_did_not_fit_is_given_back_before_the_next_attempt(make_run, memory, monkeypatch):
    emptied = []
    small = memory(5)

    def empty():
        emptied.append([ref() for ref in small.networks])

    monkeypatch.setattr(torch.cuda, "empty_cache", empty)
    assert train(make_run(), device=CPU).status == "complete"
    assert emptied[:2] == [[None], [None, None]]  # no network is left, nor its graph
    assert all(left.count(None) == 2 for left in emptied[2:])  # the one that is scored again stays


# ------------------------------------------------------------------------------ infeasible


def test_where_one_image_does_not_fit_the_run_is_infeasible(coarse_run, memory, tmp_path):
    small = memory(0)
    result = train(coarse_run(), device=CPU, folder=tmp_path)
    assert result.status == "infeasible"
    assert result.cause == "memory: one image of 1x64x64 does not fit into that of cpu"
    assert result.val_loss is result.train_loss is None
    assert result.seconds > 0
    assert small.training == [20, 10, 5, 2, 1]
    assert all(ref() is None for ref in small.networks)


def test_one_image_at_a_time_trains(coarse_run, memory):
    small = memory(1)
    result = train(coarse_run(epochs=1), device=CPU)
    assert result.status == "complete"
    assert result.cause.startswith(
        "memory: batches of 20 in micro-batches of 1; BatchNorm saw as many images at a time; "
    )
    assert small.training == [20, 10, 5, 2] + 60 * [1]


def test_where_batch_norm_needs_two_images_two_are_the_fewest(make_run, memory):
    small = memory(1)  # at 32 px the last stage has one value per channel and image
    result = train(make_run(), device=CPU)
    assert (result.status, small.training) == ("infeasible", [20, 10, 5, 2])
    assert result.cause == (
        "memory: 2 images of 1x32x32, the fewest that BatchNorm trains with in batches of 20, "
        "do not fit into that of cpu"
    )


def test_a_batch_that_does_not_go_into_twos_is_refused_for_what_was_tried(make_run, memory):
    small = memory(2)
    result = train(make_run(batch_size=5), device=CPU)
    assert (result.status, small.training) == ("infeasible", [5, 3])
    assert result.cause.startswith("memory: 3 images of 1x32x32, the fewest that BatchNorm trains")


def test_the_memory_that_was_too_small_is_named(make_variant, monkeypatch):
    class Properties:
        total_memory = 11_930_000_000

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    refusal = MicroBatches.of(make_variant(resolution_px=64), 1)
    assert refusal.refusal(make_variant(resolution_px=64), torch.device("cuda:1")) == (
        "memory: one image of 1x64x64 does not fit into that of cuda:1, 11.9 GB"
    )


def test_the_hosts_memory_is_another_matter(make_run, monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(CMT, "forward", refuse)
    with pytest.raises(MemoryError):
        train(make_run(), device=CPU)


# ------------------------------------------------------------------------------ parts


@pytest.mark.parametrize(
    ("images", "fewest", "batch", "sizes"),
    [
        (64, 1, 64, [64]),
        (64, 1, 128, [64, 64]),
        (16, 1, 64, [16, 16, 16, 16]),
        (12, 1, 25, [9, 8, 8]),
        (2, 2, 5, [3, 2]),  # never one alone
        (2, 1, 5, [2, 2, 1]),
        (16, 1, 3, [3]),
        (16, 2, 1, [1]),
    ],
)
def test_parts_are_as_good_as_equal_and_never_too_small(images, fewest, batch, sizes):
    parts = AtOnce(images=images, fewest=fewest).parts(torch.arange(batch))
    assert [len(part) for part in parts] == sizes
    assert torch.equal(torch.cat(parts), torch.arange(batch))


def test_unequal_parts_are_named_by_their_sizes():
    words = MicroBatches(batch=25, images=12).words([(1, 12)])
    assert words.startswith("batches of 25 in micro-batches of 8 to 9; BatchNorm saw")


def test_halvings_end_at_the_fewest_and_raise_there():
    at_once, asked = AtOnce(images=9), []

    def attempt():
        asked.append(at_once.images)
        raise torch.OutOfMemoryError("2 GiB wanted")

    with pytest.raises(torch.OutOfMemoryError, match="2 GiB wanted"):
        halved_until_it_fits(attempt, at_once)
    assert asked == [9, 4, 2, 1]
