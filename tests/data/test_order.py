"""The order of an epoch: one list that every number of processes and accumulations shares."""

from collections import Counter

import pytest

from cmtscale.data.order import PartSampler, TrainingOrder


def make_order(**changes):
    return TrainingOrder(
        **{"images": 50, "batch_images": 12, "parts": 1, "repeats": 1, "seed": 0, **changes}
    )


def drawn(order, parts, *, first=0, last=8):
    return list(PartSampler(order, parts=parts, first_step=first, last_step=last))


def test_an_epoch_is_a_permutation_of_which_the_last_small_batch_is_left_out():
    order = make_order()
    assert sorted(order.epoch(0)) == list(range(50))
    assert order.epoch(0) != order.epoch(1)
    assert order.epoch(0) != make_order(seed=1).epoch(0)
    assert order.steps_per_epoch == 4
    seen = [draw.image for batch in drawn(order, range(1), last=4) for draw in batch]
    assert seen == order.epoch(0)[:48]


@pytest.mark.parametrize("images", [50, 600])
def test_with_repeats_an_epoch_sees_fewer_images_as_often(images):
    order = make_order(images=images, repeats=3)
    counts = Counter(order.epoch(2))
    assert sum(counts.values()) == images
    assert sorted(counts.values())[1:] == [3] * (len(counts) - 1)
    assert order.epoch(2) != order.epoch(3)


def test_parts_share_a_steps_images_and_spread_its_repeats():
    whole = drawn(make_order(repeats=3), range(1))
    parts = [drawn(make_order(repeats=3, parts=3), range(part, part + 1)) for part in range(3)]
    for step, batch in enumerate(whole):
        dealt = [part[step] for part in parts]
        assert sorted(draw for some in dealt for draw in some) == sorted(batch)
        assert all(len({draw.image for draw in some}) == 4 for some in dealt)  # no image twice


def test_two_processes_see_what_one_accumulates():
    order = make_order(parts=4)
    alone = drawn(order, range(4))
    first, second = drawn(order, range(2)), drawn(order, range(2, 4))
    assert alone[0::4] == first[0::2]
    assert alone[1::4] == first[1::2]
    assert alone[2::4] == second[0::2]
    assert alone[3::4] == second[1::2]


def test_a_training_goes_on_at_any_step_with_what_it_would_have_seen():
    order = make_order(repeats=2, parts=2)
    whole = drawn(order, range(2))
    for step in (1, 3, 4, 7):
        assert drawn(order, range(2), first=step) == whole[2 * step :]
    assert len({draw[1:] for batch in whole for draw in batch}) == 8 * 12  # each place is seen once
