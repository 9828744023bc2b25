"""Ladders: presets, files, the horizons of their rungs, and seeds that no two rungs share."""

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from cmtscale.arch.errors import CmtscaleError, RequestError
from cmtscale.search.ladder import (
    PRESETS,
    Ladder,
    horizon_of_rung,
    ladder_from_table,
    read_ladder,
    seed_of,
)


@pytest.mark.parametrize(
    ("name", "rungs"), [("flat", 1), ("quick", 2), ("standard", 3), ("thorough", 4)]
)
def test_a_preset_is_read_by_its_name(name: Any, rungs: int) -> None:
    ladder = read_ladder(name)
    assert ladder == PRESETS[name]
    assert ladder.rungs == rungs


def test_the_flat_ladder_trains_every_candidate_and_decides_nothing() -> None:
    flat = PRESETS["flat"]
    assert (flat.noise_degrees, flat.spend) == (0, 0)
    assert all(ladder.spend > 0 for ladder in PRESETS.values() if ladder is not flat)


@pytest.mark.parametrize(
    "ladder",
    [*PRESETS.values(), Ladder(rungs=6, noise_degrees=0, spend=100, batch=1, enough=1)],
)
def test_a_ladder_is_read_back_from_its_file(tmp_path: Path, ladder: Ladder) -> None:
    path = tmp_path / "ladder.toml"
    path.write_text(tomli_w.dumps(asdict(ladder)))
    assert read_ladder(str(path)) == ladder


def test_what_a_file_leaves_open_is_as_in_the_standard_ladder(tmp_path: Path) -> None:
    path = tmp_path / "ladder.toml"
    path.write_text("rungs = 2\n")
    assert read_ladder(str(path)) == Ladder(rungs=2)
    path.write_text("")
    assert read_ladder(str(path)) == PRESETS["standard"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rungs = ", "is damaged"),
        ("rung = 2", r"has rung, which no ladder has; use some of rungs, noise_degrees, spend"),
        ("rungs = 0", "rungs 0 is not a whole number from 1 on"),
        ("rungs = 7", "rungs 7 is out of range; use 1 to 6"),
        ("batch = 0", "batch 0 is not a whole number from 1 on"),
        ("batch = 1.5", r"batch 1\.5 is not a whole number"),
        ("noise_degrees = -1", "noise_degrees -1 is out of range; use 0 to 100"),
        ("noise_degrees = true", "noise_degrees True is out of range"),
        ("spend = -0.1", r"spend -0\.1 is out of range; use 0 to 100"),
        ("spend = nan", "spend nan is out of range"),
        ("spend = '30 %'", "spend '30 %' is not a number; use one such as 0.3"),
        ("enough = 1.1", r"enough 1\.1 is out of range; use 0\.8 to 1"),
        ("enough = false", "enough False is not a number"),
    ],
)
def test_a_file_that_is_no_ladder_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "ladder.toml"
    path.write_text(text)
    with pytest.raises(CmtscaleError, match=words) as caught:
        read_ladder(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_neither_a_preset_nor_a_file_is_refused_with_both(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"'steep' is neither one of flat, .* nor a file") as e:
        read_ladder("steep")
    for name in (*PRESETS, *asdict(Ladder())):
        assert name in str(e.value)
    with pytest.raises(CmtscaleError, match="cannot be read"):
        read_ladder(str(tmp_path))


def test_the_source_of_an_unknown_field_is_named() -> None:
    with pytest.raises(RequestError, match=r"^here has a, b, which no ladder has"):
        ladder_from_table({"a": 1, "rungs": 2, "b": 3}, source="here")


@pytest.mark.parametrize(
    ("first", "pool_images", "horizons"),
    [
        ((1, 6_000), 54_000, [(1, 6_000), (1, 18_000), (1, 54_000), (3, 54_000)]),
        # 18,000 and 54,000 of 17,000: as many passes over all of them as come nearest
        ((1, 6_000), 17_000, [(1, 6_000), (1, 17_000), (3, 17_000), (10, 17_000)]),
        ((1, 6_000), 18_000, [(1, 6_000), (1, 18_000), (3, 18_000), (9, 18_000)]),
        ((72, 84), 84, [(72, 84), (216, 84), (648, 84), (1944, 84)]),
        ((1, 100), 110, [(1, 100), (3, 110), (8, 110), (25, 110)]),
    ],
)
def test_every_image_is_seen_once_while_they_last_and_then_all_equally_often(
    first: tuple[int, int], pool_images: int, horizons: list[tuple[int, int]]
) -> None:
    ladder = [horizon_of_rung(rung, first, pool_images=pool_images) for rung in range(4)]
    assert ladder == horizons


@given(
    images=st.integers(1, 10**6),
    pool_factor=st.floats(1, 1000),
    epochs=st.integers(1, 1000),
)
def test_each_rung_sees_about_three_times_as_many_images(
    images: int, pool_factor: float, epochs: int
) -> None:
    # a first rung that repeats its images is all that later ones draw from
    pool = round(images * pool_factor) if epochs == 1 else images
    seen = []
    for rung in range(6):
        passes, of_each = horizon_of_rung(rung, (epochs, images), pool_images=pool)
        assert passes >= 1
        assert of_each <= pool
        seen.append(passes * of_each)
        # whole passes miss by half a pass at most
        assert abs(seen[rung] - epochs * images * 3**rung) <= (pool / 2 if rung else 0)
    assert all(2 * one <= other for one, other in pairwise(seen))


def test_no_two_rungs_share_a_seed() -> None:
    seeds = [seed_of(rung, replicate) for rung in range(6) for replicate in range(100)]
    assert len(set(seeds)) == 600
    assert seeds[:2] == [0, 1]
    assert seed_of(2, 0) == 200
