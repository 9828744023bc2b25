"""`cmtscale variants`: the published family."""


def variants() -> None:
    """List the four published variants."""
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
    print_table(out, columns, rows)
    out.print(
        "MACs (multiply-adds) are what the paper calls FLOPs. paper M, G: the parameters and FLOPs "
        "that it prints; CMT-S has 26.26 M in the authors' code, 4.4 % more, unexplained. "
        "top-1: ImageNet-1K, authors' README."
    )
