"""Candidates: points of the constraint surface that integers can express, solved to the budget.

What is trained grows from `trained_base` (the twin base, or the base itself without proxies); the
real variant is solved at the budget from the shares that the trained integers stand for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.lattice import (
    farthest_first,
    lattice,
    point_at,
    pure_resolution,
    pure_width,
    resolution_levels,
)
from cmtscale.arch.scaling import Scaling, Shares, implied, resize, scaling_from_shares
from cmtscale.arch.solve import STRAY_CAP, Solution, find, is_within_tolerance
from cmtscale.arch.variant import Variant, network_name
from cmtscale.record.row import Row
from cmtscale.search.request import LimitName
from cmtscale.search.second_cost import NOT_TIMED, exceeded
from cmtscale.search.settings import Settings

Role = Literal["base", "depth", "width", "resolution", "paper", "compound"]
TWIN_STRAY_CAP = 0.1  # a twin may misplace a tenth of its cost onto another axis
LARGEST_TRAINED = 1e9  # numbers, parameters and one image's activations, of a trained network
CENTRE = Shares(depth=1 / 3, width=1 / 3, resolution=1 / 3)
ANCHOR_ROLES: tuple[Role, ...] = ("base", "depth", "width", "resolution")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is trained, and the real variant that it stands for.

    `shares` are those of the trained integers. Pure one-dimensional candidates and the base stand
    at their own MACs and may be off the budget; `over` are the limits that the real variant of a
    candidate on it exceeds. `stray` and `phi` are those of the real variant.
    """

    name: str
    role: Role
    shares: Shares
    trained: Variant
    trained_macs: int
    real: Variant
    macs: int
    phi: float
    stray: float
    on_budget: bool
    over: tuple[LimitName, ...] = ()

    @property
    def may_be_chosen(self) -> bool:
        """On the budget and within the limits."""
        return self.on_budget and not self.over

    @property
    def may_be_trained(self) -> bool:
        """Within the limits, or what forecasts rest on: the base and each axis alone."""
        return not self.over or self.role in ANCHOR_ROLES


def grid(settings: Settings, latencies: Mapping[str, float] = NOT_TIMED) -> list[Candidate]:
    """The base, each axis alone, and at most `settings.trials` candidates that mix the axes.

    The mixed ones begin with the paper's constants, where integers can express them, and go on
    from the centre of the triangle to whatever is farthest from all before: a few are spread well,
    and a higher number adds to them. A mixture that exceeds a limit is passed over; where
    latencies are limited, `latencies` are seconds of an image by real network.
    """
    candidates = _anchors_and_others(settings, latencies)
    anchors, others = ([c for c in part if c.may_be_trained] for part in candidates)
    alone = [candidate for candidate in anchors if candidate.role != "paper"]
    mixed = [candidate for candidate in anchors if candidate.role == "paper"]
    taken = [candidate.shares for candidate in anchors if candidate.role != "base"]
    mixed += farthest_first(others, taken=taken, first=CENTRE)
    return [*alone, *mixed[: settings.trials]]


def lattice_candidates(settings: Settings, latencies: Mapping[str, float]) -> list[Candidate]:
    """Every candidate on budget: the corners, the paper's constants, and the whole lattice.

    What samplers choose among, each network once, always in the same order; some may exceed limits.
    """
    anchors, others = _anchors_and_others(settings, latencies)
    return [*(candidate for candidate in anchors if candidate.on_budget), *others]


def make_candidate(
    settings: Settings,
    role: Role,
    network: Variant,
    latencies: Mapping[str, float],
) -> Candidate | None:
    """The candidate that trains `network`; None if its shares have no variant at the budget.

    Both the candidate and the network it trains are named by the network's integers, so that a
    network has one name in every search.
    """
    name = network_name(network)
    trained = replace(network, name=name)
    shares = _shares(settings, role, trained)
    trained_macs = cost(trained).macs
    if not settings.proxy:
        phi, _ = implied(settings.base, trained)
        real, stray = trained, 0.0
    elif role == "base":
        real, phi, stray = settings.base, 0.0, 0.0
    elif role == "resolution":
        real = pure_resolution(settings.base, settings.budget_macs)
        phi, _ = implied(settings.base, real)
        stray = 0.0
    else:
        scaling = scaling_from_shares(0.0, shares)
        solution = find(settings.base, scaling, settings.budget_macs)
        if solution is None:
            return None
        real, phi, stray = solution.variant, solution.phi, solution.stray
    macs = cost(real).macs
    on_budget = (
        role != "base"
        and is_within_tolerance(macs, settings.budget_macs)
        and is_within_tolerance(trained_macs, settings.trained_macs)
    )
    real = replace(real, name=network_name(real))
    return Candidate(
        name=name,
        role=role,
        shares=shares,
        trained=trained,
        trained_macs=trained_macs,
        real=real,
        macs=macs,
        phi=phi,
        stray=stray,
        on_budget=on_budget,
        over=exceeded(settings.limits, real, latencies) if on_budget else (),
    )


