"""`cmtscale cache`: what packed images take, and removing them."""

from typing import Annotated

import typer

from cmtscale.cli.options import CacheDir


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Show where packed images are kept and what they take; --clear removes them."""
    from cmtscale.cli.console import Column, print_table, results
    from cmtscale.data.cache import cache_report, clear_cache, default_cache_dir

    folder = cache_dir or default_cache_dir()
    if clear:
        print(f"freed {clear_cache(folder) / 1e6:.1f} MB in {folder}")
        return
    out = results()
    out.print(str(folder), markup=False, soft_wrap=True)
    entries = cache_report(folder)
    sizes = [(entry.name, entry.size_bytes) for entry in entries]
    sizes.append(("total", sum(entry.size_bytes for entry in entries)))
    rows = [(name, f"{size / 1e6:.1f}") for name, size in sizes]
    print_table(out, [Column("images"), Column("MB")], rows, bold=[len(entries)])
