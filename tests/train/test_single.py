"""A single training in a folder with a description of its run."""

import json
import os
import signal

import pytest
import torch
from filelock import FileLock

from cmtscale.arch.errors import (
    CmtscaleError,
    RequestError,
    ResultsError,
    StoppedError,
    TrainingError,
)
from cmtscale.arch.variant import variant
from cmtscale.data.sources import open_source
from cmtscale.model.cmt import CMT
from cmtscale.record.model_folder import find_model, read_description
from cmtscale.record.reads import log_reading, readings
from cmtscale.record.result import RunResult, read_result
from cmtscale.train import timing
from cmtscale.train.recipe import Recipe
from cmtscale.train.single import train_single


@pytest.fixture
def single(digits, make_variant):
    """Train the tiny variant on digits in a folder; the arguments override."""

    def call(folder, **changes):
        arguments = {
            "variant": make_variant(num_classes=1000, in_channels=3),
            "recipe": Recipe(epochs=2, train_images=60, batch_size=20),
            "dataset": digits,
            "seed": 0,
            "device": "cpu",
            "source": {"data": "digits", "split_seed": 0},
            **changes,
        }
        return train_single(
            arguments.pop("variant"),
            arguments.pop("recipe"),
            arguments.pop("dataset"),
            folder=folder,
            **arguments,
        )

    return call


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_training_claims_its_folder_and_says_what_it_is(single, make_variant, tmp_path):
    folder = tmp_path / "new" / "cmt"
    result, accuracy = single(folder)
    assert result.status == "complete"
    assert accuracy is None  # the test split was not asked for
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "variant.toml",
        "run.json",
        "metrics.jsonl",
        "checkpoint.pt",
        "val_losses.npy",
        "result.json",
        "model",
    }
    # the head has the data's classes and channels
    assert variant(folder / "variant.toml") == make_variant(num_classes=10, in_channels=1)
    described = json.loads((folder / "run.json").read_text())
    assert (described["data"], described["run"]["seed"]) == ("digits", 0)
    assert described["split_seed"] == 0
    assert described["run"]["recipe.train_images"] == 60
    assert read_result(folder / "result.json", described["identity"]) == result


def test_the_same_command_again_repeats_nothing(single, tmp_path):
    first = single(tmp_path)
    before = contents(tmp_path)
    lines = []
    assert single(tmp_path, watch=lines.append) == first
    assert lines == []
    assert contents(tmp_path) == before


def test_a_stopped_training_goes_on(single, tmp_path):
    def stop(line):
        if line["step"] > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        single(tmp_path / "stopped", watch=stop)
    lines = []
    resumed, accuracy = single(tmp_path / "stopped", watch=lines.append, test=True)
    whole, expected = single(tmp_path / "whole", test=True)
    assert [line["step"] for line in lines] == [6, 6]
    assert accuracy == expected
    assert (resumed.val_loss, resumed.train_loss) == (whole.val_loss, whole.train_loss)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)]
)
def test_a_signal_stops_at_the_next_step_and_the_same_command_goes_on(
    single, tmp_path, monkeypatch, number, code
):
    monkeypatch.setattr("cmtscale.train.loop.LOG_STEPS", 1)

    def interrupt(line):
        if line["step"] == 2:
            os.kill(os.getpid(), number)

    handlers = [signal.getsignal(number)]
    with pytest.raises(StoppedError, match=r"^stopped; the same command goes on$") as caught:
        single(tmp_path / "stopped", watch=interrupt)
    assert caught.value.exit_code == code
    assert [*handlers, signal.getsignal(number)] == 2 * handlers
    lines = []
    resumed, accuracy = single(tmp_path / "stopped", watch=lines.append, test=True)
    whole, expected = single(tmp_path / "whole", test=True)
    assert [line["step"] for line in lines] == [3, 3, 4, 5, 6, 6]
    assert accuracy == expected
    assert (resumed.val_loss, resumed.train_loss) == (whole.val_loss, whole.train_loss)


