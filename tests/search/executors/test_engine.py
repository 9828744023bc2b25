"""Which engine carries out a search, and what does not go together."""

import sys
from pathlib import Path

import pytest

from cmtscale.arch.errors import RequestError
from cmtscale.cli.app import run as cli
from cmtscale.search.executors.engine import Engine, open_engine
from cmtscale.train import devices
from cmtscale.train.devices import available_cores


def test_small_runs_share_the_cores_of_this_machine(tmp_path: Path) -> None:
    engine = Engine(workers_per_device=3, run_timeout_seconds=60)
    with open_engine(engine, device="cpu", workers=None, cache_dir=tmp_path) as executor:
        assert executor.devices == ("cpu",) * 3 * available_cores()
        assert executor.free_slots == 3 * available_cores()
        assert executor.most_shared == 1


@pytest.mark.parametrize(
    ("share", "workers", "gpus", "most"),
    [(None, None, 1, 6), (None, None, 4, 1), (None, None, 8, 1), (1, None, 1, 1), (None, 1, 1, 1)],
)
def test_runs_may_share_a_gpu_where_nobody_says_how_many_and_each_has_a_core(
    share: int | None,
    workers: int | None,
    gpus: int,
    most: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cards = tuple(f"cuda:{number}" for number in range(gpus))
    monkeypatch.setattr(devices, "device_slots", lambda _device, _workers: cards)
    monkeypatch.setattr(devices, "available_cores", lambda: 6)
    engine = Engine(workers_per_device=share)
    with open_engine(engine, device="cuda", workers=workers, cache_dir=tmp_path) as executor:
        assert executor.devices == cards
        assert executor.most_shared == most


def test_two_ways_to_say_how_many_runs_share_a_device_are_refused(tmp_path: Path) -> None:
    engine = Engine(workers_per_device=3)
    with pytest.raises(RequestError, match="workers 2 and workers_per_device 3 both say"):
        open_engine(engine, device="cpu", workers=2, cache_dir=tmp_path)


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_is_one_line_that_names_it(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RequestError, match=rf"run pip install 'cmtscale\[{name}\]'"):
        open_engine(Engine(name=name), device="cpu", workers=None, cache_dir=tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--slurm partition=gpu", "slurm is for the engine slurm, and this one is local"),
        ("--engine slurm --address auto", "address is for the engine ray, and this one is slurm"),
        ("--run-timeout 30", "--run-timeout '30' is not a time; write 2h, 1h30m or 90s"),
        ("--workers-per-device 0", "workers_per_device 0 is not a whole number from 1 on"),
        ("--engine cloud", "'cloud' is not one of"),
    ],
)
@pytest.mark.parametrize("command", ["search --budget 4G", "check results --twin"])
def test_flags_that_do_not_go_together_are_one_line(
    command: str, flags: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(f"{command} {flags}".split()) == 2
    assert words in capsys.readouterr().err
