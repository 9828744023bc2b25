"""What a timm network costs, by operator: a table, or JSON."""

import json
from typing import Any

from cmtscale.arch.network import TimmNetwork
from cmtscale.cli.console import Column, print_table, results, thousands
from cmtscale.model.networks import TimmCount, count_timm
from cmtscale.model.operators import kind_of


def print_timm(network: TimmNetwork, *, as_json: bool) -> None:
    """Count `network` and print what was counted, and what was not."""
    counted = count_timm(network)
    if as_json:
        print(json.dumps(_as_json(network, counted), indent=1))
    else:
        _print(network, counted)


def _as_json(network: TimmNetwork, counted: TimmCount) -> dict[str, Any]:
    operators = counted.operators
    return {
        "name": network.name,
        "resolution_px": network.resolution_px,
        "totals": {
            "params": counted.params,
            "macs": counted.macs,
            **operators.kind_macs(),
        },
        "operators": dict(operators.macs),
        "negligible": {group: list(names) for group, names in operators.negligible.items()},
        "uncounted": list(operators.uncounted),
    }


def _print(network: TimmNetwork, counted: TimmCount) -> None:
    out = results()
    operators = counted.operators
    side = network.resolution_px
    out.print(
        f"[bold]{network.name}[/bold] at {side}x{side} px, {network.num_classes} classes: "
        f"{thousands(counted.params)} params"
    )
    rows = [
        [name, kind_of(name), thousands(macs), f"{100 * macs / counted.macs:.1f}"]
        for name, macs in operators.macs.items()
    ]
    rows.append(["total", "", thousands(counted.macs), "100.0"])
    columns = [Column("operator"), Column("kind"), Column("MACs"), Column("%")]
    print_table(out, columns, rows, bold=[len(rows) - 1])
    out.print()
    if operators.uncounted:
        out.print(
            f"[bold]Not counted, and perhaps not small: {', '.join(operators.uncounted)}.[/bold] "
            "The total may be too low."
        )
    out.print("Not counted, for they do a few operations per number:")
    for group, names in operators.negligible.items():
        out.print(f"  {group}: {', '.join(names)}")
    out.print(
        "1 MAC = 1 multiply-add, which papers call a FLOP. Counted by torch.utils.flop_counter, "
        "under torch's names; attention as its two products."
    )
