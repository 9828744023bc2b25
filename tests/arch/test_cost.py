"""Exact cost against published figures; the comparison with fvcore is in tests/model."""

import pytest

from cmtscale.arch import paper
from cmtscale.arch.cost import (
    cost,
    paper_block_macs,
    transformer_block_macs,
)
from cmtscale.arch.errors import VariantError
from cmtscale.arch.variant import variant

# Measured on the authors' code: params, of which position bias, MACs, fvcore total.
PUBLISHED = {
    "cmt-ti": (9_492_426, 75_000, 638_904_600, 651_573_200),
    "cmt-xs": (15_247_208, 155_520, 1_546_873_472, 1_574_779_808),
    "cmt-s": (26_256_160, 288_120, 4_031_742_464, 4_086_553_472),
    "cmt-b": (45_715_076, 491_520, 9_317_124_096, 9_425_156_096),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_cost_equals_the_authors_code(name):
    counted = cost(variant(name))
    assert (
        counted.params,
        counted.position_bias_params,
        counted.macs,
        counted.fvcore_flops,
    ) == PUBLISHED[name]


@pytest.mark.parametrize("name", ["cmt-ti", "cmt-xs", "cmt-s", "cmt-b"])
def test_the_papers_flops_are_our_macs(name):
    row = paper.VARIANTS[name]
    assert cost(variant(name)).macs / 1e9 == pytest.approx(row.flops_g, rel=0.005)


def test_paper_formula_is_the_printed_one_for_expansion_4():
    n, d, k = 3136, 64, 8
    assert paper_block_macs(n, d, k, 4) == pytest.approx(
        10 * n * d**2 * (1 + 0.2 / k**2) + 2 * n**2 * d / k**2 + 45 * n * d, rel=1e-12
    )
    assert transformer_block_macs(n, d, 4) == 12 * n * d**2 + 2 * n**2 * d


def test_paper_formula_leaves_out_just_the_kv_convolutions():
    counted = cost(variant("cmt-s"))
    blocks = sum(
        part.counts.macs
        for part in counted.parts
        if part.name.endswith((".lpu", ".lmhsa", ".irffn"))
    )
    kv_convs = sum(p.counts.conv for p in counted.parts if p.name.endswith(".lmhsa"))
    assert counted.paper_formula_macs == blocks - kv_convs


def test_parts_are_named_and_sum_to_the_total():
    counted = cost(variant("cmt-s"))
    assert [part.name for part in counted.parts] == [
        "stem",
        *(
            f"stage{stage}.{part}"
            for stage in (1, 2, 3, 4)
            for part in ("patch_embedding", "lpu", "lmhsa", "irffn")
        ),
        "head",
    ]
    assert sum(part.counts.macs for part in counted.parts) == counted.macs


def test_another_input_size_changes_operations_but_not_params():
    built = cost(variant("cmt-s"))
    wide = cost(variant("cmt-s"), height=320, width=256)
    assert wide.params == built.params
    assert wide.macs > built.macs
    assert wide.macs == cost(variant("cmt-s"), height=256, width=320).macs
    with pytest.raises(VariantError, match="resolution 300 px is not a positive multiple of 32"):
        cost(variant("cmt-s"), height=300)
