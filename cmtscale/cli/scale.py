"""`cmtscale scale`: a new variant from coefficients, or for a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmtscale.cli.options import (
    ALPHA,
    BETA,
    DEFAULT_BASE,
    GAMMA,
    VARIANTS_HELP,
    Alpha,
    Beta,
    Gamma,
    Json,
)

if TYPE_CHECKING:
    from cmtscale.arch.scaling import Scaling
    from cmtscale.arch.solve import Solution
    from cmtscale.arch.variant import Variant


def scale(
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            "-b",
            help=f"{VARIANTS_HELP} By default cmt-s; with --budget {DEFAULT_BASE}.",
        ),
    ] = None,
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
    as_json: Json = False,
) -> None:
    """Scale a variant by phi, or to a budget, along alpha, beta, gamma."""
    import json
    from dataclasses import replace

    from cmtscale.arch.base import default_base, require_reach
    from cmtscale.arch.budget import parse_macs
    from cmtscale.arch.errors import RequestError, ScalingError
    from cmtscale.arch.scaling import Scaling
    from cmtscale.arch.scaling import scale as scale_variant
    from cmtscale.arch.solve import solve
    from cmtscale.arch.variant import variant
    from cmtscale.cli.console import messages
    from cmtscale.record.files import write_text_atomically

    if (phi is None) == (budget is None):
        raise ScalingError("give either --phi or --budget, e.g. --phi 1 or --budget 4.0G")
    if phi is not None and multiple is not None:
        raise ScalingError("--multiple does nothing with --phi, which rounds plainly; drop it")
    given_base = None if base is None else variant(base)
    if save is not None and save.exists():
        raise RequestError(f"{save} exists already; save under another name")
    if budget is not None:
        budget_macs = parse_macs(budget)
        origin = given_base or default_base(budget_macs)
        require_reach(origin, budget_macs)
        solution = solve(
            origin,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            budget_macs=budget_macs,
            step=2 if multiple is None else multiple,
        )
        scaling, scaled = solution.scaling, solution.variant
    else:
        assert phi is not None
        origin = given_base or variant("cmt-s")
        solution = None
        scaling = Scaling(phi, alpha, beta, gamma)
        scaled = scale_variant(origin, scaling)
    if save is not None:
        scaled = replace(scaled, name=save.stem)
        write_text_atomically(save, scaled.to_toml())
        messages().print(f"saved {save}", markup=False)
    if as_json:
        print(json.dumps(_as_json(origin, scaling, scaled, solution), indent=1))
        return
    if solution is not None:
        if given_base is None:
            _print_why(origin)
        _print_solution(solution)
    _print_variant(origin, scaled)


def _as_json(
    base: "Variant", scaling: "Scaling", scaled: "Variant", solution: "Solution | None"
) -> dict[str, Any]:
    """`phi` to `gamma` were asked for or solved; `implied_phi` and `shares` are the integers'."""
    from dataclasses import asdict

    from cmtscale.arch.cost import cost
    from cmtscale.arch.scaling import implied

    counted = cost(scaled)
    implied_phi, shares = implied(base, scaled)
    return {
        "base": base.name,
        "base_macs": cost(base).macs,
        "budget_macs": solution.budget_macs if solution else None,
        **asdict(scaling),
        "implied_phi": implied_phi,
        "shares": asdict(shares),
        "stray": solution.stray if solution else None,
        "macs": counted.macs,
        "params": counted.params,
        "variant": asdict(scaled),
    }


def _print_why(base: "Variant") -> None:
    """Which base the rule of `default_base` chose, and by which half of the rule."""
    from cmtscale.arch import paper
    from cmtscale.arch.budget import format_macs
    from cmtscale.arch.cost import cost
    from cmtscale.cli.console import results

    macs = cost(base).macs
    is_published = base.name in paper.VARIANTS
    rule = "the largest at most half the budget" if is_published else "the smallest, scaled down"
    results().print(
        f"base {base.name} ({format_macs(macs)} MACs): of the published variants {rule}"
    )


def _print_solution(solution: "Solution") -> None:
    from cmtscale.cli.console import results

    off_budget = 100 * (solution.macs / solution.budget_macs - 1)
    results().print(
        f"phi {solution.scaling.phi:.3f} hits the budget; rounded: {off_budget:+.1f} % off it, "
        f"at most {100 * solution.stray:.1f} % of the cost on another axis"
    )


def _print_variant(base: "Variant", scaled: "Variant") -> None:
    from cmtscale.arch.cost import cost
    from cmtscale.arch.scaling import implied
    from cmtscale.cli.console import results, thousands

    out = results()
    counted = cost(scaled)
    implied_phi, shares = implied(base, scaled)
    out.print(
        f"[bold]{scaled.name}[/bold]: {scaled.resolution_px} px, stem {scaled.stem_channels}, "
        f"dims {'-'.join(map(str, scaled.dims))}, depths {'-'.join(map(str, scaled.depths))}\n"
        f"{thousands(counted.macs)} MACs ({counted.macs / cost(base).macs:.2f} x {base.name}), "
        f"{thousands(counted.params)} params"
    )
    if implied_phi:
        out.print(
            f"its integers stand for phi {implied_phi:.3f}, shares: depth {shares.depth:.2f}, "
            f"width {shares.width:.2f}, resolution {shares.resolution:.2f}"
        )
