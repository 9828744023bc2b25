"""`cmtscale variants`: the published family."""

import json
from collections.abc import Callable

import pytest

from cmtscale.arch.cost import cost
from cmtscale.arch.variant import variant

FAMILY = ("cmt-ti", "cmt-xs", "cmt-s", "cmt-b")


@pytest.mark.parametrize("name", FAMILY)
def test_variants_lists_the_family_with_exact_costs(printed: Callable[..., str], name: str) -> None:
    (line,) = [line for line in printed("variants").splitlines() if line.startswith(name)]
    assert f"{cost(variant(name)).macs:,}" in line
    assert f"{cost(variant(name)).params:,}" in line


def test_the_json_of_variants_is_as_others_rely_on(printed: Callable[..., str]) -> None:
    entries = json.loads(printed("variants", "--json"))
    assert [entry["name"] for entry in entries] == list(FAMILY)
    assert entries[2] == {
        "name": "cmt-s",
        "resolution_px": 224,
        "stem_channels": 32,
        "dims": [64, 128, 256, 512],
        "depths": [3, 3, 16, 3],
        "expansion": 4.0,
        "params": 26_256_160,
        "macs": 4_031_742_464,
        "paper": {"params_m": 25.14, "flops_g": 4.04, "top1": 83.5},
    }