def test_stopped_before_its_first_step_a_training_claims_no_folder(single, tmp_path, monkeypatch):
    real = timing._step_seconds

    def interrupt(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(timing, "_step_seconds", interrupt)
    with pytest.raises(StoppedError):
        single(tmp_path / "new", planned=print)
    assert contents(tmp_path).keys() <= {tmp_path / "new" / ".lock"}


def test_what_does_not_fit_is_a_result_and_tried_again_when_asked(
    single, make_variant, tmp_path, monkeypatch
):
    plans = []

    def refuse(*_):
        raise torch.OutOfMemoryError("2 GiB wanted")

    monkeypatch.setattr(CMT, "forward", refuse)
    large = make_variant(num_classes=1000, in_channels=3, resolution_px=64)
    result, _ = single(tmp_path, variant=large, planned=plans.append)
    assert result.status == "infeasible"
    assert result.cause.startswith("memory: one image of 1x64x64 does not fit")
    assert plans == []  # no step of it could be timed
    assert not (tmp_path / "model").exists()
    monkeypatch.undo()  # there is room now
    result, _ = single(tmp_path, variant=large)
    assert result.status == "complete"
    assert (tmp_path / "model").exists()


def test_where_the_test_split_does_not_fit_the_model_stands(single, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise torch.OutOfMemoryError("2 GiB wanted")

    monkeypatch.setattr("cmtscale.train.single.read_test_split", refuse)
    with pytest.raises(TrainingError, match=r"^tiny is trained, and does not fit .* of cpu while"):
        single(tmp_path, test=True)
    assert read_description(find_model(tmp_path))[0].scores.test_accuracy is None
    monkeypatch.undo()
    _, accuracy = single(tmp_path, test=True)
    assert accuracy is not None
    assert read_description(find_model(tmp_path))[0].scores.test_accuracy == accuracy


@pytest.mark.parametrize("change", ["seed", "recipe", "variant"])
def test_a_folder_of_another_training_is_refused_untouched(single, make_variant, tmp_path, change):
    single(tmp_path)
    before = contents(tmp_path)
    other = {
        "seed": 1,
        "recipe": Recipe(epochs=3, train_images=60, batch_size=20),
        "variant": make_variant(8),
    }[change]
    what = {"recipe": "epochs", "variant": "network"}.get(change, change)
    with pytest.raises(RequestError, match=rf"holds another training \(its {what} differs\); use"):
        single(tmp_path, **{change: other})
    assert contents(tmp_path) == before


@pytest.mark.parametrize("change", [{"train_images": 5}, {"train_images": 60, "batch_size": 1}])
def test_what_cannot_be_trained_claims_no_folder(single, tmp_path, change):
    with pytest.raises(CmtscaleError, match=r"5 training images|batch 1 at"):
        single(tmp_path / "new", recipe=Recipe(epochs=2, **change))
    assert contents(tmp_path).keys() <= {tmp_path / "new" / ".lock"}
    assert single(tmp_path / "new")[0].status == "complete"


def test_a_training_is_not_gone_on_with_in_another_precision(single, tmp_path, monkeypatch):
    single(tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RequestError, match=r"\(its precision differs\)"):
        single(tmp_path, device="cuda:0")
    assert contents(tmp_path) == before


def test_the_plan_comes_once_before_the_first_step(single, tmp_path):
    heard = []
    for _ in range(2):
        single(tmp_path, planned=heard.append, watch=lambda line: heard.append(line["step"]))
    plan, *steps = heard
    assert steps == [3, 3, 6, 6]
    assert (plan.dataset.name, plan.epoch_images) == ("digits", 60)
    assert plan.device == "cpu"
    assert plan.seconds > 0


def test_the_plan_of_a_training_that_goes_on_counts_what_is_left(single, tmp_path, monkeypatch):
    monkeypatch.setattr("cmtscale.train.single.seconds_per_image", lambda *_, **__: 0.5)

    def stop(line):
        if line["step"] > 3:
            raise KeyboardInterrupt

    plans = []
    with pytest.raises(KeyboardInterrupt):
        single(tmp_path, planned=plans.append, watch=stop)
    single(tmp_path, planned=plans.append)
    whole, rest = plans
    assert rest.seconds == pytest.approx(whole.seconds / 2)


def test_a_plan_counts_the_steps_of_an_epoch_that_is_gone_on_with(single, tmp_path, monkeypatch):
    monkeypatch.setattr("cmtscale.train.single.seconds_per_image", lambda *_, **__: 0.5)
    monkeypatch.setattr("cmtscale.train.loop.LOG_STEPS", 1)

    def interrupt(line):
        if line["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    plans = []
    with pytest.raises(StoppedError):
        single(tmp_path, planned=plans.append, watch=interrupt)
    single(tmp_path, planned=plans.append)
    whole, rest = plans
    assert rest.seconds == pytest.approx(whole.seconds * 2 / 3)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"identity": 3}', '{"fingerprint": "a"}', "torn {"]
)
def test_a_folder_whose_description_is_foreign_is_refused_untouched(single, tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    before = contents(tmp_path)
    with pytest.raises(
        CmtscaleError, match=r"run\.json is damaged|holds another training"
    ) as caught:
        single(tmp_path)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_a_folder_with_other_things_in_it_is_refused_untouched(single, tmp_path):
    (tmp_path / "thesis.tex").write_text("dear to somebody")
    before = contents(tmp_path)
    with pytest.raises(RequestError, match="is not empty and holds no training; use another --out"):
        single(tmp_path)
    assert contents(tmp_path) == before


def test_a_file_in_the_folders_place_is_refused_untouched(single, tmp_path):
    path = tmp_path / "out"
    path.write_text("a file")
    with pytest.raises(ResultsError, match="out is a file, not a folder; use another --out"):
        single(path)
    assert contents(tmp_path) == {path: b"a file"}


def test_a_folder_that_cannot_be_made_is_refused(single, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="use another --out"):
        single(tmp_path / "file" / "below")


def test_several_gpus_are_refused_before_anything_is_written(single, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RequestError, match="train uses one device so far; use cuda:0"):
        single(tmp_path / "new", device="cuda:0,1")
    with pytest.raises(RequestError, match="there are 2 CUDA devices"):
        single(tmp_path / "new", device="cuda:2")
    assert not (tmp_path / "new").exists()


def test_a_diverged_training_is_kept_and_has_no_test_accuracy(single, tmp_path, monkeypatch):
    diverged = RunResult(status="diverged", cause="loss not finite at step 5 of 6", seconds=1.5)
    monkeypatch.setattr("cmtscale.train.single.train", lambda *_args, **_kwargs: diverged)
    result, accuracy = single(tmp_path, test=True)
    assert result == diverged
    assert accuracy is None
    monkeypatch.undo()
    assert single(tmp_path)[0] == diverged


def test_without_its_checkpoint_a_finished_training_has_no_test_accuracy(single, tmp_path):
    first, _ = single(tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    again, accuracy = single(tmp_path, test=True)
    assert again == first
    assert accuracy is None


def test_the_test_split_is_read_once_and_only_when_asked(single, digits, tmp_path):
    single(tmp_path)
    assert readings(tmp_path) == []
    _, accuracy = single(tmp_path, test=True)
    images = len(digits.splits.test)
    (reading,) = readings(tmp_path)
    assert (reading.by, reading.run_id, reading.images) == ("train", tmp_path.name, images)
    assert reading.accuracy == accuracy
    assert (accuracy * images) % 1 == pytest.approx(0, abs=1e-9)
    assert single(tmp_path, test=True)[1] == accuracy
    assert readings(tmp_path) == [reading]


def test_readings_by_other_commands_are_not_the_training_s(single, tmp_path):
    single(tmp_path)
    log_reading(tmp_path, by="eval", run_id="x", images=9, accuracy=0.0, data="folder:/other")
    _, accuracy = single(tmp_path, test=True)
    assert accuracy > 0
    assert [reading.by for reading in readings(tmp_path)] == ["eval", "train"]


def test_another_split_is_another_training(single, cache_dir, tmp_path):
    single(tmp_path)
    other = open_source("digits", split_seed=1, cache_dir=cache_dir).pack(32)
    with pytest.raises(RequestError, match=r"\(its data differs\)"):
        single(tmp_path, dataset=other)


def test_a_start_that_was_killed_after_its_first_file_can_be_repeated(single, tmp_path):
    folder = tmp_path / "new"
    single(folder)
    for name in ("variant.toml", "metrics.jsonl", "checkpoint.pt", "result.json"):
        (folder / name).unlink()  # as if only run.json had been written
    result, _ = single(folder)
    assert result.status == "complete"
    assert (folder / "variant.toml").exists()


def test_two_trainings_do_not_share_a_folder(single, tmp_path):
    folder = tmp_path / "new"
    single(folder)
    before = (folder / "result.json").read_bytes()
    with (
        FileLock(folder / ".lock"),
        pytest.raises(ResultsError, match="another process is at work in"),
    ):
        single(folder)
    assert (folder / "result.json").read_bytes() == before
