"""`cmtscale cache`: what packed images take, and how to be rid of them."""

from typing import Annotated

import typer

from cmtscale.cli.options import CacheDir


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Show where packed images are kept and what they take; --clear removes them."""
    from cmtscale.cli.console import results, table
    from cmtscale.data.pack import cache_report, clear_cache, default_cache_dir

    folder = cache_dir or default_cache_dir()
    if clear:
        print(f"freed {clear_cache(folder) / 1e6:.1f} MB in {folder}")
        return
    rows = table("packed data set", "MB", title=str(folder))
    entries = cache_report(folder)
    for entry in entries:
        rows.add_row(entry.name, f"{entry.size_bytes / 1e6:.1f}")
    rows.add_row("total", f"{sum(entry.size_bytes for entry in entries) / 1e6:.1f}", style="bold")
    results().print(rows)
