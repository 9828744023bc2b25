"""Which of our source files decide the result of a run: what its training loop imports."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
LOOP = Path("train") / "loop.py"
# record/, which the loop imports too, writes results down, and its formats have their own versions
DECIDING_FOLDERS = ("arch", "data", "model", "train")


def run_files(package: Path = PACKAGE) -> list[Path]:
    """The training loop and all that it imports, however far off, relative to the package."""
    files: set[Path] = set()
    waiting = [LOOP]
    while waiting:
        file = waiting.pop()
        if file not in files:
            files.add(file)
            waiting += _imported(package, file)
    return sorted(files)


def code_hash(package: Path = PACKAGE) -> str:
    """A hash of these files."""
    content = hashlib.sha256()
    for file in run_files(package):
        content.update(file.as_posix().encode() + b"\0" + (package / file).read_bytes())
    return content.hexdigest()[:12]


def _imported(package: Path, file: Path) -> Iterator[Path]:
    """The files of the deciding folders that a file imports, at its head or in a function."""
    for node in ast.walk(ast.parse((package / file).read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            first, *parts = name.split(".")
            if first == package.name and parts and parts[0] in DECIDING_FOLDERS:
                imported = Path(*parts).with_suffix(".py")
                if (package / imported).is_file():
                    yield imported
