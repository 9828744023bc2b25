"""Figures as files: drawn first, then replaced whole."""

import io
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO

import matplotlib as mpl
from matplotlib.figure import Figure

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import write_atomically
from cmtscale.report.layout import STYLE


def render(figure: Figure, kind: str, *, dpi: int = 300) -> bytes:
    """The figure as a `png`, `svg` or `pdf` file; the same figure gives the same bytes."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # a class may be named in letters that the font lacks: boxes are drawn
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=undated.get(kind))
    return buffer.getvalue()


def write_figures(folder: Path, contents: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write files, by name, each whole; raises `ResultsError` where the folder cannot be."""
    for name, content in contents.items():
        try:
            write_atomically(folder / name, partial(_fill, content))
        except OSError as error:
            raise ResultsError(
                f"figures cannot be written to {folder}: {error.strerror}; name a folder that can"
            ) from error
    return tuple(folder / name for name in contents)


def _fill(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
