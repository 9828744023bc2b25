"""`cmtscale search --train-winner`: what it says, refuses, leaves and goes on with."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cmtscale.arch.variant import Variant, variant
from cmtscale.cli.app import run
from cmtscale.record.choice import DECIDED
from cmtscale.record.metrics import read_metrics
from cmtscale.train.paper_recipe import published_recipe, with_epochs

OTHER = "timm:test_efficientnet@64"  # 0.1 M parameters
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def search(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Variant, few_images: str, cache_dir: Path
) -> str:
    """A command that searches among tiny real networks."""
    base = tmp_path_factory.mktemp("base") / "tiny.toml"
    base.write_text(tiny_base.to_toml())
    text = f"search --budget 1.22M --base {base} --no-proxy --trials 1 --data {few_images} "
    text += "--epochs 1 --batch-size 20 --ladder flat --prefer params --device cpu --workers 1 "
    return f"{text} --cache-dir {cache_dir}"


@pytest.fixture(scope="module")
def searched(search: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder. Tests must not change it."""
    folder = tmp_path_factory.mktemp("searched") / "search"
    assert run([*search.split(), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(searched: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "search"
    shutil.copytree(searched, copy)
    return copy


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """An epoch of two steps."""
    path = tmp_path / "mine.toml"
    path.write_text(replace(with_epochs(published_recipe("cmt-ti"), 1), batch_size=20).to_toml())
    return path


@pytest.fixture
def command(folder: Path, recipe: Path, cache_dir: Path) -> list[str]:
    text = f"search --from {folder} --device cpu --workers 1 --cache-dir {cache_dir} "
    return f"{text} --train-winner --winner-recipe {recipe}".split()


@pytest.mark.usefixtures("single_threaded")
def test_a_search_ends_with_its_choice_trained_beside_another_network(
    command: list[str], folder: Path, capsys: Capture
) -> None:
    assert run([*command, "--beside", OTHER]) == 0
    text, log = capsys.readouterr()
    name = variant(folder / "best.toml").name
    for trained in (name, "timm:test_efficientnet"):
        assert f"full training {1 if trained == name else 2} of 2: {trained}\n" in log
        row = rf"^{re.escape(trained)} .* [\d.]+ .* \d+\.\d\d % +\d\.\d{{4}} "
        assert re.search(row, text, re.MULTILINE)
    verdict = json.loads((folder / "choice.json").read_text())["verdict"]
    assert verdict not in DECIDED
    assert f"nothing is decided ({verdict}): the most probable network is trained\n" in log
    assert f"Nothing was decided ({verdict}): the most probable network was trained" in text
    assert "trained alike: recipe mine.toml, 1 epoch, 2 steps of 20 images, seed 0" in text
    assert f"use it: cmtscale predict {folder}/winner/{name}/model IMAGE\n" in text
    assert "train it:" not in text
    table = text[text.index("trained fully") : text.index("longer:")]
    assert run(["show", str(folder)]) == 0
    assert table in capsys.readouterr().out

    assert run([*command, "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["winner"] == json.loads((folder / "winner.json").read_text())
    assert [one["network"] for one in described["winner"]["networks"]] == [
        name,
        "timm:test_efficientnet",
    ]
    assert run(["show", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == described


@pytest.mark.usefixtures("single_threaded")
def test_the_test_split_is_read_where_that_is_asked_and_a_new_choice_is_pointed_out(
    command: list[str], folder: Path, capsys: Capture
) -> None:
    assert run(command) == 0
    assert "the test split was not read (--winner-test)" in capsys.readouterr().out
    record = folder / "winner.json"
    described = json.loads(record.read_text())
    failed = {"role": "beside", "folder": "winner/other", "status": "failed", "val_accuracy": None}
    described["networks"].append({**described["networks"][0], **failed})
    record.write_text(json.dumps(described))
    assert run([*command, "--winner-test"]) == 0  # what an earlier command trained does not count
    text = capsys.readouterr().out
    accuracy = json.loads((folder / "winner.json").read_text())["networks"][0]["test_accuracy"]
    name = variant(folder / "best.toml").name
    words = f"test accuracy of 9 images, read once each: {name} {100 * accuracy:.2f} %"
    assert words in text
    record.write_text(record.read_text().replace('"network": "tiny-', '"network": "other-'))
    assert run(["show", str(folder)]) == 0
    text = capsys.readouterr().out
    assert f"the search now takes {name}; --train-winner trains that" in text
    assert "use it:" not in text
    record.write_text("{}")
    assert run(["show", str(folder)]) == 0
    assert f"left out: {record} is damaged" in capsys.readouterr().err


@pytest.mark.usefixtures("single_threaded")
def test_a_training_that_train_has_done_in_its_folder_is_taken_as_it_is(
    command: list[str],
    folder: Path,
    recipe: Path,
    few_images: str,
    cache_dir: Path,
    capsys: Capture,
) -> None:
    out = folder / "winner" / variant(folder / "best.toml").name
    text = f"train --variant {folder}/best.toml --data {few_images} --recipe {recipe} --out {out} "
    text += "--test"
    assert run([*text.split(), "--device", "cpu", "--cache-dir", str(cache_dir), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert run([*command, "--json"]) == 0
    (trained,) = json.loads(capsys.readouterr().out)["winner"]["networks"]
    for name in ("val_loss", "val_accuracy", "test_accuracy", "seconds"):
        assert trained[name] == result[name]


@pytest.mark.usefixtures("single_threaded")
def test_a_training_that_diverges_is_exit_code_1(
    command: list[str], recipe: Path, capsys: Capture
) -> None:
    recipe.write_text(re.sub(r"(?m)^lr = .*", "lr = 1e30", recipe.read_text()))
    assert run(command) == 1
    assert re.search(r"diverged: loss not finite at step \d of 2\n", capsys.readouterr().out)


def test_a_dry_run_says_what_is_trained_and_how(
    command: list[str], folder: Path, capsys: Capture
) -> None:
    before = sorted(folder.rglob("*"))
    words = [word for word in command if "mine.toml" not in word and word != "--winner-recipe"]
    assert run([*words, "--beside", OTHER, "--winner-epochs", "3", "--dry-run"]) == 0
    text = " ".join(capsys.readouterr().err.split())
    assert "the paper's recipe for cmt-ti, the nearest in MACs: 3 epochs of 1 step of" in text
    assert "beside it, alike: timm:test_efficientnet (8.69M MACs at 64 px)" in text
    assert f"in {folder}/winner" in text
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--beside cmt-ti", "--beside is about training the choice; add --train-winner"),
        ("--winner-epochs 3", "--winner-epochs is about training the choice"),
        ("--winner-accumulate 2", "--winner-accumulate is about training the choice"),
        ("--winner-batch-size 0", "--winner-batch-size is about training the choice"),
        ("--train-winner --winner-batch-size 0", "batch_size 0 is not a whole number from 1 on"),
        ("--train-winner --winner-batch-size 7", "batch_size 7 cannot be dealt"),
        ("--winner-recipe paper", "--winner-recipe is about training the choice"),
        ("--winner-test", "--winner-test is about training the choice"),
        ("--train-winner --winner-epochs 0", "epochs 0 is not a whole number from 1 on"),
        ("--train-winner --winner-recipe no.toml", "recipe no.toml cannot be read"),
        ("--train-winner --beside timm:resnet51", "timm has no network 'resnet51'"),
        ("--train-winner --engine ray", "trains on this machine, not by --engine ray; leave it"),
        ("--train-winner --beside cmt-ti@100", "100 px is not a positive multiple of 32"),
        ("--train-winner --beside timm:vgg11", "timm:vgg11 cannot be built with drop_path_rate"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_searched(
    options: str, message: str, search: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    assert message in refusal(*search.split(), "--out", str(tmp_path / "out"), *options.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("run.json", "{}", "holds another training, or one of cmtscale 0.1.0; move it away"),
        ("run.json", '{"identity": "1"}', "; move it away, or the command it began with"),
        ("notes.txt", "mine", "is not empty and holds no training; move it away"),
    ],
)
def test_what_is_in_the_way_of_a_network_beside_it_is_refused_before_the_search(
    command: list[str],
    folder: Path,
    refusal: Callable[..., str],
    file: str,
    content: str,
    message: str,
) -> None:
    path = folder / "winner" / "timm-test_efficientnet@64" / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    before = sorted(folder.rglob("*"))
    line = refusal(*command, "--beside", OTHER)
    assert line.startswith(f"cmtscale: {path.parent} ")
    assert line.endswith(message)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("command", ["search --budget 4G --train-winner", "check . --drift"])
def test_what_runs_in_one_process_is_not_started_by_torchrun(
    command: str, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "runs in one process; start it without torchrun" in refusal(*command.split())


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_from_search_to_model_goes_on_where_it_was_stopped(
    search: str, tmp_path: Path, number: int, code: int
) -> None:
    folder = tmp_path / "out"
    words = [*search.split(), "--out", str(folder), "--train-winner", "--beside", OTHER]
    words = [sys.executable, "-m", "cmtscale", *words, "--winner-epochs", "100"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=_environment())
    metrics = folder / "winner"
    deadline = time.monotonic() + 200
    while not any(path.read_text() for path in metrics.glob("tiny-*/metrics.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, log = process.communicate(timeout=100)
    assert process.returncode == code
    assert log.splitlines()[-1] == "cmtscale: stopped; the same command goes on"
    assert "Traceback" not in log
    runs = (folder / "trials.csv").read_bytes()
    (trained,) = metrics.glob("tiny-*")
    stopped = read_metrics(trained)
    assert 0 < stopped[-1]["step"] < 100
    assert subprocess.run(words, capture_output=True, env=_environment()).returncode == 0
    assert (folder / "trials.csv").read_bytes() == runs
    lines = read_metrics(trained)
    assert lines[: len(stopped)] == stopped
    assert lines[-1]["step"] == 100
    record = json.loads((folder / "winner.json").read_text())
    assert [one["status"] for one in record["networks"]] == ["complete", "complete"]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}
