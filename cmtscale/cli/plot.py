"""`cmtscale plot`: figures of one run folder, or of all under a root."""

from pathlib import Path
from typing import Annotated

import typer


def plot(
    path: Annotated[Path, typer.Argument(help="A run folder, or a folder of run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="Where figures go; by default PATH/figures.")
    ] = None,
) -> None:
    """Draw accuracy against MACs, the scaling ablation, the triangle and learning curves."""
    from cmtscale.cli.console import messages
    from cmtscale.report.figures import save_figures

    saved = save_figures(path, out)
    for file in saved.files:
        print(file)
    for name, reason in saved.skipped.items():
        messages().print(f"left out {name}: {reason}", markup=False)
