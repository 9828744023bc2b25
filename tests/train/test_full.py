"""A full training: resumed to the bit, scored as its model will be, and safe in what it writes."""

import errno
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import cmtscale
from cmtscale.arch.errors import DoesNotFitError, RequestError, StoppedError, TrainingError
from cmtscale.arch.network import TimmNetwork
from cmtscale.data.order import TrainingOrder
from cmtscale.data.sources import open_source
from cmtscale.data.stream import packed_images
from cmtscale.record.metrics import append_metrics, read_metrics
from cmtscale.record.model_folder import find_model, read_description
from cmtscale.record.reads import readings
from cmtscale.train.augment import make_augment
from cmtscale.train.evaluate import fit_temperature
from cmtscale.train.full_run import FullRun
from cmtscale.train.tensorboard import tensorboard_watch


def weights(folder):
    return cmtscale.load_model(folder).model.state_dict()


def assert_same_weights(one, other):
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture
def look_often(monkeypatch):
    monkeypatch.setattr("cmtscale.train.full_loop.LOG_STEPS", 1)


def stop_at(step, number=signal.SIGTERM):
    def watch(line):
        if line["step"] == step and "val_accuracy" not in line:
            os.kill(os.getpid(), number)

    return watch


def test_the_model_scores_images_as_its_training_did(full, few_digits, tmp_path):
    result, accuracy = full(tmp_path / "out", test=True)
    model, preprocess, classes = cmtscale.load_model(tmp_path / "out")
    for part, expected in (("val", result.val_accuracy), ("test", accuracy)):
        indices = getattr(few_digits.splits, part)
        images = torch.stack([preprocess(few_digits.images.open(int(index))) for index in indices])
        labels = torch.from_numpy(few_digits.labels[indices])
        with torch.inference_mode():  # in the batches of training
            logits = torch.cat([model(some) for some in images.split(32)]).double()
        assert float((logits.argmax(1) == labels).double().mean()) == expected
        if part == "val":
            temperature = fit_temperature(logits, labels)
            assert float(F.cross_entropy(logits / temperature, labels)) == pytest.approx(
                result.val_loss, abs=1e-12
            )
    assert classes == few_digits.class_names


def test_small_images_are_resized_once_as_in_training(full, full_recipe, few_digits, tmp_path):
    plain = replace(
        full_recipe, crop_fraction=1.0, smallest_crop=1.0, rand_augment=None, random_erasing=0.0,
        colour_jitter=0.0, epochs=1, warmup_epochs=0.1,
    )  # fmt: skip
    full(tmp_path, recipe=plain)
    _, preprocess, _ = cmtscale.load_model(tmp_path)
    spec = read_description(find_model(tmp_path))[0].preprocessing
    assert spec.stored_px == spec.resolution_px == 32
    train = make_augment(plain, spec, may_flip=False)
    for index in few_digits.splits.val[:5]:
        image = few_digits.images.open(int(index))
        assert image.size == (8, 8)
        assert torch.allclose(preprocess(image), train(image), atol=1e-5)  # of sums in float32


def test_what_a_training_leaves_says_all_of_it(full, full_recipe, tmp_path):
    result, _ = full(tmp_path)
    description = read_description(find_model(tmp_path))[0]
    assert description.recipe["mixup"] == 0.8
    assert description.recipe["clip_norm"] == "none"
    assert description.recipe.keys() == vars(full_recipe).keys()
    assert description.training.images_seen == 2 * 3 * 32
    assert description.scores.val_accuracy == result.val_accuracy
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [3, 3, 6, 6]
    assert 0 <= lines[0]["loader_share"] <= 1
    assert lines[0]["images_per_second"] > 0


@pytest.mark.usefixtures("look_often")
@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_training_stopped_in_an_epoch_ends_as_if_it_had_not(full, tmp_path, step, number):
    whole, _ = full(tmp_path / "whole")
    with pytest.raises(StoppedError, match="the same command goes on") as caught:
        full(tmp_path / "stopped", watch=stop_at(step, number))
    assert caught.value.exit_code == 128 + number
    lines, plans = [], []
    resumed, _ = full(tmp_path / "stopped", watch=lines.append, planned=plans.append)
    assert [plan.steps_done for plan in plans] == [step]
    assert lines[0]["step"] == step + 1
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    for name in ("val_loss", "val_accuracy", "temperature", "train_loss"):
        assert getattr(resumed, name) == getattr(whole, name)


