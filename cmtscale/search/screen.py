"""What the limits leave of the candidates on the budget, found out before anything is trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cmtscale.arch.budget import format_macs, format_seconds, rounded_up
from cmtscale.arch.errors import RequestError
from cmtscale.search.candidates import Candidate, lattice_candidates
from cmtscale.search.executors.base import Executor
from cmtscale.search.request import LimitName
from cmtscale.search.second_cost import exceeded, second_cost
from cmtscale.search.settings import Settings
from cmtscale.search.timings import Timings, with_latencies

TIMED_AT_ONCE = 8  # real networks that are held beside each other
REPEATED = 1.05  # a latency that is measured again may be so much higher


@dataclass(frozen=True, kw_only=True)
class Screened:
    """How many `networks` on the budget there are, how many are `left`, and what excluded them.

    `excluded` counts those that exceed each limit, some of them more than one; of the latency those
    of the `timed` networks, which exceed no other.
    """

    networks: int
    left: int
    excluded: Mapping[LimitName, int]
    timed: int


def screen(
    settings: Settings, timings: Timings, executor: Executor, note: Callable[[str], None]
) -> tuple[Timings, Screened | None]:
    """What the limits leave, and `timings` with the latencies that this takes; None without limits.

    Raises `RequestError` where nothing is left, which names the tightest limit and what to use.
    """
    limits = settings.limits
    if not limits:
        return timings, None
    # all of it: what is left does not depend on which of it a grid or a sampler would take
    lattice = lattice_candidates(settings, timings.latency_seconds)
    small = [candidate for candidate in lattice if set(candidate.over) <= {"latency"}]
    excluded = {name: sum(name in c.over for c in lattice) for name in limits}
    if not small:
        raise _nothing_left(settings, lattice, excluded, timings)
    left = small
    if "latency" in limits:
        timings = _with_all_latencies(timings, small, settings, executor, note)
        latencies = timings.latency_seconds
        left = [c for c in small if not exceeded(limits, c.real, latencies)]
        excluded["latency"] = len(small) - len(left)
        if not left:
            timed = [c for c in small if c.real.name in latencies]
            excluded["latency"] = len(timed)
            raise _nothing_left(settings, timed, excluded, timings)
    return timings, Screened(
        networks=len(lattice), left=len(left), excluded=excluded, timed=len(small)
    )


def limit_text(name: LimitName, most: float) -> str:
    """`--max-params 5M`, `--max-latency 8ms`."""
    return f"--max-{name} {format_seconds(most) if name == 'latency' else format_macs(most)}"


def _with_all_latencies(
    timings: Timings,
    candidates: Sequence[Candidate],
    settings: Settings,
    executor: Executor,
    note: Callable[[str], None],
) -> Timings:
    """`timings` with latencies of these candidates; those that it has stay as they are."""
    latencies = timings.latency_seconds
    networks = [c.real for c in candidates if c.real.name not in latencies]
    if networks:
        note(f"planning: {len(networks)} real networks predict, for --max-latency")
    for start in range(0, len(networks), TIMED_AT_ONCE):
        part = networks[start : start + TIMED_AT_ONCE]
        timings = with_latencies(timings, part, settings, executor)
    if candidates and not any(c.real.name in timings.latency_seconds for c in candidates):
        raise RequestError(
            "no real network could be timed on this device; leave --max-latency away, or use "
            "another --device"
        )
    return timings


def _nothing_left(
    settings: Settings,
    candidates: Sequence[Candidate],
    excluded: Mapping[LimitName, int],
    timings: Timings,
) -> RequestError:
    """That all `candidates` are excluded, by which limit most, and what would admit one.

    It would admit the candidate that exceeds the fewest limits, by the smallest factor.
    """
    factors: list[dict[LimitName, float]] = []
    for candidate in candidates:
        factors.append({})
        for name, most in settings.limits.items():
            value = second_cost(candidate.real, name, timings.latency_seconds)
            if value is not None:
                factors[-1][name] = value / most
    nearest = min(factors, key=lambda own: (sum(f > 1 for f in own.values()), max(own.values())))
    over = sorted((name for name in nearest if nearest[name] > 1), key=lambda n: -nearest[n])
    enough = " and ".join(_enough(name, nearest[name] * settings.limits[name]) for name in over)
    return RequestError(
        f"no network of {format_macs(settings.budget_macs)} MACs is within the limits; the "
        f"tightest is {limit_text(over[0], settings.limits[over[0]])}, which excludes "
        f"{excluded[over[0]]} of {len(candidates)}: use {enough} or more"
    )


def _enough(name: LimitName, value: float) -> str:
    """A limit that admits a network of this value, when it is measured again too."""
    return limit_text(name, rounded_up(value * (REPEATED if name == "latency" else 1)))
