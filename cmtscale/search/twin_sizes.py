"""The same networks as twins of several sizes: which sizes, which networks, which integers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace

from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.lattice import farthest_first
from cmtscale.arch.scaling import scaling_from_shares
from cmtscale.arch.solve import find
from cmtscale.arch.twins import twin_bases
from cmtscale.arch.variant import Variant, network_name
from cmtscale.record.row import Row
from cmtscale.search.agreement import LEAST_NETWORKS
from cmtscale.search.candidates import CENTRE, TWIN_STRAY_CAP, Candidate
from cmtscale.search.runs import CORNERS, anchors
from cmtscale.search.samplers import known_candidates
from cmtscale.search.settings import Settings

NETWORKS = 8  # that a check ranks, where integers express so many at all its sizes
FEW_NETWORKS = 6  # with fewer, a size is not taken by default
REACH = 8.0  # times the MACs of the search's own twins: farther ones take too long unasked
SIZES = 3  # that a check has by default
APART = 2.0  # at least so many times the MACs of the size before
NEAR = 1.5  # a size that is asked for may be off by so much: resolution goes in steps of 32 px


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A `network` of the search at one size: `candidate` is trained, and has its real variant.

    `distance` is that of its shares from the network's, `stray` the part of its cost that rounding
    moved to another axis.
    """

    network: Candidate
    candidate: Candidate
    distance: float
    stray: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """Twins of one size: `settings` are the search's with other twins; `twins` by network."""

    settings: Settings
    twins: Mapping[str, Twin]

    @property
    def macs(self) -> int:
        return self.settings.trained_macs


def networks_to_check(
    settings: Settings, rows: Sequence[Row], latencies: Mapping[str, float]
) -> list[Candidate]:
    """The search's candidates on the budget, in the order in which a check takes them.

    First the corners of the triangle and the mixture nearest to its centre, then what is farthest
    from all before. Others cost more or less than they should, and so their ranks differ.
    """
    on_budget = [c for c in known_candidates(settings, rows, latencies) if c.on_budget]
    corners = [candidate for candidate in on_budget if candidate.role in CORNERS]
    mixed = [candidate for candidate in on_budget if candidate.role not in CORNERS]
    taken = [corner.shares for corner in corners]
    return [*corners, *farthest_first(mixed, taken=taken, first=CENTRE)]


def choose_sizes(
    settings: Settings, networks: Sequence[Candidate], largest_px: int, asked: Sequence[int]
) -> tuple[Size, ...]:
    """The sizes `asked` for (MACs of a twin), or the search's own and the next two; smallest first.

    All have the same networks: those, eight at most, that integers express at every size.
    `largest_px` is the largest side that the images serve. Raises `RequestError` for sizes
    that there are no twins of, and where fewer than four networks are left.
    """
    possible = _possible_sizes(settings)
    if asked:
        chosen = {_nearest(possible, macs).trained_macs for macs in asked}
        sizes = [
            _size(settings, size, networks, largest_px)
            for size in possible
            if size.trained_macs in chosen
        ]
    else:
        sizes = _next_sizes(settings, possible, networks, largest_px)
    if len(sizes) < 2:
        raise RequestError(
            f"a check compares twins of two sizes or more, and this is one, "
            f"{format_macs(sizes[0].macs)}; use --sizes with some of {_written(possible)}"
        )
    names = [n.name for n in networks if all(n.name in size.twins for size in sizes)][:NETWORKS]
    if len(names) < LEAST_NETWORKS:
        raise RequestError(
            f"integers express {len(names)} of the search's {len(networks)} networks on the budget "
            f"at {', '.join(format_macs(size.macs) for size in sizes)}; a ranking takes "
            f"{LEAST_NETWORKS}: use other --sizes, or search with more --trials"
        )
    return tuple(replace(size, twins={name: size.twins[name] for name in names}) for size in sizes)


