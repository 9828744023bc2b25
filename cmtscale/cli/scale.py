"""`cmtscale scale`: a new variant from coefficients, or for a budget."""

from pathlib import Path
from typing import Annotated

import typer

from cmtscale.cli.options import ALPHA, BETA, GAMMA, VARIANTS_HELP, Alpha, Beta, Gamma


def scale(
    base: Annotated[str, typer.Option("--base", "-b", help=VARIANTS_HELP)] = "cmt-s",
    phi: Annotated[float | None, typer.Option(help="Compound steps, of any sign.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Solve phi for this many MACs: 4.0G, 600M, 4e9.")
    ] = None,
    alpha: Alpha = ALPHA,
    beta: Beta = BETA,
    gamma: Gamma = GAMMA,
    multiple: Annotated[
        int | None, typer.Option(help="With --budget: dims in multiples of this; by default 2.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the variant to this new TOML file.")
    ] = None,
) -> None:
    """Scale a variant by phi, or to a budget, along alpha, beta, gamma."""
    from dataclasses import replace

    from cmtscale.arch.budget import parse_macs
    from cmtscale.arch.cost import cost
    from cmtscale.arch.errors import RequestError, ScalingError
    from cmtscale.arch.scaling import Scaling, implied
    from cmtscale.arch.scaling import scale as scale_variant
    from cmtscale.arch.solve import solve
    from cmtscale.arch.variant import variant
    from cmtscale.cli.console import messages, results, thousands
    from cmtscale.record.files import write_text_atomically

    if (phi is None) == (budget is None):
        raise ScalingError("give either --phi or --budget, e.g. --phi 1 or --budget 4.0G")
    if phi is not None and multiple is not None:
        raise ScalingError("--multiple does nothing with --phi, which rounds plainly; drop it")
    origin = variant(base)
    if save is not None and save.exists():
        raise RequestError(f"{save} exists already; save under another name")
    out = results()
    if budget is not None:
        solution = solve(
            origin,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            budget_macs=parse_macs(budget),
            step=2 if multiple is None else multiple,
        )
        scaled = solution.variant
        reached = 100 * (solution.macs / solution.budget_macs - 1)
        out.print(
            f"phi {solution.scaling.phi:.3f} hits the budget; rounded: {reached:+.1f} % off it, "
            f"at most {100 * solution.stray:.1f} % of the cost on another axis"
        )
    else:
        assert phi is not None
        scaled = scale_variant(origin, Scaling(phi, alpha, beta, gamma))
    if save is not None:
        scaled = replace(scaled, name=save.stem)
        write_text_atomically(save, scaled.to_toml())
        messages().print(f"saved {save}", markup=False)
    counted = cost(scaled)
    implied_phi, shares = implied(origin, scaled)
    out.print(
        f"[bold]{scaled.name}[/bold]: {scaled.resolution_px} px, stem {scaled.stem_channels}, "
        f"dims {'-'.join(map(str, scaled.dims))}, depths {'-'.join(map(str, scaled.depths))}\n"
        f"{thousands(counted.macs)} MACs ({counted.macs / cost(origin).macs:.2f} x {origin.name}), "
        f"{thousands(counted.params)} params"
    )
    if implied_phi:
        out.print(
            f"its integers stand for phi {implied_phi:.3f}, shares: depth {shares.depth:.2f}, "
            f"width {shares.width:.2f}, resolution {shares.resolution:.2f}"
        )
