"""Published variants, validation and the TOML round trip."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmtscale.arch.errors import VariantError
from cmtscale.arch.variant import (
    Stage,
    Variant,
    network_name,
    published_variants,
    variant,
    variant_from_toml,
)

STAGE = Stage(dim=46, depth=2, heads=1, reduction=8, expansion=3.6)


def test_published_variants_hold_table_1():
    assert [v.name for v in published_variants()] == ["cmt-ti", "cmt-xs", "cmt-s", "cmt-b"]
    small = variant("cmt-s")
    assert (small.resolution_px, small.stem_channels) == (224, 32)
    assert (small.dims, small.depths) == ((64, 128, 256, 512), (3, 3, 16, 3))
    assert [s.heads for s in small.stages] == [1, 2, 4, 8]
    assert [s.reduction for s in small.stages] == [8, 4, 2, 1]
    assert (small.num_classes, small.in_channels) == (1000, 3)


def test_ffn_hidden_width_is_truncated_as_published():
    assert variant("cmt-ti").stages[0].hidden == 165  # 46 · 3.6 = 165.6
    assert variant("cmt-xs").stages[0].hidden == 196  # 52 · 3.77 = 196.04


@pytest.mark.parametrize("spelling", ["cmt-s", "CMT-S", "cmt_s"])
def test_names_are_read_in_the_usual_spellings(spelling):
    assert variant(spelling) == variant("cmt-s")


@given(
    dim1=st.integers(1, 64),
    depths=st.tuples(*[st.integers(1, 40)] * 4),
    expansion=st.floats(1, 8, allow_nan=False),
    side=st.integers(2, 20),
    classes=st.integers(1, 5000),
)
def test_toml_round_trip_is_exact(dim1, depths, expansion, side, classes):
    stages = tuple(
        Stage(
            dim=dim1 * 2**i,
            depth=depths[i],
            heads=2**i,
            reduction=2 ** (3 - i),
            expansion=expansion,
        )
        for i in range(4)
    )
    made = Variant(
        name="x-1", resolution_px=32 * side, stem_channels=7, stages=stages, num_classes=classes
    )
    assert variant_from_toml(made.to_toml()) == made


def test_variant_reads_a_toml_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(variant("cmt-xs").to_toml())
    assert variant(path) == variant("cmt-xs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution_px": 100}, "resolution 100 px is not a positive multiple of 32; use 96"),
        ({"resolution_px": 0}, "resolution_px 0 is not a positive whole number; use 1 or more"),
        ({"num_classes": True}, "num_classes True is not a positive whole number"),
        ({"stem_channels": 1.5}, "stem_channels 1.5 is not a positive whole number"),
        ({"name": "a b"}, "name 'a b' is not a plain word"),
    ],
)
def test_an_illegal_variant_cannot_exist(change, message):
    with pytest.raises(VariantError, match="^" + message.replace(".", r"\.")):
        replace(variant("cmt-ti"), **change)


def test_dim_not_divisible_by_heads_names_the_nearest_legal_one():
    with pytest.raises(VariantError, match=r"^dim 46 is not divisible by 8 heads; use 48$"):
        replace(STAGE, heads=8)


def test_reduction_larger_than_its_grid_is_refused():
    stages = tuple(replace(s, reduction=16) for s in variant("cmt-ti").stages)
    with pytest.raises(VariantError, match="stage 3: reduction 16 is larger than its 10x10 grid"):
        replace(variant("cmt-ti"), stages=stages)


@pytest.mark.parametrize("expansion", [0, -1.0, float("nan"), float("inf"), 0.01, "4"])
def test_expansion_must_give_the_ffn_a_width(expansion):
    with pytest.raises(VariantError, match="expansion"):
        replace(STAGE, expansion=expansion)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text + "\ncolour = 1\n", "unknown colour"),
        (lambda text: text.replace("stem_channels = 16\n", ""), "lacks stem_channels"),
        (lambda text: text.replace("depth = 10", "depth = 0"), "depth 0 is not a positive"),
        (lambda text: text.replace("depth = 10, ", ""), "stage 3 lacks depth"),
        (lambda text: text + "\nbroken = = 1\n", "not valid TOML"),
        (lambda _: "x = 1", r"no \[\[stages\]\]"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(tmp_path, edit, message):
    path = tmp_path / "mine.toml"
    path.write_text(edit(variant("cmt-ti").to_toml()))
    with pytest.raises(VariantError, match=message) as caught:
        variant(path)
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(VariantError, match="'cmt-x' is not one of cmt-ti, cmt-xs, cmt-s, cmt-b"):
        variant("cmt-x")
    with pytest.raises(VariantError, match="cannot be read: No such file"):
        variant(tmp_path / "no.toml")


def test_a_network_s_name_is_made_of_its_integers_whatever_it_is_called():
    small = variant("cmt-s")
    assert network_name(small) == network_name(replace(small, name="x")) == "d3.3.16.3-w64-r224"
    for changed in (
        replace(small, resolution_px=256),
        replace(small, stages=tuple(replace(s, depth=s.depth + 1) for s in small.stages)),
        replace(small, stages=tuple(replace(s, dim=2 * s.dim) for s in small.stages)),
    ):
        assert network_name(changed) != network_name(small)
        assert replace(small, name=network_name(changed)).name == network_name(changed)  # legal