def test_a_training_stopped_while_it_validates_goes_on_with_that(full, tmp_path, monkeypatch):
    whole, _ = full(tmp_path / "whole")
    from cmtscale.train.scoring import Scorer

    load = Scorer.load

    def stop(self, network):
        load(self, network)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Scorer, "load", stop)
    with pytest.raises(StoppedError):
        full(tmp_path / "stopped")
    monkeypatch.undo()
    resumed, _ = full(tmp_path / "stopped")
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    steps = [line["step"] for line in read_metrics(tmp_path / "stopped")]
    assert steps == [3, 3, 6, 6]
    assert resumed.train_loss == whole.train_loss


@pytest.mark.usefixtures("look_often")
def test_a_validation_that_was_logged_but_not_kept_is_logged_once(full, tmp_path):
    with pytest.raises(StoppedError):
        full(tmp_path, watch=stop_at(3))  # the last step of an epoch, before its validation

    # killed then between the line of the validation and the checkpoint
    append_metrics(tmp_path, {"step": 3, "val_accuracy": 0.1, "val_loss_raw": 9.9, "seconds": 1.0})
    full(tmp_path)
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines if "val_accuracy" in line] == [3, 6]
    assert [line["step"] for line in lines if "train_loss" in line] == [1, 2, 3, 4, 5, 6]


def test_parts_in_a_step_decide_a_training_not_who_sees_them(full, full_recipe, tmp_path):
    full(tmp_path)
    halves = replace(full_recipe, accumulate=2)
    with pytest.raises(RequestError, match=r"\(its step_parts differs\)"):
        full(tmp_path, recipe=halves)
    run = FullRun(
        network=TimmNetwork(model="test_resnet", resolution_px=32),
        recipe=full_recipe,
        step_parts=4,
        seed=0,
        data_hash="",
        preprocessing=read_description(find_model(tmp_path))[0].preprocessing,
    )
    assert replace(run, recipe=halves).identity == run.identity
    assert replace(run, step_parts=2).identity != run.identity
    shared = replace(full_recipe, sync_batch_norm=True)
    in_halves = replace(shared, accumulate=2)
    assert replace(run, recipe=shared).identity != replace(run, recipe=in_halves).identity


@pytest.mark.usefixtures("look_often")
def test_a_model_says_on_what_it_was_trained(full, tmp_path, monkeypatch):
    with pytest.raises(StoppedError):
        full(tmp_path, watch=stop_at(1))
    monkeypatch.setattr(torch, "compile", lambda network: network)
    full(tmp_path, compiled=True)
    training = read_description(find_model(tmp_path))[0].training
    assert training.device == "cpu; then cpu, compiled"


def test_the_number_of_workers_changes_no_bit(full, tmp_path):
    full(tmp_path / "none")
    full(tmp_path / "two", workers=2)
    assert_same_weights(tmp_path / "none", tmp_path / "two")


def test_another_seed_is_another_training(full, tmp_path):
    one, _ = full(tmp_path / "one")
    other, _ = full(tmp_path / "other", seed=1)
    assert one.val_loss != other.val_loss
    with pytest.raises(RequestError, match=r"\(its seed differs\)"):
        full(tmp_path / "one", seed=1)


def test_the_same_command_again_repeats_nothing_and_may_read_the_test_split_once(full, tmp_path):
    first, nothing = full(tmp_path)
    lines = []
    again, _ = full(tmp_path, watch=lines.append)
    assert (again, nothing, lines) == (first, None, [])
    assert readings(tmp_path) == []
    _, accuracy = full(tmp_path, test=True)
    assert full(tmp_path, test=True)[1] == accuracy
    (reading,) = readings(tmp_path)
    assert (reading.images, reading.accuracy) == (40, accuracy)
    assert read_description(find_model(tmp_path))[0].scores.test_accuracy == accuracy


