"""The training loop: repeatable to the bit, resumable, and divergence is reported."""

import functools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from cmtscale.arch.errors import DataError, StoppedError
from cmtscale.data.batches import device_split
from cmtscale.data.dataset import open_dataset, training_part
from cmtscale.model.cmt import build
from cmtscale.record.metrics import read_metrics
from cmtscale.train import loop
from cmtscale.train.autocast import make_autocast
from cmtscale.train.checkpoint import random_states, set_random_states
from cmtscale.train.evaluate import predict
from cmtscale.train.loop import first_bad_step, train
from cmtscale.train.optimizer import lr_factor
from cmtscale.train.progress import Progress
from cmtscale.train.recipe import Recipe
from cmtscale.train.testing import read_test_split

CPU = torch.device("cpu")
train_on_cpu = functools.partial(train, device=CPU)


def untimed(result):
    """A result without its times."""
    return replace(result, seconds=0.0, images_per_second=None)


def untimed_metrics(folder):
    return [
        {name: value for name, value in line.items() if name != "seconds"}
        for line in read_metrics(folder)
    ]


class KilledError(Exception):
    """Simulates `kill -9`: nothing is written after it."""


def kill_at_line(number):
    """A `watch` that ends the run when the log's line `number` is due (2 lines per epoch)."""
    lines = []

    def watch(line):
        lines.append(line)
        if len(lines) == number:
            raise KilledError

    return watch


# Dropout and drop path draw from torch's generator, order and shift from the run's own.
NOISY = {"epochs": 3, "dropout": 0.2, "drop_path": 0.2}


@pytest.fixture(scope="module")
def plain(make_run):
    """The result of the default run."""
    return untimed(train_on_cpu(make_run()))


@pytest.fixture(scope="module")
def noisy(make_run, tmp_path_factory):
    """Result and metrics of the noisy run."""
    folder = tmp_path_factory.mktemp("noisy")
    return untimed(train_on_cpu(make_run(**NOISY), folder=folder)), untimed_metrics(folder)


@pytest.fixture
def spy_on_loss(monkeypatch):
    """Count training losses (those with smoothing) and let `change` alter or refuse them."""
    real = F.cross_entropy

    def install(change):
        calls = []

        def cross_entropy(logits, labels, **options):
            loss = real(logits, labels, **options)
            if "label_smoothing" not in options:
                return loss
            calls.append(options["label_smoothing"])
            return change(len(calls), loss)

        monkeypatch.setattr(F, "cross_entropy", cross_entropy)
        return calls

    return install


# ------------------------------------------------------------------------------ repeatability


def test_the_same_seed_gives_the_same_result_to_the_bit(make_run, noisy, tmp_path):
    states = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        torch.randn(7)  # earlier draws of the process do not matter
        result = train_on_cpu(make_run(**NOISY), folder=folder)
        assert result.status == "complete"
        assert (untimed(result), untimed_metrics(folder)) == noisy
        states.append(torch.load(folder / "checkpoint.pt")["model"])
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_another_seed_gives_another_result(make_run, plain):
    other = train_on_cpu(make_run(seed=1))
    assert other.val_loss != plain.val_loss
    assert other.train_loss != plain.train_loss


def test_a_folder_or_a_watcher_changes_nothing(make_run, plain, tmp_path):
    entries = []
    logged = train_on_cpu(make_run(), folder=tmp_path, watch=entries.append)
    assert untimed(logged) == plain
    assert entries == read_metrics(tmp_path)


# ------------------------------------------------------------------------------ interruption


@pytest.mark.parametrize("line", [1, 3, 4, 6])
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(make_run, noisy, tmp_path, line):
    run, folder = make_run(**NOISY), tmp_path
    with pytest.raises(KilledError):
        train_on_cpu(run, folder=folder, watch=kill_at_line(line))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "images": 1')  # torn while being written
    torch.manual_seed(99)
    entries = []
    resumed = train_on_cpu(run, folder=folder, watch=entries.append)
    assert (untimed(resumed), untimed_metrics(folder)) == noisy
    epochs_kept = (line - 1) // 2
    assert len(entries) == 6 - 2 * epochs_kept  # finished epochs are not repeated
    seconds = [entry["seconds"] for entry in read_metrics(folder)]
    assert seconds == sorted(seconds)  # includes the time before the kill


