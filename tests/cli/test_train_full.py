"""`cmtscale train --recipe paper`: what it says, refuses, and leaves when it is stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from cmtscale.arch.variant import Variant
from cmtscale.cli.app import run
from cmtscale.cli.full_view import FullView
from cmtscale.train.full_recipe import FullRecipe, read_recipe
from cmtscale.train.paper_recipe import published_recipe

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def command(tmp_path: Path, tiny_base: Variant, cache_dir: Path) -> list[str]:
    """Two epochs of four steps on the digits."""
    (tmp_path / "tiny.toml").write_text(tiny_base.to_toml())
    text = f"train -v {tmp_path}/tiny.toml --data digits --recipe paper --epochs 2 --device cpu "
    text += f"--batch-size 256 --out {tmp_path}/out --cache-dir {cache_dir}"
    return text.split()


def test_a_full_training_says_its_recipe_and_ends_in_a_model(
    command: list[str], capsys: Capture, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    assert run([*command, "--drop-path", "0.05"]) == 0
    printed, log = capsys.readouterr()
    assert printed.startswith("validation accuracy ")
    assert f"use it: cmtscale predict {tmp_path}/out/model IMAGE" in printed
    assert "tiny: 580k MACs at 64 px, on cpu, fp32" in log
    assert "digits: 1,257 train, 270 val, 270 test images of 8 px" in log
    words = "the paper's recipe for cmt-ti, the nearest in MACs: 2 epochs of 4 steps of 256 images"
    assert words in log
    assert "learning rate 0.0004 (0.0008 per 512)" in log
    assert re.search(r"epoch 2 .*validation loss \S+ .*accuracy \d", log)
    recipe = read_recipe(tmp_path / "out" / "recipe.toml")
    assert (recipe.epochs, recipe.batch_size, recipe.drop_path) == (2, 256, 0.05)
    assert recipe.weight_decay == published_recipe("cmt-ti").weight_decay
    assert "its drop_path differs" in refusal(*command)
    assert run([*command, "--drop-path", "0.05", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["status"], described["test_accuracy"]) == ("complete", None)


@pytest.mark.parametrize("recipe", ["paper", "short"])
def test_a_trained_model_knows_its_own_folder_wherever_that_lies(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    printed: Callable[..., str],
    recipe: str,
) -> None:
    for number in range(20):
        for name, grey in (("dark", number), ("light", 255 - number)):
            path = tmp_path / "tree" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (64, 64), grey).save(path)
    monkeypatch.chdir(tmp_path)
    printed(*command, "--data", "folder:tree", "--recipe", recipe, "--batch-size", "14", "--test")
    text = (tmp_path / "out" / "model" / "model.toml").read_text()
    assert f'data = "folder:{tmp_path}/tree"' in text
    for moved in ("tree", "elsewhere"):
        (tmp_path / "tree").rename(tmp_path / moved)
        words = ["eval", "out", "--data", f"folder:{moved}", "--cache-dir", str(tmp_path / "empty")]
        val = json.loads(printed(*words, "--json"))
        assert (val["split"], val["images"], val["own_data"]) == ("val", 6, True)
        assert f"val_accuracy = {val['top1']}" in text
        assert "caution" not in printed(*words)
    test = json.loads(printed(*words, "--split", "test", "--json"))
    assert (test["reading"], test["own_data"]) == (2, True)


def test_a_recipe_of_ones_own_is_a_file_and_its_model_can_be_tuned(
    command: list[str],
    tmp_path: Path,
    refusal: Callable[..., str],
    printed: Callable[..., str],
    capsys: Capture,
) -> None:
    for name in ("a", "b"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (20, 20)).save(tmp_path / "tree" / name / f"{number}.png")
    recipe = published_recipe("cmt-ti").to_toml()
    recipe = re.sub(r"(?m)^(epochs|batch_size) = .*$", r"\1 = 400", recipe)
    (tmp_path / "mine.toml").write_text(recipe.replace("epochs = 400", "epochs = 300"))
    words = [word if word != "paper" else f"{tmp_path}/mine.toml" for word in command]
    assert "validation accuracy" in printed(*words, "--epochs", "1")
    asked = read_recipe(tmp_path / "out" / "recipe.toml")
    assert asked.batch_size == 256  # of the command line
    assert asked.warmup_epochs == pytest.approx(20 / 300)
    tuned = [word.replace("/out", "/tuned") for word in words]
    tuned += ["--epochs", "1", "--from", f"{tmp_path}/out"]
    assert "freeze '9' is not 0 to 4" in refusal(*tuned, "--freeze", "9")
    assert "; use --split-seed 0" in refusal(*tuned, "--split-seed", "1")
    assert "takes images of 1 channels" in refusal(*tuned, "--data", f"folder:{tmp_path}/tree")
    capsys.readouterr()
    assert run([*tuned, "--freeze", "all", "--accumulate", "2"]) == 0
    begins = f"begins with the weights of {tmp_path}/out; all but the head stays as it is"
    assert begins in " ".join(capsys.readouterr().err.split())
    card = (tmp_path / "tuned" / "model" / "README.md").read_text()
    assert f"| started from | {tmp_path}/out |" in card
    assert "| recipe | mine.toml |" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--recipe paper --train-images 64", "--train-images is for the short recipe alone"),
        ("--recipe paper --no-augment", "--augment is for the short recipe alone"),
        ("--recipe long", "recipe long cannot be read: No such file"),
        ("--recipe paper --lr 0", "lr 0.0 is out of range"),
        ("--recipe paper --workers -1", "workers -1 is no number of processes"),
        ("--recipe paper --batch-size 33", "batch_size 33 cannot be dealt"),
        ("--from x", "--from is not for the short recipe; add --recipe paper"),
        ("--freeze 2", "--freeze is not for the short recipe; add --recipe paper"),
        ("--compile", "--compile is not for the short recipe; add --recipe paper"),
        ("-v timm:resnet18", "the short recipe is for CMTs; train timm:resnet18 by --recipe paper"),
        ("--recipe paper -v cmt-ti@100", "resolution 100 px is not a positive multiple of 32"),
    ],
)
def test_mistakes_are_one_line(
    options: str,
    message: str,
    refusal: Callable[..., str],
    tmp_path: Path,
    tiny_base: Variant,
    cache_dir: Path,
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_base.to_toml())
    words = ["train", "-v", f"{tmp_path}/tiny.toml", "--data", "digits", "--device", "cpu"]
    words += ["--out", f"{tmp_path}/out", "--cache-dir", str(cache_dir), *options.split()]
    assert message in refusal(*words)
    assert not (tmp_path / "out" / "run.json").exists()


def test_the_short_recipe_does_not_start_in_several_processes(
    command: list[str], refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["short" if word == "paper" else word for word in command]
    assert "start it without torchrun" in refusal(*words)


def test_a_diverged_training_exits_with_1(command: list[str], capsys: Capture) -> None:
    assert run([*command, "--lr", "1e30"]) == 1
    assert re.match(r"diverged: loss not finite at step \d of 8\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("recipe", "number", "code"),
    [
        ("paper", signal.SIGTERM, 143),
        ("paper", signal.SIGINT, 130),
        ("short", signal.SIGINT, 130),
        ("short", signal.SIGUSR1, 138),
    ],
)
def test_a_signal_is_one_line_and_the_same_command_goes_on(
    command: list[str], tmp_path: Path, recipe: str, number: int, code: int
) -> None:
    long = [{"2": "400", "paper": recipe}.get(word, word) for word in command]
    process = subprocess.Popen(
        [sys.executable, "-m", "cmtscale", *long],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = tmp_path / "out" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    _, log = process.communicate(timeout=100)
    assert process.returncode == code
    assert log.splitlines()[-1] == "cmtscale: stopped; the same command goes on"
    assert "Traceback" not in log
    assert (tmp_path / "out" / "checkpoint.pt").exists()


def test_another_side_is_trained_by_the_short_recipe_too(
    command: list[str], tmp_path: Path, printed: Callable[..., str]
) -> None:
    words = ["short" if word == "paper" else word for word in command]
    words[words.index("-v") + 1] = f"{tmp_path}/tiny.toml@96"
    printed(*words, "--epochs", "1", "--train-images", "256")
    assert "resolution_px = 96" in (tmp_path / "out" / "variant.toml").read_text()


def test_a_training_that_goes_on_says_after_how_much(tiny_base: Variant) -> None:
    printed: list[str] = []
    bars: Any = SimpleNamespace(show=lambda *_: None, print=printed.append)
    splits = SimpleNamespace(train=range(5), val=range(2), test=range(2))
    images = SimpleNamespace(name="made-up", splits=splits, native_px=8)
    plan: Any = SimpleNamespace(
        run=SimpleNamespace(network=tiny_base, recipe=published_recipe("cmt-s")),
        size=SimpleNamespace(macs=580_000),
        image_set=images,
        device="cpu",
        processes=1,
        batch_images=64,
        steps_per_epoch=10,
        steps_done=0,
    )
    FullView(bars, "the recipe").planned(plan)
    assert "goes on" not in " ".join(printed)
    plan.steps_done = 35
    FullView(bars, "the recipe").planned(plan)
    assert printed[-1] == "goes on after 3.5 epochs"


def test_the_bar_counts_steps_and_tells_the_time_left() -> None:
    shown: list[Any] = []
    bars: Any = SimpleNamespace(
        show=lambda parts, headline: shown.append((dict(parts), headline)), print=lambda _: None
    )
    recipe: FullRecipe = published_recipe("cmt-s")
    plan: Any = SimpleNamespace(run=SimpleNamespace(recipe=recipe), steps_per_epoch=10)
    view = FullView(bars, "")
    view.plan = plan
    line = {"train_loss": 2.0, "images_per_second": 1234.4, "loader_share": 0.25, "lr": 1e-3}
    view.logged({**line, "step": 10, "seconds": 5.0})
    view.logged({"step": 10, "val_loss_raw": 1.0, "val_accuracy": 0.5, "seconds": 8.0})
    view.logged({**line, "step": 1515, "seconds": 3015.0})
    (first, _), (parts, headline) = shown
    assert first["epoch"] == 1.0
    assert parts == {"training": pytest.approx(0.505), "epoch": 0.5}
    assert "epoch 152" in headline
    assert "accuracy 50.00 %, 1234 img/s, 25 % waiting for images" in headline
    assert "about 49 min 30 s left" in headline  # 2 s a step
