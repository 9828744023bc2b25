"""Damaged checkpoints: told by their checksums, and the one before is gone on from."""

import contextlib
import os
import random
from pathlib import Path

import pytest
import torch

import cmtscale
from cmtscale.arch.errors import StoppedError, TrainingError
from cmtscale.record.metrics import read_metrics
from cmtscale.record.result import RunResult
from cmtscale.train.checkpoint import (
    has_checkpoint,
    load_checkpoint,
    resume_checkpoint,
    save_checkpoint,
)
from cmtscale.train.loop import train
from cmtscale.train.run_log import RunLog

FILES = ["checkpoint.pt", "checkpoint-previous.pt"]
DAMAGES = {
    "truncated": lambda whole: whole[: len(whole) // 2],
    "bit-flipped": lambda whole: flipped(whole, len(whole) // 2),
    "zeroed": lambda whole: bytes(len(whole)),
    "another file": lambda _: b"PK\5\6" + bytes(18),  # a zip file without content
}


def flipped(whole, position):
    return whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]


@pytest.fixture(params=DAMAGES)
def damage(request):
    """Damages a file on disk."""

    def call(path):
        path.write_bytes(DAMAGES[request.param](path.read_bytes()))

    return call


class KilledError(Exception):
    pass


def stop_at(step):
    def watch(line):
        if line["step"] == step and "val_accuracy" not in line:
            os.kill(os.getpid(), 15)

    return watch


def kill_at(step):
    def watch(line):
        if line["step"] == step and "val_accuracy" not in line:
            raise KilledError

    return watch


@pytest.fixture(scope="session")
def whole_folder(tmp_path_factory):
    """Of trainings that were not stopped, each in a folder of its kind."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def stopped(full, make_run, monkeypatch):
    """Stop a training of one kind after two checkpoints; returns what goes on."""

    def call(kind, folder):
        if kind == "full":
            monkeypatch.setattr("cmtscale.train.full_loop.LOG_STEPS", 1)
            for step in (1, 2):
                with pytest.raises(StoppedError):
                    full(folder, watch=stop_at(step))
            return lambda folder, watch=None: full(folder, watch=watch)[0]
        run = make_run(epochs=3)

        def go_on(folder, watch=None) -> RunResult:
            return train(run, device=torch.device("cpu"), folder=folder, watch=watch)

        with pytest.raises(KilledError):
            go_on(folder, watch=kill_at(9))
        return go_on

    return call


def scores(result):
    return result.val_loss, result.val_accuracy, result.temperature, result.train_loss


# the first line that is logged again: of the step after the older checkpoint, or of the start
@pytest.mark.parametrize(("kind", "older", "start"), [("full", 2, 1), ("short", 6, 3)])
@pytest.mark.parametrize("both", [False, True])
def test_a_training_goes_on_from_the_checkpoint_before_a_damaged_one_or_starts_again(
    stopped, whole_folder, tmp_path, damage, kind, older, start, both, caplog
):
    go_on = stopped(kind, tmp_path / "stopped")
    newest, previous = (tmp_path / "stopped" / name for name in FILES)
    damage(newest)
    if both:
        damage(previous)
    lines = []
    result = go_on(tmp_path / "stopped", watch=lines.append)
    (warning,) = caplog.messages
    ending = "and there is no other to go on from" if both else "going on from the one before it"
    assert warning.startswith(f"warning: {newest} is damaged")
    assert warning.endswith(ending)
    assert lines[0]["step"] == (start if both else older)
    whole = go_on(whole_folder / kind)  # the second who asks finds it done
    assert scores(result) == scores(whole)
    steps = [line["step"] for line in read_metrics(tmp_path / "stopped")]
    assert steps == [line["step"] for line in read_metrics(whole_folder / kind)]
    assert not previous.exists()  # it has served


def test_a_checkpoint_that_is_not_read_back_as_written_replaces_none(tmp_path, monkeypatch):
    for step in (1, 2):
        save_checkpoint(tmp_path, "a", {"step": step, "weights": torch.ones(100)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == set(FILES)
    sync = os.fsync

    def lose_the_end(handle):
        os.ftruncate(handle, os.fstat(handle).st_size - 100)
        sync(handle)

    monkeypatch.setattr("cmtscale.record.files.os.fsync", lose_the_end)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt cannot be read back .* goes on$"):
        save_checkpoint(tmp_path, "a", {"step": 3, "weights": torch.ones(100)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_training_killed_between_the_old_file_and_the_new_one_goes_on(tmp_path, caplog):
    for step in (1, 2):
        save_checkpoint(tmp_path, "a", {"step": step})
    (tmp_path / "checkpoint.pt").unlink()
    assert load_checkpoint(tmp_path, "a") is None  # what is scored is the newest alone
    assert resume_checkpoint(tmp_path, "b") is None
    assert resume_checkpoint(tmp_path, "a") == {"step": 1}
    assert caplog.messages == []


@pytest.mark.parametrize("saved", [1, 3])
@pytest.mark.parametrize("target", FILES)
def test_a_training_killed_while_a_new_file_takes_over_goes_on_from_that_file(
    tmp_path, monkeypatch, caplog, saved, target
):
    for step in range(1, saved):
        save_checkpoint(tmp_path, "a", {"step": step})
    replace = Path.replace

    def replace_unless_killed(path, to):
        if Path(to) == tmp_path / target:
            raise KilledError
        return replace(path, to)

    with monkeypatch.context() as patched, contextlib.suppress(KilledError):
        patched.setattr(Path, "replace", replace_unless_killed)
        save_checkpoint(tmp_path, "a", {"step": saved})
    assert has_checkpoint(tmp_path)
    assert resume_checkpoint(tmp_path, "a") == {"step": saved}
    assert load_checkpoint(tmp_path, "a") == {"step": saved}
    assert caplog.messages == []
    assert {path.name for path in tmp_path.iterdir()} <= set(FILES)


def test_the_file_that_a_training_went_on_from_is_kept_by_the_next_save(tmp_path, damage):
    for step in (1, 2):
        save_checkpoint(tmp_path, "a", {"step": step})
    damage(tmp_path / "checkpoint.pt")
    assert resume_checkpoint(tmp_path, "a") == {"step": 1}
    save_checkpoint(tmp_path, "a", {"step": 3})
    damage(tmp_path / "checkpoint.pt")
    assert resume_checkpoint(tmp_path, "a") == {"step": 1}


def test_a_damaged_file_that_had_not_taken_over_is_passed_by(tmp_path, damage, caplog):
    save_checkpoint(tmp_path, "a", {"step": 1})
    newer = tmp_path / "checkpoint-new.pt"
    newer.write_bytes((tmp_path / "checkpoint.pt").read_bytes())
    damage(newer)
    assert resume_checkpoint(tmp_path, "a") == {"step": 1}
    assert caplog.messages == [f"warning: {newer} is damaged; going on from the one before it"]
    assert not newer.exists()


def test_a_run_that_diverged_keeps_its_newest_checkpoint_alone(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, "a", {"step": step})
    run_log = RunLog(tmp_path, 0.0, None)
    assert run_log.diverged("loss not finite at step 3").status == "diverged"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert load_checkpoint(tmp_path, "a") == {"step": 2}


def test_no_flipped_bit_changes_a_checkpoint_unnoticed(tmp_path, caplog):
    torch.manual_seed(0)
    state = {"step": 7, "weights": torch.rand(50), "names": ["a", "b"]}
    save_checkpoint(tmp_path, "a", state)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    draw = random.Random(0)
    unharmed = 0
    for _ in range(400):
        path.write_bytes(flipped(whole, draw.randrange(len(whole))))
        read = resume_checkpoint(tmp_path, "a")
        if read is not None:  # a bit of padding, or of a date
            unharmed += 1
            assert (read["step"], read["names"]) == (7, ["a", "b"])
            assert torch.equal(read["weights"], state["weights"])
    assert len(caplog.messages) == 400 - unharmed > 100


def test_a_model_is_not_made_of_an_older_checkpoint(full, tmp_path):
    result, _ = full(tmp_path)
    before = cmtscale.load_model(tmp_path).model.state_dict()
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    again, accuracy = full(tmp_path, test=True)
    assert (again, accuracy) == (result, None)
    for name, value in cmtscale.load_model(tmp_path).model.state_dict().items():
        assert torch.equal(value, before[name]), name
