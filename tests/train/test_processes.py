"""Two processes train as one that accumulates their batches."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

import cmtscale
from cmtscale.arch.errors import RequestError, StoppedError
from cmtscale.data.stream import packed_images
from cmtscale.record.metrics import read_metrics
from cmtscale.record.model_folder import find_model, read_description
from cmtscale.train.full_recipe import FullRecipe
from cmtscale.train.processes import ALONE, is_first_to_say, joined

PROGRAM = """
import os, sys
import cmtscale.train.full as full
from cmtscale.arch.errors import RequestError
from cmtscale.cli.app import main
rank = os.environ["RANK"]
{change}
main([word.replace("RANK", rank) for word in sys.argv[1:]])
"""


@pytest.fixture
def two(make_variant, cache_dir, full_recipe, digits, tmp_path):
    """Run `train` in two processes, with something changed in them; what they print."""

    def call(change: str, out: str):
        (tmp_path / "program.py").write_text(PROGRAM.format(change=change))
        (tmp_path / "tiny.toml").write_text(make_variant().to_toml())
        (tmp_path / "recipe.toml").write_text(full_recipe.to_toml())
        command = f"train -v {tmp_path}/tiny.toml --recipe {tmp_path}/recipe.toml --data digits "
        command += f"--out {tmp_path}/{out} --device cpu --cache-dir {cache_dir}"
        starter = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run(
            [sys.executable, "-m", *starter, f"{tmp_path}/program.py", *command.split()],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=120,
        )
        assert done.returncode == 1
        assert "cmtscale/train/" not in done.stderr  # in a traceback
        return done.stdout.splitlines(), done.stderr.splitlines()

    assert len(digits.splits.train) == 1257
    return call


def test_all_processes_go_on_from_what_the_first_one_has_kept(
    two, full, full_recipe, digits, make_variant, tmp_path, monkeypatch
):
    monkeypatch.setattr("cmtscale.train.full_loop.LOG_STEPS", 1)

    def stop(line):
        if line["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    halves = replace(full_recipe, accumulate=2)
    with pytest.raises(StoppedError):
        full(
            tmp_path / "out-0",  # the folder of the second process stays empty
            image_set=packed_images(digits),
            network=make_variant(),
            recipe=halves,
            watch=stop,
        )
    printed, log = two(
        """
def state(run, images, setup, system, *_):
    total = sum(value.double().sum().item() for value in setup.network.state_dict().values())
    moments = setup.state.optimizer.state_dict()["state"]
    total += sum(value["exp_avg"].double().sum().item() for value in moments.values())
    print(f"step {setup.state.step} {setup.is_resumed} {total!r}", flush=True)
    system.processes.gather(None)  # an error of the one ends the other
    raise RequestError("seen enough")
full.train_fully = state""",
        "out-RANK",
    )
    told = [*printed, *log]  # while bars move, what is printed goes to stderr
    first, second = (line for line in told if line.startswith("step "))
    assert first == second
    assert first.startswith("step 2 True ")
    assert log.count("cmtscale: seen enough") == 1  # of an error that all have met


def test_an_error_of_the_second_process_alone_is_seen_and_ends_the_first(two, tmp_path):
    _, log = two(
        """
def fail(*_, **options):
    raise RequestError("only here")
if rank == "1":
    full.set_up = fail""",
        "out",
    )
    assert log.count("cmtscale: only here") == 1
    (other,) = (line for line in log if "another process of this training" in line)
    assert other.endswith("; the same command goes on")
    assert not (tmp_path / "out" / "run.json").exists()  # nothing was trained


def test_processes_that_train_different_things_are_refused(two, tmp_path):
    _, log = two("sys.argv += ['--seed', rank]", "out")
    (line,) = (line for line in log if line.startswith("cmtscale: "))
    assert line.startswith("cmtscale: the processes train different networks, or on different")
    assert not (tmp_path / "out").exists()


def test_what_several_processes_have_to_say_is_said_by_the_first(monkeypatch):
    assert is_first_to_say("no store without torchrun")
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    assert [is_first_to_say(text) for text in ("a", "a", "b", "a")] == [True, False, True, False]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert is_first_to_say("a")


@pytest.fixture
def trained(make_variant, cache_dir, digits, tmp_path):
    """Train on the digits in some processes that torchrun starts; the folder."""

    def call(name: str, recipe: FullRecipe, processes: int):
        (tmp_path / "tiny.toml").write_text(make_variant().to_toml())
        (tmp_path / f"{name}.toml").write_text(recipe.to_toml())
        command = f"train -v {tmp_path}/tiny.toml --recipe {tmp_path}/{name}.toml --data digits "
        command += f"--out {tmp_path}/{name} --device cpu --cache-dir {cache_dir}"
        starter = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        starter = [*starter, "-m"] if processes > 1 else []
        done = subprocess.run(
            [sys.executable, "-m", *starter, "cmtscale", *command.split()],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=280,
        )
        assert done.returncode == 0, done.stderr
        return tmp_path / name, done

    assert len(digits.splits.train) == 1257
    return call


def test_two_processes_see_the_losses_of_one_that_accumulates(trained, full_recipe):
    recipe = replace(full_recipe, batch_size=256, lr=0.002, weight_decay=0.05)
    alone, _ = trained("alone", replace(recipe, accumulate=2), 1)
    together, done = trained("together", recipe, 2)
    assert done.stdout.count("validation accuracy") == 1  # the first process alone prints
    assert done.stderr.count("digits: 1,257 train") == 1
    assert "of 2 processes" in done.stderr
    first, second = read_metrics(alone), read_metrics(together)
    assert [line["step"] for line in first] == [line["step"] for line in second] == [4, 4, 8, 8]
    for line, other in zip(first, second, strict=True):
        for name in line.keys() & {"train_loss", "val_loss_raw"}:
            assert line[name] == pytest.approx(other[name], rel=1e-4)  # sums in another order
    weights, others = (cmtscale.load_model(path).model.state_dict() for path in (alone, together))
    for name, value in weights.items():
        if value.ndim:  # not the counts of batches: one process sees half of them
            torch.testing.assert_close(value, others[name], rtol=1e-2, atol=1e-3)
    training = read_description(find_model(together))[0].training
    assert training.device == "2 x cpu"


def test_one_process_alone_needs_no_others():
    with joined("cpu") as (processes, device):
        assert (processes, device) == (ALONE, "cpu")
    values = torch.arange(3.0)
    assert torch.equal(processes.mean(values), values)
    assert (processes.largest(7), processes.gather("a"), processes.first(lambda: 5)) == (
        7,
        ["a"],
        5,
    )


def test_processes_do_not_take_a_device_that_only_one_can_have(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    for device in ("cuda:0", "cuda:0,1"):
        with pytest.raises(RequestError, match="share the GPUs out; use cuda"), joined(device):
            pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RequestError, match="process 1 of this machine has no GPU"), joined("cuda"):
        pass
