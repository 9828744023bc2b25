"""`cmtscale flops`: what a variant costs, part by part."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmtscale.cli.options import (
    ALPHA,
    BETA,
    GAMMA,
    NETWORKS_HELP,
    Alpha,
    Beta,
    Gamma,
    Json,
    needs_torch,
    parse_size,
)

if TYPE_CHECKING:
    from cmtscale.arch.cost import Cost
    from cmtscale.arch.network import Network
    from cmtscale.model.measure import Measured


def flops(
    variant: Annotated[str, typer.Option("--variant", "-v", help=NETWORKS_HELP)] = "cmt-s",
    phi: Annotated[
        float | None, typer.Option(help="Scale the variant by this many compound steps first.")
    ] = None,
    alpha: Alpha = ALPHA,
    beta: Beta = BETA,
    gamma: Gamma = GAMMA,
    resolution: Annotated[
        str | None, typer.Option(help="Another input size: 320 (built for it) or 320x256.")
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="Build the network and hold the counts against fvcore and torch.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Count a variant exactly, part by part, against the paper's formula and fvcore.

    timm's networks are counted by operator, with torch's counter.
    """
    from dataclasses import replace

    from cmtscale.arch.cost import cost
    from cmtscale.arch.errors import ScalingError, VariantError
    from cmtscale.arch.network import split_side
    from cmtscale.arch.scaling import Scaling, scale
    from cmtscale.arch.variant import Variant

    chosen, side_px = _read(variant), split_side(variant)[1]
    height = width = None
    if resolution is not None:
        if side_px is not None:
            raise VariantError(f"{variant} has a side; leave @{side_px} or --resolution away")
        height, width = parse_size(resolution)
    is_scaled = phi is not None or (alpha, beta, gamma) != (ALPHA, BETA, GAMMA)
    if not isinstance(chosen, Variant):
        if is_scaled:
            raise ScalingError(f"{chosen.name} is no CMT; leave phi, alpha, beta, gamma away")
        if not measure:
            raise VariantError(f"{chosen.name} can only be measured; leave --no-measure away")
        if height != width:
            raise VariantError(f"{chosen.name} is counted at square sizes; use {height}")
        from cmtscale.cli.operators_view import print_timm

        print_timm(replace(chosen, resolution_px=height or chosen.resolution_px), as_json=as_json)
        return
    if phi is not None:
        chosen = scale(chosen, Scaling(phi, alpha, beta, gamma))
    elif is_scaled:
        raise ScalingError("alpha, beta, gamma do nothing without phi; add e.g. --phi 1")
    if height is not None and height == width:
        chosen = replace(chosen, resolution_px=height)
    counted = cost(chosen, height=height, width=width)
    measured = None
    if measure:
        from cmtscale.cli.console import messages

        # a spinner, on a terminal only, that vanishes when the network is measured
        with messages().status("building the network and measuring it (--no-measure skips this)"):
            from cmtscale.model.measure import measure as measure_variant

            measured = measure_variant(chosen, height=height, width=width)
    if as_json:
        import json

        print(json.dumps(_as_json(counted, measured), indent=1))
    else:
        _print(counted, measured)


def _read(text: str) -> "Network":
    """The network that `text` names; torch is loaded only where it must be."""
    if needs_torch(text):
        from cmtscale.model.networks import read_network

        return read_network(text)
    from cmtscale.arch.variant import variant

    return variant(text)


def _as_json(counted: "Cost", measured: "Measured | None") -> dict[str, Any]:
    square = counted.height == counted.width
    return {
        "name": counted.variant.name,
        "resolution_px": counted.height if square else [counted.height, counted.width],
        "totals": {
            "params": counted.params,
            "macs": counted.macs,
            "fvcore_flops": counted.fvcore_flops,
            "activations": counted.activations,
            "paper_formula_macs": counted.paper_formula_macs,
            "measured_macs": measured.macs if measured else None,
            "measured_fvcore_flops": measured.fvcore_flops if measured else None,
            "position_bias_params": counted.position_bias_params,
            "transformer_formula_macs": counted.transformer_formula_macs,
        },
        "parts": [
            {
                "name": part.name,
                "params": part.counts.params,
                "macs": part.counts.macs,
                "fvcore_flops": part.counts.fvcore_flops,
                "activations": part.counts.activations,
                "conv": part.counts.conv,
                "linear": part.counts.linear,
                "matmul": part.counts.matmul,
                "layer_norm": part.counts.layer_norm,
                "batch_norm": part.counts.batch_norm,
                "pool": part.counts.pool,
                "measured_macs": measured.part_macs[part.name] if measured else None,
            }
            for part in counted.parts
        ],
    }


def _print(counted: "Cost", measured: "Measured | None") -> None:
    from cmtscale.arch import paper
    from cmtscale.cli.console import Column, print_table, results, thousands

    out = results()
    variant = counted.variant
    out.print(
        f"[bold]{variant.name}[/bold] at {counted.height}x{counted.width} px, "
        f"{variant.num_classes} classes: dims {'-'.join(map(str, variant.dims))}, "
        f"depths {'-'.join(map(str, variant.depths))}"
    )
    columns = [
        Column("part"),
        Column("params"),
        Column("MACs"),
        Column("%"),
        Column("conv", 4),
        Column("linear", 3),
        Column("matmul", 5),
        Column("norms+pool", 2),
    ]
    lines = [(part.name, part.counts) for part in counted.parts]
    rows = []
    for name, counts in [*lines, ("total", counted.totals)]:
        norms = counts.fvcore_flops - counts.macs
        numbers = [counts.conv, counts.linear, counts.matmul, norms]
        if measured:
            numbers.append(measured.macs if name == "total" else measured.part_macs[name])
        share = f"{100 * counts.macs / counted.macs:.1f}"
        cells = [name, thousands(counts.params), thousands(counts.macs), share]
        rows.append([*cells, *map(thousands, numbers)])
    if measured:
        columns.append(Column("fvcore MACs", 1))
    print_table(out, columns, rows, bold=[len(lines)])
    out.print()
    blocks = sum(part.counts.macs for part in counted.parts if part.is_in_blocks)
    others = {
        "blocks, counted exactly": blocks,
        "  the paper's block formula": counted.paper_formula_macs,
        "  as standard transformer blocks": counted.transformer_formula_macs,
        "fvcore's total: MACs, norms and pool": counted.fvcore_flops,
        "activations (elements written)": counted.activations,
        "params of the position bias": counted.position_bias_params,
    }
    rows = [[name, thousands(number)] for name, number in others.items()]
    print_table(out, [Column("other counts"), Column("MACs or number")], rows)
    out.print()
    notes = [
        "1 MAC = 1 multiply-add, which papers call a FLOP; G = 10⁹. The paper's formula leaves out "
        "the K/V convolutions, the truncation of dim·R, stem, patch embeddings and head."
    ]
    if measured:
        notes.append("fvcore and torch.utils.flop_counter count the same, part by part.")
    row = paper.VARIANTS.get(variant.name)
    if row and (counted.height, counted.width) == (row.resolution_px, row.resolution_px):
        notes.append(f"The paper prints {row.params_m} M params, {row.flops_g} G FLOPs.")
        if abs(counted.params / 1e6 / row.params_m - 1) > 0.01:
            notes.append(
                f"The authors' code has {counted.params / 1e6:.2f} M params "
                f"({100 * (counted.params / 1e6 / row.params_m - 1):+.1f} %), unexplained."
            )
    for note in notes:
        out.print(note)
