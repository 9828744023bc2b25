"""What the runs of a check say: how each size of twins ranks the networks of the largest one."""

import math
from collections.abc import Sequence

import numpy as np

from cmtscale.arch.cost import cost
from cmtscale.record.row import Row
from cmtscale.record.twin_check import SizeFound, Tau, TwinCheck, TwinLine, TwinVerdict
from cmtscale.search.agreement import agreement, noise_of, spread_of, tau_of_noise
from cmtscale.search.check_side import asked_rows, losses_of
from cmtscale.search.curves import FloatArray
from cmtscale.search.settings import Settings
from cmtscale.search.twin_sizes import Size

MOST_NETWORKS = 100  # more than a check could ever have


def compare(
    own: Settings,
    sizes: Sequence[Size],
    rows: Sequence[Sequence[Row]],
    *,
    rung: int,
    seeds: int,
    threshold: float,
) -> tuple[TwinCheck, list[TwinLine]]:
    """The check of these sizes, the smallest first, each with the rows of its folder.

    Of the rows, those count that the check asks for: the first `seeds` of each network at a rung.
    """
    cells = [
        losses_of(
            asked_rows(size.settings, own_rows, rung, seeds),
            [twin.candidate for twin in size.twins.values()],
        )
        for size, own_rows in zip(sizes, rows, strict=True)
    ]
    found = [
        _found(size, own_cells, None if size is sizes[-1] else cells[-1], threshold)
        for size, own_cells in zip(sizes, cells, strict=True)
    ]
    smallest = next((size for size in found if size.tau and size.tau.tau >= threshold), None)
    check = TwinCheck(
        threshold=threshold,
        images_seen=own.images_seen[rung],
        seeds=seeds,
        own_macs=own.trained_macs,
        sizes=tuple(found),
        smallest_macs=None if smallest is None else smallest.macs,
        is_above=bool(smallest and smallest.tau and smallest.tau.low > threshold),
        tour=own.tour,
    )
    lines = [
        line
        for size, own_cells, one in zip(sizes, cells, found, strict=True)
        for line in _lines(size, own_cells, one.noise)
    ]
    return check, lines


def networks_needed(tau: Tau, threshold: float) -> int | None:
    """How many networks would probably put the interval on one side of the threshold.

    As its half width falls with the root of their number; None for more than a hundred.
    """
    gap = abs(tau.tau - threshold)
    half = tau.tau - tau.low if tau.tau > threshold else tau.high - tau.tau
    needed = math.inf if gap == 0 else math.ceil(tau.networks * max(1.0, (half / gap) ** 2))
    return int(needed) if needed <= MOST_NETWORKS else None


def _found(
    size: Size, cells: list[FloatArray], largest: list[FloatArray] | None, threshold: float
) -> SizeFound:
    noise, degrees = noise_of(cells)
    trained = sum(bool(len(cell)) for cell in cells)
    tau = None if largest is None else _tau(cells, largest)
    verdict: TwinVerdict = "the largest" if largest is None else "not measured"
    if tau is not None and tau.high < threshold:
        is_hidden = tau.alone is not None and tau.alone[0] < threshold
        verdict = "cannot be told" if is_hidden else "refuted"
    elif tau is not None:
        verdict = "not refuted"
    return SizeFound(
        macs=size.macs,
        base=size.settings.trained_base.name,
        base_macs=cost(size.settings.trained_base).macs,
        noise=noise if degrees else None,
        degrees=degrees,
        spread=spread_of(cells)[0] if trained > 1 else None,
        tau=tau,
        verdict=verdict,
    )


def _tau(cells: list[FloatArray], largest: list[FloatArray]) -> Tau | None:
    pairs = [(a, b) for a, b in zip(cells, largest, strict=True) if len(a) and len(b)]
    compared = agreement(cells, largest)
    if compared is None:
        return None
    small, large = (np.array([cell.mean() for cell in side]) for side in zip(*pairs, strict=True))
    return Tau(
        networks=compared.networks,
        tau=compared.tau,
        low=compared.tau_interval[0],
        high=compared.tau_interval[1],
        alone=_alone(*zip(*pairs, strict=True)),
        regret=float(np.expm1(large[small.argmin()] - large.min())),
    )


def _alone(
    small: Sequence[FloatArray], large: Sequence[FloatArray]
) -> tuple[float, float, float] | None:
    """What noise alone leaves of τ; None where it is not measured.

    Where the networks of a side do not differ by more than their noise, nothing: a mean of 0.
    """
    (noise, degrees), (other, more) = noise_of(small), noise_of(large)
    spreads = spread_of(small)[1], spread_of(large)[1]
    if not (degrees and more):
        return None
    errors = tuple(
        sigma * math.sqrt(float(np.mean([1 / len(cell) for cell in side])))
        for sigma, side in ((noise, small), (other, large))
    )
    mean, low, high = tau_of_noise(spreads, (errors[0], errors[1]), len(small))
    return mean if all(spreads) else 0.0, low, high


def _lines(size: Size, cells: Sequence[FloatArray], noise: float | None) -> list[TwinLine]:
    lines = []
    for (name, twin), cell in zip(size.twins.items(), cells, strict=True):
        shares = twin.network.shares
        error = noise / math.sqrt(len(cell)) if noise and len(cell) else None
        lines.append(
            TwinLine(
                network=name,
                role=twin.candidate.role,
                depth=shares.depth,
                width=shares.width,
                resolution=shares.resolution,
                size_macs=size.macs,
                twin=twin.candidate.name,
                twin_macs=twin.candidate.trained_macs,
                distance=twin.distance,
                stray=twin.stray,
                seeds=len(cell),
                loss=float(np.exp(cell.mean())) if len(cell) else None,
                error=error,
            )
        )
    return lines
