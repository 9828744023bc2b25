"""Code that decides a run is told by its hash, and no other."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cmtscale.search.run_code import DECIDING_FOLDERS, PACKAGE, code_hash, run_files

IMPORTED = """
import sys
import cmtscale  # its public names, which the loop does without
import cmtscale.record.identity  # names what is trained, and decides nothing
before = set(sys.modules)
import cmtscale.train.loop
print(*(name for name in sys.modules.keys() - before if name.startswith("cmtscale.")))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to be changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=ignored))


@pytest.mark.parametrize(
    ("file", "decides"),
    [
        ("train/loop.py", True),
        ("train/batch_norm.py", True),
        ("train/evaluate.py", True),
        ("model/blocks.py", True),
        ("data/batches.py", True),
        ("arch/variant.py", True),
        ("train/full_loop.py", False),
        ("train/full_recipe.py", False),
        ("train/tensorboard.py", False),
        ("train/timing.py", False),
        ("data/stream.py", False),
        ("data/loaders.py", False),
        ("record/folder.py", False),
        ("search/jobs.py", False),
    ],
)
def test_a_change_counts_where_it_decides_a_run(package: Path, file: str, decides: bool) -> None:
    before = code_hash(package)
    assert before == code_hash()  # wherever the package lies
    path = package / file
    path.write_text(path.read_text() + "\n# changed\n")
    assert (code_hash(package) != before) is decides


def test_what_the_loop_comes_to_import_counts_too(package: Path) -> None:
    (package / "train" / "new.py").write_text("from cmtscale.model import newer\n")
    (package / "model" / "newer.py").write_text("SLOPE = 1\n")
    before = code_hash(package)
    optimizer = package / "train" / "optimizer.py"
    optimizer.write_text(f"import cmtscale.train.new\n{optimizer.read_text()}")
    imported = code_hash(package)
    assert imported != before
    (package / "model" / "newer.py").write_text("SLOPE = 2\n")
    assert code_hash(package) != imported


def test_no_module_that_python_really_imports_for_the_loop_is_left_out() -> None:
    printed = subprocess.run(
        [sys.executable, "-P", "-c", IMPORTED], capture_output=True, text=True, check=True
    ).stdout
    paths = [Path(*name.split(".")[1:]).with_suffix(".py") for name in printed.split()]
    files = {path for path in paths if (PACKAGE / path).is_file()}
    really = {path for path in files if path.parts[0] in DECIDING_FOLDERS}
    assert len(really) > 15
    assert really <= set(run_files())
