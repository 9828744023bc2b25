"""`cmtscale variants`: the published family."""

from typing import Any

from cmtscale.cli.options import Json


def variants(as_json: Json = False) -> None:
    """List the four published variants."""
    if as_json:
        import json

        print(json.dumps(_as_json(), indent=1))
    else:
        _print()


def _as_json() -> list[dict[str, Any]]:
    """Sizes and exact cost of each; params in millions, FLOPs in 10⁹ and top-1 as published."""
    from cmtscale.arch import paper
    from cmtscale.arch.cost import cost
    from cmtscale.arch.variant import published_variants

    entries = []
    for variant in published_variants():
        counted, row = cost(variant), paper.VARIANTS[variant.name]
        entry = {
            "name": variant.name,
            "resolution_px": variant.resolution_px,
            "stem_channels": variant.stem_channels,
            "dims": variant.dims,
            "depths": variant.depths,
            "expansion": row.expansion,
            "params": counted.params,
            "macs": counted.macs,
            "paper": {"params_m": row.params_m, "flops_g": row.flops_g, "top1": row.top1},
        }
        entries.append(entry)
    return entries


def _print() -> None:
    from cmtscale.arch import paper
    from cmtscale.arch.cost import cost
    from cmtscale.arch.variant import published_variants
    from cmtscale.cli.console import Column, print_table, results, thousands

    out = results()
    columns = [
        Column("variant"),
        Column("px"),
        Column("stem", 6),
        Column("dims"),
        Column("depths"),
        Column("R", 5),
        Column("params"),
        Column("MACs"),
        Column("paper M", 4),
        Column("paper G", 3),
        Column("top-1 %", 1),
    ]
    rows = []
    for variant in published_variants():
        counted, row = cost(variant), paper.VARIANTS[variant.name]
        cells = (
            variant.name,
            str(variant.resolution_px),
            str(variant.stem_channels),
            "-".join(map(str, variant.dims)),
            "-".join(map(str, variant.depths)),
            f"{row.expansion:g}",
            thousands(counted.params),
            thousands(counted.macs),
            f"{row.params_m}",
            f"{row.flops_g}",
            f"{row.top1}",
        )
        rows.append(cells)
    left_out = print_table(out, columns, rows)
    notes = ["MACs (multiply-adds) are what the paper calls FLOPs."]
    if "paper M" not in left_out:
        notes.append(
            "paper M, G: the parameters and FLOPs that it prints; CMT-S has 26.26 M in the "
            "authors' code, 4.4 % more, unexplained."
        )
    if "top-1 %" not in left_out:
        notes.append("top-1: ImageNet-1K, authors' README.")
    out.print(" ".join(notes))
