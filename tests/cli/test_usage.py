"""Mistakes in options and arguments, in words that speak of no type of a library."""

from collections.abc import Callable

import pytest

COMMANDS = [
    "search --budget 4G --epochs x",
    "search --budget 4G --lr fast",
    "search --budget 4G --seeds 1e3",
    "search --budget 4G --seeds 99999999999999999999999999x",
    "search --budget 4G --sampler cmaes",
    "search --budget 4G --proxy=3",
    "search --budgt 4G",
    "train --out x",
    "flops --alpha 1,2",
    "plot",
    "serch",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_mistake_is_told_in_the_terms_of_a_library(
    refusal: Callable[..., str], command: str
) -> None:
    line = refusal(*command.split())
    for term in ("Input should", "integer", "unable to parse", "Value error", "Invalid value"):
        assert term not in line
    assert line.endswith("--help)")


@pytest.mark.parametrize("flag", ["--epochs", "--trials", "--workers", "--seeds"])
def test_zero_is_no_number_of_anything(refusal: Callable[..., str], flag: str) -> None:
    line = refusal("search", "--budget", "4G", flag, "0")
    assert f"{flag.strip('-')} 0 is not a whole number from 1 on; use 1 or more" in line


def test_the_help_that_is_named_is_that_of_the_command(refusal: Callable[..., str]) -> None:
    assert refusal("scale", "--phi").endswith("(see cmtscale scale --help)")
    assert refusal("--colour").endswith("(see cmtscale --help)")