@pytest.mark.usefixtures("look_often")
def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_checkpoint(
    full, full_recipe, tmp_path
):
    with pytest.raises(StoppedError):
        full(tmp_path, watch=stop_at(1), recipe=replace(full_recipe, lr=1e30))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    result, _ = full(tmp_path, recipe=replace(full_recipe, lr=1e30))
    assert result.status == "diverged"
    assert result.cause == "loss not finite at step 3 of 6"
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.usefixtures("look_often")
def test_a_full_disk_leaves_the_old_checkpoint(full, tmp_path, monkeypatch):
    with pytest.raises(StoppedError):
        full(tmp_path / "full", watch=stop_at(1))
    before = (tmp_path / "full" / "checkpoint.pt").read_bytes()

    def no_space(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(line):
        if line["step"] == 2:
            monkeypatch.setattr("cmtscale.record.files.os.fsync", no_space)
            stop_at(2)(line)

    with pytest.raises(OSError, match="No space left"):
        full(tmp_path / "full", watch=fill)
    monkeypatch.undo()
    assert (tmp_path / "full" / "checkpoint.pt").read_bytes() == before
    assert not list((tmp_path / "full").glob(".checkpoint.pt.*"))
    full(tmp_path / "full")
    full(tmp_path / "whole")
    assert_same_weights(tmp_path / "whole", tmp_path / "full")


def test_a_batch_that_cannot_be_dealt_is_refused_and_claims_no_folder(full, full_recipe, tmp_path):
    with pytest.raises(RequestError, match=r"batch_size 33 cannot be dealt to 1 parts .*; use 32"):
        full(tmp_path, recipe=replace(full_recipe, batch_size=33))
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


@pytest.fixture
def tree(tmp_path):
    """Two classes of 20 coloured images of other sizes, told apart by their brightness."""
    random = np.random.RandomState(0)
    for name, least in (("dark", 0), ("light", 100)):
        folder = tmp_path / "tree" / name
        folder.mkdir(parents=True)
        for number in range(20):
            shape = (30 + number, 50, 3)
            pixels = random.randint(least, least + 120, shape).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "tree"


@pytest.mark.usefixtures("look_often")
def test_a_folder_of_images_trains_and_a_cut_file_breaks_it_off_with_a_checkpoint(
    full, full_recipe, tree, tmp_path
):
    recipe = replace(full_recipe, batch_size=8, repeats=1, checkpoint_seconds=1e-9)
    image_set = open_source(f"folder:{tree}").stream()

    def train(folder, **changes):
        return full(folder, recipe=recipe, image_set=image_set, **changes)

    whole, _ = train(tmp_path / "whole")
    moments = json.loads((tmp_path / "whole" / "images.json").read_text())
    spec = read_description(find_model(tmp_path / "whole"))[0].preprocessing
    assert (list(spec.mean), list(spec.std)) == (moments["mean"], moments["std"])
    order = TrainingOrder(images=28, batch_images=8, parts=1, repeats=1, seed=0).epoch(0)
    last = tree.joinpath(*image_path(image_set, order[23]).parts[-2:])  # of the third, last step
    content = last.read_bytes()

    def cut(line):
        if line["step"] == 2:
            last.write_bytes(content[:200])

    message = rf"{last.name} cannot be read: .*then the same command goes on"
    with pytest.raises(TrainingError, match=message) as caught:
        train(tmp_path / "cut", watch=cut)
    assert caught.value.exit_code == 1
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    last.write_bytes(content)
    image_set = open_source(f"folder:{tree}").stream()
    lines = []
    mended, _ = train(tmp_path / "cut", watch=lines.append)
    assert lines[0]["step"] == 3
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    assert mended.val_loss == whole.val_loss


def image_path(image_set, position):
    index = image_set.splits.train[position]
    return Path(os.fsdecode(image_set.images.names[index]))


def test_a_network_of_timm_trains_fully(full, full_recipe, few_digits, tmp_path):
    recipe = replace(full_recipe, epochs=1, warmup_epochs=0.1, dropout=0.0)
    network = TimmNetwork(model="test_resnet", resolution_px=32)
    result, accuracy = full(tmp_path, network=network, recipe=recipe, test=True)
    assert result.status == "complete"
    model, preprocess, _ = cmtscale.load_model(tmp_path)
    images = [few_digits.images.open(int(index)) for index in few_digits.splits.test]
    with torch.inference_mode():
        logits = model(torch.stack([preprocess(image) for image in images]))
    labels = torch.from_numpy(few_digits.labels[few_digits.splits.test])
    assert float((logits.argmax(1) == labels).double().mean()) == accuracy


def test_a_full_training_learns(full, full_recipe, digits, tmp_path):
    gentle = replace(
        full_recipe, epochs=4, lr=0.04, mixup=0.0, cutmix=0.0, rand_augment=None, repeats=1
    )
    gentle = replace(gentle, random_erasing=0.0, smallest_crop=0.6, crop_fraction=1.0, dropout=0.0)
    result, _ = full(tmp_path, recipe=gentle, image_set=packed_images(digits))
    assert result.val_accuracy > 0.6


def test_what_is_scored_and_kept_is_the_average_of_the_weights(full, full_recipe, tmp_path):
    full(tmp_path / "averaged")
    full(tmp_path / "last", recipe=replace(full_recipe, ema_decay=None))
    averaged = torch.load(tmp_path / "averaged" / "checkpoint.pt")
    last = torch.load(tmp_path / "last" / "checkpoint.pt")
    name = "head.classifier.weight"
    assert torch.equal(weights(tmp_path / "averaged")[name], averaged["ema"][name])
    assert torch.equal(weights(tmp_path / "last")[name], last["network"][name])
    assert torch.equal(averaged["network"][name], last["network"][name])  # trained alike


def test_epochs_between_validations_are_not_scored(full, full_recipe, tmp_path):
    full(tmp_path, recipe=replace(full_recipe, epochs=3, validation_epochs=2))
    scored = [line["step"] for line in read_metrics(tmp_path) if "val_accuracy" in line]
    assert scored == [6, 9]


def test_gradients_are_clipped_and_accumulated_and_bfloat16_trains(full, full_recipe, tmp_path):
    recipe = replace(full_recipe, clip_norm=1e-9, accumulate=2, precision="bf16")
    result, _ = full(tmp_path, recipe=recipe)
    assert result.status == "complete"
    assert read_description(find_model(tmp_path))[0].recipe["precision"] == "bf16"


def test_a_compiled_network_keeps_the_names_of_its_weights(full, tmp_path, monkeypatch):
    compiled = []

    def compile_network(network):
        compiled.append(network)
        return lambda images: network(images)

    monkeypatch.setattr(torch, "compile", compile_network)
    full(tmp_path / "compiled", compiled=True)
    full(tmp_path / "plain")
    assert len(compiled) == 1
    assert_same_weights(tmp_path / "compiled", tmp_path / "plain")


def test_tensorboard_gets_the_log_where_it_is_installed(full, tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def flush(self):
            pass

        def close(self):
            written.append("closed")

    installed = SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", installed)
    result, _ = full(tmp_path)
    assert written[0] == (tmp_path / "tensorboard", 3)
    assert ("val_accuracy", result.val_accuracy, 6) in written
    assert written[-1] == "closed"
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with tensorboard_watch(tmp_path) as watch:
        assert watch is None


def test_what_does_not_fit_into_memory_says_what_to_do_and_claims_no_folder(
    full, full_recipe, tmp_path, monkeypatch
):
    def too_large(*_):
        (tmp_path / "tensorboard").mkdir()  # of a first line that was logged
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr("cmtscale.train.full.train_fully", too_large)
    message = r"not fit into the memory of cpu with 32 images at a time; use --accumulate 2$"
    with pytest.raises(DoesNotFitError, match=message) as caught:
        full(tmp_path)
    assert (caught.value.parts, caught.value.is_begun, caught.value.exit_code) == (2, False, 2)
    assert not (tmp_path / "tensorboard").exists()
    with pytest.raises(RequestError, match=r"16 images at a time; use --accumulate 4$"):
        full(tmp_path, recipe=replace(full_recipe, accumulate=2))
    with pytest.raises(RequestError, match=r"2 images at a time; use a smaller --batch-size or"):
        full(tmp_path, recipe=replace(full_recipe, accumulate=16))
    monkeypatch.undo()
    assert full(tmp_path, seed=3)[0].status == "complete"


@pytest.mark.usefixtures("look_often")
def test_what_no_longer_fits_into_memory_goes_on_or_begins_elsewhere(full, tmp_path, monkeypatch):
    with pytest.raises(StoppedError):
        full(tmp_path, watch=stop_at(1))

    def too_large(*_, **__):
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    monkeypatch.setattr("cmtscale.train.full.train_fully", too_large)
    message = "the same command goes on; or begin anew with --accumulate 2 and another --out$"
    with pytest.raises(DoesNotFitError, match=message) as caught:
        full(tmp_path)
    assert (caught.value.parts, caught.value.is_begun) == (2, True)
    assert caught.value.exit_code == 1
    monkeypatch.undo()
    monkeypatch.setattr("cmtscale.train.full_conclude.save_model", too_large)
    with pytest.raises(TrainingError, match=r"is trained, and does not fit .* while it is scored"):
        full(tmp_path)
    monkeypatch.undo()
    full(tmp_path)
    assert find_model(tmp_path) == tmp_path / "model"


def test_a_training_killed_before_its_result_is_scored_again(full, tmp_path):
    whole, _ = full(tmp_path)
    (tmp_path / "result.json").unlink()
    again, _ = full(tmp_path)
    for name in ("val_loss", "val_accuracy", "temperature", "train_loss"):
        assert getattr(again, name) == getattr(whole, name)