def test_killed_twice_is_as_good_as_killed_once(make_run, noisy, tmp_path):
    run = make_run(**NOISY)
    for line in (4, 2):
        with pytest.raises(KilledError):
            train_on_cpu(run, folder=tmp_path, watch=kill_at_line(line))
    resumed = train_on_cpu(run, folder=tmp_path)
    assert (untimed(resumed), untimed_metrics(tmp_path)) == noisy


def test_killed_after_the_last_checkpoint_only_the_evaluation_is_repeated(make_run, tmp_path):
    run = make_run()
    first = train_on_cpu(run, folder=tmp_path)
    entries = []
    again = train_on_cpu(run, folder=tmp_path, watch=entries.append)
    assert untimed(again) == untimed(first)
    assert again.images_per_second == pytest.approx(first.images_per_second)
    assert again.seconds > first.seconds - 0.5
    assert entries == []
    assert len(read_metrics(tmp_path)) == 4


def test_the_checkpoint_of_another_run_is_ignored(make_run, plain, tmp_path):
    train_on_cpu(make_run(seed=5), folder=tmp_path)
    result = train_on_cpu(make_run(), folder=tmp_path)
    assert untimed(result) == plain
    assert len(read_metrics(tmp_path)) == 4


class Stopper:
    """A check-in that stops the run at its `number`-th call (from 1), once."""

    def __init__(self, number):
        self.left = number

    def __call__(self):
        self.left -= 1
        return self.left == 0


IN_SCORING = 1 + 13  # check-ins: of one estimation, and of the validation images in batches of 20
IN_EPOCH = 3 + IN_SCORING


def test_a_run_checks_in_after_each_step_and_each_batch_that_it_scores(make_run):
    counter = Stopper(0)
    train_on_cpu(make_run(**NOISY), check_in=counter)
    assert -counter.left == 3 * IN_EPOCH


@pytest.mark.parametrize(
    "number",
    [1, 2, 3, 4, 5, IN_EPOCH, *(2 * IN_EPOCH + n for n in (1, 3, 4, IN_EPOCH))],
)
def test_stopped_at_any_check_in_a_run_ends_as_if_nothing_had_been(
    make_run, noisy, tmp_path, number
):
    run = make_run(**NOISY)
    with pytest.raises(StoppedError, match="the same command goes on"):
        train_on_cpu(run, folder=tmp_path, check_in=Stopper(number))
    torch.manual_seed(99)
    resumed = train_on_cpu(run, folder=tmp_path)
    assert (untimed(resumed), untimed_metrics(tmp_path)) == noisy
    seconds = [entry["seconds"] for entry in read_metrics(tmp_path)]
    assert seconds == sorted(seconds)


def test_a_run_that_is_stopped_after_every_step_repeats_none(make_run, noisy, tmp_path):
    run, steps = make_run(**NOISY), []
    for done in range(9):
        is_scored_first = done in (3, 6)  # the stop came before
        with pytest.raises(StoppedError):
            train_on_cpu(run, folder=tmp_path, check_in=Stopper(1 + is_scored_first * IN_SCORING))
        steps.append(torch.load(tmp_path / "checkpoint.pt")["step"])
    assert steps == list(range(1, 10))
    result = train_on_cpu(run, folder=tmp_path)
    assert (untimed(result), untimed_metrics(tmp_path)) == noisy


