"""`cmtscale eval`: what it prints where, the files that it writes, and what it refuses."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cmtscale.cli.app import run
from cmtscale.data.dataset import Dataset
from cmtscale.record.evaluation import read_evaluation
from cmtscale.record.model_folder import read_description

FILES = ["confusion.png", "evaluation.json", "mistakes.png", "per_class.csv", "predictions.csv"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def evaluated(capsys: Capture, cache_dir: Path) -> Callable[..., tuple[str, str]]:
    """Run the command; its stdout and stderr."""

    def evaluate(*arguments: str | Path, code: int = 0) -> tuple[str, str]:
        words = ["eval", "--device", "cpu", "--cache-dir", str(cache_dir), *map(str, arguments)]
        assert run(words) == code
        return tuple(capsys.readouterr())

    return evaluate


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_scores_are_printed_and_what_val_was_used_for(
    trained: Path, evaluated: Callable[..., tuple[str, str]]
) -> None:
    scores = read_description(trained / "model")[0].scores
    out, err = evaluated(trained, "--data", "digits")
    first, *lines = out.splitlines()
    assert first == f"tiny on digits, val: {scores.val_images} images"
    assert lines[0].startswith(
        f"top-1              {100 * scores.val_accuracy:.2f} % (95 % interval"
    )
    assert lines[1].startswith("top-5 ")
    assert (
        f"; {scores.val_loss:.4f} at the model's temperature {scores.temperature:.3f}" in lines[2]
    )
    assert "(ECE, 15 bins of equal width)" in lines[3]
    assert lines[5].split() == ["class", "images", "precision", "recall"]
    recalls = [float(line.split()[-1]) for line in lines[6:16]]
    assert recalls == sorted(recalls)
    assert "taken for" in lines[-1]
    assert err.startswith("val fitted the model's temperature")
    assert not (trained / "evaluation.json").exists()


def test_out_gets_tables_and_figures_that_agree(
    trained: Path, evaluated: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    out, err = evaluated(trained, "--data", "digits", "--out", tmp_path / "eval", "--json")
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == FILES
    assert all(str(tmp_path / "eval" / name) in err for name in FILES)
    evaluation = read_evaluation(tmp_path / "eval")
    assert json.loads(out) == json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    predictions = rows(tmp_path / "eval" / "predictions.csv")
    assert len(predictions) == evaluation.images
    right = sum(row["true"] == row["predicted"] for row in predictions)
    assert right / len(predictions) == evaluation.top1
    for row, score in zip(
        rows(tmp_path / "eval" / "per_class.csv"), evaluation.classes, strict=True
    ):
        mine = [line for line in predictions if line["true"] == score.name]
        assert int(row["images"]) == len(mine)
        assert float(row["recall"]) == sum(line["predicted"] == score.name for line in mine) / len(
            mine
        )


def test_readings_of_test_are_logged_and_counted(
    trained: Path, evaluated: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "out"))
    for number in ("2nd", "3rd"):
        _, err = evaluated(copy, "--data", "digits", "--split", "test")
        assert err.startswith(f"the {number} reading of this test split with this model, logged in")
    assert len(rows(copy / "test_reads.csv")) == 3
    content = json.loads(evaluated(copy, "--data", "digits", "--split", "test", "--json")[0])
    assert content["reading"] == 4


def test_a_broken_file_is_named_and_the_exit_code_is_1(
    trained: Path, digits: Dataset, evaluated: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    for name in ("0", "1"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(digits.images[int(name)].squeeze(-1)).save(
            tmp_path / "images" / name / "a.png"
        )
    (tmp_path / "images" / "1" / "b.png").write_bytes(b"no image")
    out, err = evaluated(trained, "--data", f"folder:{tmp_path / 'images'}", code=1)
    assert ", all: 2 images" in out
    assert "8 of the model's 10 classes have no images here" in out
    first, *_, last = err.splitlines()
    assert first.startswith(f"cmtscale: {tmp_path}/images/1/b.png is no image")
    assert last == "1 of 3 files cannot be read: left out"
    assert "caution: the model was trained on digits, not on folder:" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--data digits --split all", "digits has no all split; it has train, val, test: choose"),
        ("--data digits --split mine", "--split 'mine' is not one of"),
        ("--data digits --tta flip", "a mirrored image of digits may be of another class"),
        ("--data digits --device tpu", "device 'tpu' is not one of"),
        ("--data nothing", "is not one of digits"),
        (
            "--data digits --out /proc/eval",
            "/proc/eval cannot be written (No such file or directory); use another",
        ),
        ("--data folder:/nowhere", "/nowhere does not exist"),
        ("", "--data is missing"),
    ],
)
def test_a_mistake_is_one_line(
    trained: Path, evaluated: Callable[..., tuple[str, str]], arguments: str, words: str
) -> None:
    before = sorted(path.name for path in trained.iterdir())
    out, err = evaluated(trained, *arguments.split(), code=2)
    assert out == ""
    (line,) = err.splitlines()
    assert words in line
    assert sorted(path.name for path in trained.iterdir()) == before


def test_out_that_is_a_file_is_refused_before_anything_is_read(
    trained: Path, evaluated: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "out"))
    (tmp_path / "file").touch()
    arguments = (copy, "--data", "digits", "--split", "test", "--out", tmp_path / "file")
    assert "file cannot be written" in evaluated(*arguments, code=2)[1]
    assert len(rows(copy / "test_reads.csv")) == 1


def test_a_folder_without_a_model_is_one_line(
    evaluated: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    assert "holds no model.toml" in evaluated(tmp_path, "--data", "digits", code=2)[1]
