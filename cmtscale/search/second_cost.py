"""Second costs of a real network, beside its loss: what decides among equals, and limits on it."""

from collections.abc import Mapping
from types import MappingProxyType

from cmtscale.arch.cost import cost
from cmtscale.arch.variant import Variant
from cmtscale.search.request import LimitName, SecondCost

NOT_TIMED: Mapping[str, float] = MappingProxyType({})  # latencies where nothing was timed


def second_cost(network: Variant, name: SecondCost, latencies: Mapping[str, float]) -> float | None:
    """A network's parameters, activations of an image, MACs, or latency in seconds.

    None for the latency of a network that has none in `latencies`, by its name.
    """
    if name == "latency":
        return latencies.get(network.name)
    return float(getattr(cost(network), name))


def exceeded(
    limits: Mapping[LimitName, float], network: Variant, latencies: Mapping[str, float]
) -> tuple[LimitName, ...]:
    """The limits that a network exceeds; that on the latency too where it has none.

    The latency of a network that exceeds another limit is not looked at: it need not be measured.
    """
    over: list[LimitName] = []
    for name in ("params", "activations", "latency"):
        if name in limits and not (name == "latency" and over):
            value = second_cost(network, name, latencies)
            if value is None or value > limits[name]:
                over.append(name)
    return tuple(over)
