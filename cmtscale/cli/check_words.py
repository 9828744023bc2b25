"""What a check says in a sentence: for the check itself, and beside an answer."""

import math

from cmtscale.arch.budget import format_macs
from cmtscale.record.rate_check import AnchorFound, RateCheck
from cmtscale.record.twin_check import SizeFound, Tau, TwinCheck

UNCHECKED = "that twins rank as the real networks do is assumed, not measured"


def tau_cell(tau: Tau) -> str:
    """`0.79 (0.43 to 1.00)`."""
    return f"{tau.tau:.2f} ({tau.low:.2f} to {tau.high:.2f})"


def sizes_verdict(check: TwinCheck, size: SizeFound) -> str:
    """Whether the largest twins refute one size."""
    largest = format_macs(check.sizes[-1].macs)
    if size.tau is None:
        return f"twins of {format_macs(size.macs)} MACs against {largest}: not measured"
    return (
        f"twins of {format_macs(size.macs)} MACs against {largest}: τ {tau_cell(size.tau)} over "
        f"{size.tau.networks} networks after {check.images_seen:,} images, {size.verdict} at "
        f"{check.threshold:g}"
    )


def beside_answer(check: TwinCheck | None, trained_macs: int) -> str:
    """What is known of the twins of an answer, which have so many MACs."""
    if check is None or check.own_macs != trained_macs:
        return UNCHECKED
    own, largest = check.own, format_macs(check.sizes[-1].macs)
    if own is None or own.tau is None:
        return UNCHECKED
    return (
        f"checked: {sizes_verdict(check, own)}; that those of {largest} rank as the real networks "
        f"do is assumed"
    )


def factor_name(factor: float) -> str:
    """`×½`, `×1` or `×2`."""
    return "×½" if factor == 0.5 else f"×{factor:g}"


def rates_verdict(check: RateCheck) -> str:
    """Whether one learning rate serves all networks of a search."""
    if check.verdict == "one rate serves all":
        return (
            f"one rate serves all: none of {len(check.anchors)} networks is better at another than "
            f"{check.lr:g} by more than the noise, and what it hides cannot cost the choice among "
            f"them more than {100 * check.tolerance:g} %"
        )
    if check.verdict == "another rate is wanted":
        return "; ".join(_wants(anchor) for anchor in check.wanting)
    if check.noise is None:
        return "cannot be told from noise: one seed does not measure it; use --seeds 2"
    if check.may_lose is None:
        return "cannot be told: not all runs are complete; the same command tries them again"
    return (
        f"cannot be told from noise with {check.seeds} seeds: what it hides may cost the choice "
        f"{percent(check.may_lose)}; more --seeds would tell"
    )


def percent(part: float) -> str:
    """`3.1 %`."""
    return f"{100 * part:.1f} %"


def _wants(anchor: AnchorFound) -> str:
    assert anchor.wants is not None
    wish = f"{anchor.role} wants another rate ({factor_name(anchor.wants)})"
    if anchor.hidden is None:
        return f"{wish}: at the search's rate some of its runs have no loss"
    return (
        f"{wish}: the ranking at this rate understates it by up to "
        f"{percent(-math.expm1(-anchor.hidden))}"
    )
