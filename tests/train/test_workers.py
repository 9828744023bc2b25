"""Processes that read images: one that dies breaks a training off in a line, wherever it is."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from cmtscale.arch.errors import StoppedError, TrainingError
from cmtscale.record.metrics import read_metrics

MESSAGE = r"^a process that reads images has ended \(.*killed.*\); .*the same command goes on$"


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    time.sleep(30)  # torch tells of it by an error that interrupts this


def test_a_worker_that_dies_at_any_moment_breaks_the_training_off_in_a_line(full, tmp_path):
    def watch(line):
        if line["step"] == 3 and "val_accuracy" in line:
            kill(multiprocessing.active_children()[0])

    began = time.monotonic()
    with pytest.raises(TrainingError, match=MESSAGE) as caught:
        full(tmp_path, workers=2, watch=watch)
    assert caught.value.exit_code == 1
    assert time.monotonic() - began < 25
    assert multiprocessing.active_children() == []
    assert full(tmp_path, workers=1)[0].status == "complete"
    assert [line["step"] for line in read_metrics(tmp_path)] == [3, 3, 6, 6]


def test_a_worker_that_dies_while_others_start_leaves_none_behind(full, tmp_path, monkeypatch):
    start = _MultiProcessingDataLoaderIter._reset

    def kill_one(self, *arguments, **options):
        start(self, *arguments, **options)
        kill(self._workers[0])

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_reset", kill_one)
    with pytest.raises(TrainingError, match=MESSAGE):
        full(tmp_path, workers=2)
    assert multiprocessing.active_children() == []


def test_workers_end_with_a_training_that_is_stopped(full, tmp_path, monkeypatch):
    monkeypatch.setattr("cmtscale.train.full_loop.LOG_STEPS", 1)
    workers = []

    def stop(line):
        if line["step"] == 2:
            workers.extend(multiprocessing.active_children())
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(StoppedError):
        full(tmp_path, workers=2, watch=stop)
    assert len(workers) == 2
    assert not any(worker.is_alive() for worker in workers)
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_a_sigterm_to_the_whole_group_keeps_the_state(
    make_variant, full_recipe, cache_dir, digits, tmp_path
):
    assert len(digits.splits.train) == 1257
    (tmp_path / "tiny.toml").write_text(make_variant().to_toml())
    (tmp_path / "mine.toml").write_text(full_recipe.to_toml())
    command = f"train -v {tmp_path}/tiny.toml --recipe {tmp_path}/mine.toml --data digits "
    command += f"--epochs 400 --workers 2 --device cpu --out {tmp_path}/out --cache-dir {cache_dir}"
    process = subprocess.Popen(
        [sys.executable, "-m", "cmtscale", *command.split()],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while not read_metrics(tmp_path / "out"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    _, log = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert log.splitlines()[-1] == "cmtscale: stopped; the same command goes on"
    assert (tmp_path / "out" / "checkpoint.pt").exists()