def _next_sizes(
    settings: Settings,
    possible: Sequence[Settings],
    networks: Sequence[Candidate],
    largest_px: int,
) -> list[Size]:
    """The search's own size and the next two that have its anchors and enough other networks."""
    steady = {anchor.name for anchor in anchors(networks)}
    sizes = [_size(settings, settings, networks, largest_px)]
    for larger in possible:
        is_near = larger.trained_macs <= REACH * settings.trained_macs
        if is_near and len(sizes) < SIZES and larger.trained_macs >= APART * sizes[-1].macs:
            size = _size(settings, larger, networks, largest_px)
            if steady <= size.twins.keys() and len(size.twins) >= min(FEW_NETWORKS, len(networks)):
                sizes.append(size)
    return sizes


def _possible_sizes(settings: Settings) -> list[Settings]:
    """The search with twins of its own size and of each that its base can be shrunk to.

    The smallest first, the last are the real networks. All grow by the same factor, but the real.
    """
    growth = settings.trained_macs / cost(settings.trained_base).macs
    sizes = [
        settings,
        replace(settings, trained_base=settings.base, trained_macs=settings.budget_macs),
    ]
    own = settings.trained_base
    for base in twin_bases(settings.base):
        macs = round(growth * cost(base).macs)
        if macs < settings.budget_macs and not base.same_network(own):
            sizes.append(replace(settings, trained_base=base, trained_macs=macs))
    return sorted(sizes, key=lambda size: size.trained_macs)


def _nearest(possible: Sequence[Settings], macs: int) -> Settings:
    nearest = min(possible, key=lambda size: abs(math.log(size.trained_macs / macs)))
    if abs(math.log(nearest.trained_macs / macs)) > math.log(NEAR):
        raise RequestError(
            f"there are no twins of {format_macs(macs)} MACs that are 64 px or more and no larger "
            f"than the real networks; use some of {_written(possible)}"
        )
    return nearest


def _written(possible: Sequence[Settings]) -> str:
    """The possible sizes that are apart, in short."""
    written: list[int] = []
    for size in possible:
        if not written or size.trained_macs >= APART * written[-1]:
            written.append(size.trained_macs)
    return ", ".join(map(format_macs, written))


def _size(
    own: Settings, settings: Settings, networks: Sequence[Candidate], largest_px: int
) -> Size:
    """The twins of one size, each once, that are not larger than the images are packed for."""
    twins: dict[str, Twin] = {}
    trained: set[str] = set()
    for network in networks:
        twin = _own(network, network) if settings is own else _twin(settings, network)
        if (
            twin is not None
            and twin.candidate.name not in trained
            and twin.candidate.trained.resolution_px <= largest_px
        ):
            trained.add(twin.candidate.name)
            twins[network.name] = twin
    return Size(settings=settings, twins=twins)


def _own(network: Candidate, trained: Candidate) -> Twin:
    """What has the integers of the search's own twin, or those of the real network."""
    return Twin(network=network, candidate=trained, distance=0.0, stray=0.0)


def _twin(settings: Settings, network: Candidate) -> Twin | None:
    """The twin with the shares of `network`; None where integers stray too far from them."""
    if settings.trained_base is settings.base:  # the real networks
        return _own(network, _training(network, network.real))
    scaling = scaling_from_shares(0.0, network.shares)
    macs = settings.trained_macs
    solution = find(settings.trained_base, scaling, macs, stray_cap=TWIN_STRAY_CAP)
    if solution is None:
        return None
    shares = solution.shares.normalised()
    return Twin(
        network=network,
        candidate=replace(_training(network, solution.variant), shares=shares),
        distance=math.dist(astuple(shares), astuple(network.shares)),
        stray=solution.stray,
    )


def _training(network: Candidate, trained: Variant) -> Candidate:
    """The network with another twin, which names it."""
    trained = replace(trained, name=network_name(trained))
    return replace(network, name=trained.name, trained=trained, trained_macs=cost(trained).macs)
