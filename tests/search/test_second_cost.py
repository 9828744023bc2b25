"""Which limits a real network exceeds."""

from cmtscale.arch.cost import cost
from cmtscale.arch.variant import Variant
from cmtscale.search.second_cost import exceeded, second_cost


def test_a_limit_is_exceeded_above_it_and_not_at_it(tiny_base: Variant) -> None:
    counted = cost(tiny_base)
    at = {"params": counted.params, "activations": counted.activations}
    assert exceeded(at, tiny_base, {}) == ()
    assert exceeded({**at, "params": counted.params - 1}, tiny_base, {}) == ("params",)
    below = {name: most - 1 for name, most in at.items()}
    assert exceeded(below, tiny_base, {}) == ("params", "activations")


def test_a_network_that_was_not_timed_is_over_a_latency(tiny_base: Variant) -> None:
    limits = {"latency": 0.008}
    assert exceeded(limits, tiny_base, {}) == ("latency",)
    assert exceeded(limits, tiny_base, {tiny_base.name: 0.0081}) == ("latency",)
    assert exceeded(limits, tiny_base, {tiny_base.name: 0.008}) == ()


def test_what_exceeds_another_limit_need_not_be_timed(tiny_base: Variant) -> None:
    assert exceeded({"latency": 0.008, "params": 1}, tiny_base, {}) == ("params",)


def test_second_costs_are_those_of_the_network(tiny_base: Variant) -> None:
    assert second_cost(tiny_base, "params", {}) == cost(tiny_base).params
    assert second_cost(tiny_base, "activations", {}) == cost(tiny_base).activations
    assert second_cost(tiny_base, "macs", {}) == cost(tiny_base).macs
    assert second_cost(tiny_base, "latency", {}) is None
    assert second_cost(tiny_base, "latency", {tiny_base.name: 0.5}) == 0.5
