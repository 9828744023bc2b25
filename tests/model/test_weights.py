"""The authors' checkpoints load whole or not at all."""

import argparse
import re
from dataclasses import replace

import pytest
import torch

from cmtscale.arch.errors import WeightsError
from cmtscale.model.cmt import build
from cmtscale.model.weights import load_published, published_state_dict, rename_published


@pytest.fixture
def source(tiny):
    return published_state_dict(build(tiny))


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_a_checkpoint_survives_the_round_trip(tiny, source):
    model = build(tiny)
    assert not same(published_state_dict(model), source)
    load_published(model, source)
    assert same(published_state_dict(model), source)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_ema", "state_dict_ema"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes_are_removed(tiny, source, wrapper, prefix):
    model = build(tiny)
    load_published(model, {wrapper: {prefix + k: v for k, v in source.items()}, "epoch": 3})
    assert same(published_state_dict(model), source)


def test_averaged_weights_are_taken_where_there_are_any(tiny, source):
    averaged = published_state_dict(build(tiny))
    model = build(tiny)
    for taken, checkpoint, options in (
        (averaged, {"model": source, "model_ema": averaged}, {}),
        (source, {"model": source, "model_ema": averaged}, {"ema": False}),
        (source, {"model": source, "model_ema": None}, {}),  # the authors' CMT-Ti
    ):
        load_published(model, checkpoint, **options)
        assert same(published_state_dict(model), taken)
    with pytest.raises(WeightsError, match="averaged weights alone, model_ema; load it without"):
        load_published(model, {"model_ema": averaged, "epoch": 3}, ema=False)


def test_a_file_with_training_arguments_loads(tiny, source, tmp_path):
    path = tmp_path / "cmt.pth"
    torch.save({"model": source, "args": argparse.Namespace(lr=1e-3)}, path)
    model = build(tiny)
    load_published(model, str(path))
    assert same(published_state_dict(model), source)


def test_batch_counters_may_be_absent(tiny, source):
    without = {k: v for k, v in source.items() if not k.endswith("num_batches_tracked")}
    assert len(without) < len(source)
    model = build(tiny)
    load_published(model, without)
    assert same(published_state_dict(model), source)


def test_a_fault_loads_nothing_and_lists_the_keys(tiny, source):
    faulty = dict(source)
    del faulty["blocks_b.1.attn.k.weight"]
    faulty["relative_pos_e"] = torch.zeros(1)
    faulty["head.weight"] = torch.zeros(7, 1280)
    model = build(tiny)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_published(model, faulty)
    message = str(caught.value)
    assert "missing: blocks_b.1.attn.k.weight;" in message
    assert "left over: relative_pos_e;" in message
    assert "misshapen: head.weight 7x1280 for 5x1280;" in message
    assert "\n" not in message
    assert same(model.state_dict(), before)


def test_a_foreign_state_dict_is_refused_in_one_short_line(tiny):
    foreign = {f"layer{number}.weight": torch.zeros(1) for number in range(300)}
    with pytest.raises(WeightsError, match=r"left over: .* and 290 more") as caught:
        load_published(build(tiny), foreign)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"not a checkpoint", "torch.load"), (b"", "torch.load")],
)
def test_an_unreadable_file_is_one_clear_line(tiny, tmp_path, content, reason):
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=re.escape(reason)) as caught:
        load_published(build(tiny), path)
    assert "\n" not in str(caught.value)


def test_a_file_that_would_run_code_is_refused(tiny, tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"model": print}, path)
    with pytest.raises(WeightsError, match="tensors"):
        load_published(build(tiny), path)
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="holds a list"):
        load_published(build(tiny), path)


def test_renamed_tensors_are_those_of_the_network_and_may_have_other_classes(tiny, source):
    model = build(tiny)
    load_published(model, source)
    assert same(rename_published(model, source), model.state_dict())
    other = build(replace(tiny, num_classes=9, in_channels=1))
    assert same(rename_published(other, source), model.state_dict())
    wider = build(replace(tiny, resolution_px=96))
    with pytest.raises(WeightsError, match="misshapen: relative_pos_a 1x256x4 for 1x576x9, "):
        rename_published(wider, source)
    with pytest.raises(WeightsError, match=r"missing: _bn\.bias"):
        rename_published(model, {})
