"""What a check of twins says in a sentence: for the check itself, and beside an answer."""

from cmtscale.arch.budget import format_macs
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