def test_killed_between_timed_checkpoints_a_run_repeats_less_than_an_epoch(
    make_run, noisy, tmp_path, monkeypatch
):
    monkeypatch.setattr("cmtscale.train.progress.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("cmtscale.train.progress.SAVING_SHARE", math.inf)
    run, calls = make_run(**NOISY), []

    def kill():
        calls.append(None)
        if len(calls) == 2:
            raise KilledError
        return False

    with pytest.raises(KilledError):
        train_on_cpu(run, folder=tmp_path, check_in=kill)
    assert torch.load(tmp_path / "checkpoint.pt")["step"] == 2
    result = train_on_cpu(run, folder=tmp_path)
    assert (untimed(result), untimed_metrics(tmp_path)) == noisy


def test_checkpoints_within_an_epoch_come_each_minute_or_rarely_where_saving_takes_long(
    make_run, tmp_path, monkeypatch
):
    now, saved = [0.0], []

    def clock():
        now[0] += 1e-6
        return now[0]

    def save(self, _folder, _identity):
        saved.append((self.step, now[0]))
        now[0] += saving_seconds
        self.saved_at, self.saving_seconds = now[0], saving_seconds

    def ten_seconds():
        now[0] += 10.0
        return False

    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr(Progress, "save", save)
    run = make_run(epochs=1, train_images=60, batch_size=2)  # 30 steps
    for saving_seconds, steps in ((0.1, [7, 13, 19, 25, 30, 30]), (2.0, [7, 17, 27, 30])):
        now[0] = 0.0
        saved.clear()
        train_on_cpu(run, folder=tmp_path / str(saving_seconds), check_in=ten_seconds)
        assert [step for step, _ in saved] == steps


def test_killed_in_a_long_validation_a_run_repeats_no_step(make_run, noisy, tmp_path, monkeypatch):
    def is_due(_, intervals=1.0):
        return intervals == 0.5  # before the validation alone

    monkeypatch.setattr(Progress, "is_due", is_due)
    run, calls = make_run(**NOISY), []

    def kill():
        calls.append(None)
        if len(calls) == 3 + 2:  # in the first validation
            raise KilledError
        return False

    with pytest.raises(KilledError):
        train_on_cpu(run, folder=tmp_path, check_in=kill)
    assert torch.load(tmp_path / "checkpoint.pt")["step"] == 3
    result = train_on_cpu(run, folder=tmp_path)
    assert (untimed(result), untimed_metrics(tmp_path)) == noisy


def test_stopped_while_it_is_scored_again_a_run_keeps_the_network_that_was_scored(
    make_run, tmp_path
):
    run = make_run()
    first = train_on_cpu(run, folder=tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(StoppedError):
        train_on_cpu(run, folder=tmp_path, check_in=Stopper(1))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert untimed(train_on_cpu(run, folder=tmp_path)) == untimed(first)


def test_a_checkpoint_of_0_1_0_after_an_epoch_is_gone_on_from(make_run, noisy, tmp_path):
    run = make_run(**NOISY)
    with pytest.raises(KilledError):
        train_on_cpu(run, folder=tmp_path, watch=kill_at_line(3))
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path)
    assert state["step"] == 3
    later = ("losses", "images_at_once", "stretches", "scored_at_once")
    torch.save({name: value for name, value in state.items() if name not in later}, path)
    entries = []
    result = train_on_cpu(run, folder=tmp_path, watch=entries.append)
    assert (untimed(result), untimed_metrics(tmp_path)) == noisy
    assert [entry["step"] for entry in entries] == [6, 6, 9, 9]


# ------------------------------------------------------------------------------ learning


def test_a_network_learns_the_digits(make_run, make_variant):
    run = make_run(variant=make_variant(8), epochs=4, train_images=400, batch_size=16, lr=4e-3)
    losses = []
    result = train_on_cpu(run, watch=lambda line: losses.append(line.get("val_loss_raw")))
    assert result.val_accuracy > 0.6  # chance is 0.1; 0.8 is usual
    losses = [loss for loss in losses if loss is not None]
    assert losses[-1] < 0.6 * losses[0]
    assert result.val_loss <= result.val_loss_raw == losses[-1]
    assert result.train_loss > 0.5  # smoothing by 0.1 over ten classes leaves 0.50 at the least


def test_the_log_says_what_was_done(make_run, tmp_path):
    run = make_run(epochs=2, train_images=100, batch_size=4, lr=1e-3)  # 25 steps per epoch
    result = train_on_cpu(run, folder=tmp_path)
    lines = read_metrics(tmp_path)
    trained = [line for line in lines if "train_loss" in line]
    evaluated = [line for line in lines if "val_loss_raw" in line]
    assert [line["step"] for line in trained] == [20, 25, 40, 50]
    assert [line["step"] for line in evaluated] == [25, 50]
    assert all(line["images"] == 4 * line["step"] for line in lines)
    assert all(
        line["lr"] == lr_factor(line["step"] - 1, 50, 0.1) * 1e-3 and line.keys() == TRAINED
        for line in trained
    )
    assert all(line.keys() == EVALUATED for line in evaluated)
    assert evaluated[-1]["val_loss_raw"] == result.val_loss_raw
    assert evaluated[-1]["val_accuracy"] == result.val_accuracy
    assert 0 < lines[0]["seconds"] <= lines[-1]["seconds"] <= result.seconds
    assert 100 / result.seconds < result.images_per_second


TRAINED = {"step", "images", "train_loss", "lr", "seconds"}
EVALUATED = {"step", "images", "val_loss_raw", "val_accuracy", "seconds"}


def test_smoothing_is_for_training_alone(make_run, spy_on_loss):
    calls = spy_on_loss(lambda _, loss: loss)
    train_on_cpu(make_run(label_smoothing=0.25))
    assert calls == [0.25] * 6


def test_digits_are_never_mirrored(make_run, plain):
    assert make_run().recipe.flip
    assert untimed(train_on_cpu(make_run(flip=False))) == plain


@pytest.mark.parametrize(
    "change",
    [
        {"shift_fraction": 0.3},
        {"lr": 3e-3},
        {"clip_norm": 1e-3},
        {"weight_decay": 5.0},
        {"warmup_fraction": 0.9},
        {"label_smoothing": 0.3},
        {"beta1": 0.5},
        {"dropout": 0.5},
        {"drop_path": 0.5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_of_the_recipe_reaches_the_training(make_run, plain, change):
    assert train_on_cpu(make_run(**change)).val_loss != plain.val_loss


def test_training_uses_as_many_images_as_the_recipe_says(digits_ref):
    dataset = open_dataset(digits_ref)
    some = training_part(dataset, 60)
    assert len(np.unique(some)) == 60
    assert set(some) <= set(dataset.splits.train)
    assert np.array_equal(some, training_part(dataset, 60))
    assert np.array_equal(training_part(dataset, None), dataset.splits.train)
    assert set(np.bincount(dataset.labels[some])) == {6}  # ten classes alike


def test_more_images_than_there_are_is_an_error(make_run):
    with pytest.raises(DataError, match="5000 training images of digits are not possible"):
        train_on_cpu(make_run(train_images=5000))


def test_a_batch_larger_than_the_split_is_the_split(make_run, tmp_path):
    result = train_on_cpu(make_run(train_images=30, batch_size=512), folder=tmp_path)
    lines = read_metrics(tmp_path)
    assert [line["images"] for line in lines] == [30, 30, 60, 60]
    assert result.status == "complete"


# ------------------------------------------------------------------------------ divergence


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_loss_that_is_not_finite_ends_the_run_with_its_step(
    make_run, spy_on_loss, tmp_path, step, bad
):
    spy_on_loss(lambda number, loss: loss * bad if number == step else loss)
    result = train_on_cpu(make_run(), folder=tmp_path)
    assert (result.status, result.cause) == (
        "diverged",
        f"loss not finite at step {step} of 6",
    )
    assert result.val_loss is result.val_accuracy is result.train_loss is None
    assert result.seconds > 0
    assert max((line["step"] for line in read_metrics(tmp_path)), default=0) < step


def test_weights_lost_in_an_epochs_last_step_end_the_run_at_its_evaluation(make_run, monkeypatch):
    real = torch.nn.utils.clip_grad_norm_
    steps = []

    def spoil(parameters, limit):
        parameters = list(parameters)
        steps.append(limit)
        if len(steps) == 3:
            parameters[0].grad.fill_(math.nan)
            return None
        return real(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoil)
    result = train_on_cpu(make_run())
    assert (result.status, result.cause) == (
        "diverged",
        "validation loss not finite after step 3",
    )


def test_an_infinite_logit_that_the_raw_loss_does_not_see_is_a_divergence(
    make_run, monkeypatch, tmp_path
):
    real = loop.predict

    def with_an_infinite_logit(*arguments, **options):
        predictions = real(*arguments, **options)
        wrong = (predictions.labels[0] + 1) % 10
        logits = predictions.logits.clone()
        logits[0, wrong] = -math.inf
        return replace(predictions, logits=logits)

    monkeypatch.setattr(loop, "predict", with_an_infinite_logit)
    result = train_on_cpu(make_run(), folder=tmp_path)
    assert (result.status, result.cause) == (
        "diverged",
        "validation loss not finite after step 6",
    )


@pytest.mark.parametrize(
    ("losses", "step", "bad"),
    [
        ([1.0, 2.0], 2, None),
        ([math.nan, 2.0], 2, 1),
        ([1.0, math.inf, math.nan], 30, 29),
        ([1.0, 1.0, -math.inf], 3, 3),
        ([math.nan], 41, 41),
    ],
)
def test_the_first_bad_step_is_named(losses, step, bad):
    assert first_bad_step([torch.tensor(loss) for loss in losses], step) == bad


# ------------------------------------------------------------------------------ precision


@pytest.mark.parametrize(("precision", "low"), [("auto", False), ("fp32", False), ("bf16", True)])
def test_a_cpu_trains_in_bfloat16_only_if_told_to(precision, low):
    with make_autocast(Recipe(precision=precision), CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if low else torch.float32)


def test_a_bfloat16_run_is_finite_and_near_the_float32_one(make_run):
    low, full = (
        train_on_cpu(make_run(precision=name, shift_fraction=0.1)) for name in ("bf16", "fp32")
    )
    assert low.status == "complete"
    assert low.train_loss != full.train_loss
    assert low.train_loss == pytest.approx(full.train_loss, rel=0.05)
    assert low.val_loss == pytest.approx(full.val_loss, rel=0.2)


class NoFloat64(TorchFunctionMode):
    """Makes the CPU behave as a device without float64, as Apple's GPUs.

    Tensors count as on the device until `.cpu()`; float64 is allowed for its results and for what
    is computed from them.
    """

    def __init__(self):
        super().__init__()
        self.on_host = WeakIdKeyDictionary()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        from_host = any(tensor in self.on_host for tensor in inputs)
        out = function(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        if name == "cpu":
            out = out.view_as(out)  # a new tensor, as the original stays on the device
            outputs, from_host = [out], True
        moved = name == "to" and any(isinstance(a, torch.device) for a in (*args, *kwargs.values()))
        for tensor in outputs:
            if from_host and not moved:
                self.on_host[tensor] = True
            elif tensor.dtype == torch.float64:
                raise TypeError(f"{name}: the device has no float64")
        return out


def test_a_device_without_float64_trains_and_evaluates(make_run, tmp_path):
    run = make_run()
    with NoFloat64():
        result = train(run, device=CPU, folder=tmp_path)
        restored = train(run, device=CPU, folder=tmp_path)
        score = read_test_split(run, device=CPU, folder=tmp_path)
    assert untimed(result) == untimed(restored) == untimed(train_on_cpu(run))
    assert 0 <= score.accuracy <= 1


@pytest.mark.parametrize(
    "use",
    [
        lambda ones: ones.double(),
        lambda ones: ones.to(torch.float64),
        lambda ones: ones.type(torch.float64),
        lambda ones: ones.sum(dtype=torch.float64),
        lambda ones: torch.zeros(len(ones), dtype=torch.float64),
        lambda ones: ones.double().cpu(),
        lambda ones: ones.cpu().double().to(CPU),
    ],
    ids=["double", "to", "type", "sum", "created", "before the move", "after the move"],
)
def test_the_pretended_device_refuses_float64(use):
    with NoFloat64():
        assert torch.ones(2).cpu().double().mean() == 1.0
        with pytest.raises(TypeError, match="no float64"):
            use(torch.ones(2))


# ------------------------------------------------------------------------------ the test split


def test_test_accuracy_is_that_of_the_checkpointed_network(make_run, tmp_path):
    run = make_run()
    train_on_cpu(run, folder=tmp_path)
    dataset = open_dataset(run.data)
    split = device_split(dataset, dataset.splits.test, device=CPU)
    model = build(run.variant)
    model.load_state_dict(torch.load(tmp_path / "checkpoint.pt")["model"])
    expected = predict(
        model, split, batch_size=20, autocast=make_autocast(run.recipe, CPU)
    ).accuracy
    score = read_test_split(run, device=CPU, folder=tmp_path)
    assert (score.images, score.accuracy) == (len(dataset.splits.test), expected)
    assert 0 <= expected <= 1


def test_without_the_runs_checkpoint_there_is_no_test_accuracy(make_run, tmp_path):
    assert read_test_split(make_run(), device=CPU, folder=tmp_path) is None
    train_on_cpu(make_run(seed=1), folder=tmp_path)
    assert read_test_split(make_run(), device=CPU, folder=tmp_path) is None


def test_training_never_reads_the_test_split(make_run, monkeypatch):
    used = []
    real = loop.device_split

    def remember(dataset, indices, **options):
        used.extend(indices)
        return real(dataset, indices, **options)

    monkeypatch.setattr(loop, "device_split", remember)
    run = make_run()
    train_on_cpu(run)
    splits = open_dataset(run.data).splits
    assert set(used).isdisjoint(splits.test)
    assert set(splits.val) <= set(used)


@pytest.mark.parametrize("name", ["cuda:1", "mps"])
def test_a_checkpoint_holds_the_devices_generator_too(name, monkeypatch):
    device = torch.device(name)
    module = torch.cuda if device.type == "cuda" else torch.mps
    generators = {name: torch.tensor([7], dtype=torch.uint8)}
    monkeypatch.setattr(module, "get_rng_state", lambda device="mps": generators[str(device)])
    monkeypatch.setattr(
        module, "set_rng_state", lambda state, device="mps": generators.update({str(device): state})
    )
    states = random_states(device)
    generators[name] = torch.tensor([9], dtype=torch.uint8)
    set_random_states(states, device)
    assert generators[name] == 7
    assert random_states(CPU).keys() == {"torch_rng"}
    set_random_states(random_states(CPU), device)  # a checkpoint written on a CPU
    assert generators[name] == 7


def test_metrics_end_before_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(tmp_path) == []
    lines = [{"step": 1, "seconds": 0.5}, {"step": 2, "seconds": 0.75}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "se')
    assert read_metrics(tmp_path) == lines


@pytest.mark.gpu
def test_a_gpu_trains_in_bfloat16(make_run, make_variant, tmp_path):
    run = make_run(variant=make_variant(16), epochs=4, train_images=400, batch_size=16, lr=4e-3)
    cuda = torch.device("cuda")
    with make_autocast(run.recipe, cuda):
        assert (
            torch.ones(2, 2, device=cuda) @ torch.ones(2, 2, device=cuda)
        ).dtype == torch.bfloat16
    result = train(run, device=cuda, folder=tmp_path)
    assert result.status == "complete"
    assert math.isfinite(result.val_loss)
    assert result.val_accuracy > 0.5
    assert read_test_split(run, device=cuda, folder=tmp_path).accuracy > 0.5