def recorded_candidate(settings: Settings, row: Row, latencies: Mapping[str, float]) -> Candidate:
    """The candidate that a row of the record stands for, from its role and its integers alone."""
    role = cast(Role, row.role)
    trained, real = settings.trained_base, settings.base
    if role != "base":
        trained = resize(
            trained,
            name="trained",
            dim1=row.proxy_dims[0],
            depths=row.proxy_depths,
            resolution_px=row.proxy_resolution_px,
        )
        real = resize(
            real,
            name="real",
            dim1=row.dims[0],
            depths=row.depths,
            resolution_px=row.resolution_px,
        )
    real = replace(real, name=network_name(real))
    return Candidate(
        name=row.candidate,
        role=role,
        shares=_shares(settings, role, trained),
        trained=replace(trained, name=network_name(trained)),
        trained_macs=row.proxy_macs,
        real=real,
        macs=row.macs,
        phi=row.phi,
        stray=row.stray,
        on_budget=row.on_budget,
        over=exceeded(settings.limits, real, latencies) if row.on_budget else (),
    )


def paper_solution(settings: Settings) -> Solution | None:
    """The paper's constants solved to the budget, to stand beside the choice; None: they cannot."""
    return find(settings.base, Scaling(0.0), settings.budget_macs)


def extreme_networks(settings: Settings) -> tuple[Variant, ...]:
    """What is trained at each corner of the triangle and for the base: from slow to fast."""
    return tuple(network for _, network in _anchors(settings))


def largest_resolution(settings: Settings) -> int:
    """The largest side in px that any candidate can be trained at."""
    base, target = settings.trained_base, settings.trained_macs
    pure = pure_resolution(base, target).resolution_px
    return max(*resolution_levels(base, target), base.resolution_px, pure)


def require_trainable(settings: Settings) -> None:
    """Raise `RequestError` if a network of this search could be held by no ordinary machine."""
    for network in extreme_networks(settings):
        counted = cost(network)
        if counted.params + counted.activations > LARGEST_TRAINED:
            twins = "--proxy-macs" if settings.proxy else "--budget"
            raise RequestError(
                f"a network of {format_macs(counted.macs)} MACs at {network.resolution_px} px, "
                f"grown from {settings.trained_base.name}, holds {counted.params:.2g} parameters "
                f"and {counted.activations:.2g} activations an image; use less {twins}"
            )


def _anchors(settings: Settings) -> list[tuple[Role, Variant]]:
    """The base, each axis alone, and the paper's constants where integers can express them."""
    base, target = settings.trained_base, settings.trained_macs
    anchors: list[tuple[Role, Variant]] = [("base", base)]
    side, dim1, cap = base.resolution_px, base.dims[0], _stray_cap(settings)
    depth = point_at(base, target, side, dim1, stray_cap=cap)
    if depth is not None:
        anchors.append(("depth", depth.variant))
    anchors.append(("width", pure_width(base, target)))
    anchors.append(("resolution", pure_resolution(base, target)))
    published = find(base, Scaling(0.0), target, stray_cap=cap)
    if published is not None:
        anchors.append(("paper", published.variant))
    return anchors


def _make_candidates(
    settings: Settings, networks: list[tuple[Role, Variant]], latencies: Mapping[str, float]
) -> list[Candidate]:
    candidates: dict[str, Candidate] = {}  # networks of one base with one name are the same
    for role, network in networks:
        if network_name(network) not in candidates:
            candidate = make_candidate(settings, role, network, latencies)
            if candidate is not None:
                candidates[candidate.name] = candidate
    return list(candidates.values())


def _anchors_and_others(
    settings: Settings, latencies: Mapping[str, float]
) -> tuple[list[Candidate], list[Candidate]]:
    """The anchors, and a candidate on budget for each other network of the lattice."""
    anchors = _anchors(settings)
    base, target = settings.trained_base, settings.trained_macs
    points = lattice(base, target, stray_cap=_stray_cap(settings))
    others: list[tuple[Role, Variant]] = [("compound", point.variant) for point in points]
    candidates = _make_candidates(settings, [*anchors, *others], latencies)
    return (
        [candidate for candidate in candidates if candidate.role != "compound"],
        [c for c in candidates if c.role == "compound" and c.on_budget],
    )


def _shares(settings: Settings, role: Role, trained: Variant) -> Shares:
    """The shares that the integers of what is trained stand for."""
    _, shares = implied(settings.trained_base, trained)
    return shares if role == "base" else shares.normalised()


def _stray_cap(settings: Settings) -> float:
    return TWIN_STRAY_CAP if settings.proxy else STRAY_CAP
