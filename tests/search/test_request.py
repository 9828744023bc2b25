"""Requests: defaults, refusals, the request file and the identity of a search."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cmtscale.arch.budget import parse_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import CmtscaleError, RequestError
from cmtscale.arch.twins import PROXY_BASE
from cmtscale.arch.variant import variant
from cmtscale.data.dataset import Description
from cmtscale.search.ladder import PRESETS, Ladder
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.settings import Settings, read_settings
from cmtscale.train.recipe import Recipe

G = 1_000_000_000
FASHION = Description(num_classes=10, channels=1, train_images=54_000, val_images=6_000)


def pets(train_images: int) -> Description:
    return Description(num_classes=3, channels=3, train_images=train_images, val_images=10)


def resolved(**changes: Any) -> Settings:
    request = SearchRequest(**{"budget_macs": 4 * G, **changes})
    return resolve(request, FASHION)


def explicit() -> Settings:
    """Settings with every value explicit, so that tuned defaults do not change them."""
    recipe = Recipe(
        epochs=3,
        train_images=100,
        batch_size=16,
        lr=1e-3,
        reference_dim=8,
        warmup_fraction=0.2,
        weight_decay=0.1,
        beta1=0.8,
        beta2=0.9,
        label_smoothing=0.2,
        clip_norm=2.0,
        flip=False,
        shift_fraction=0.2,
        drop_path=0.1,
        dropout=0.1,
        precision="fp32",
        attention="explicit",
    )
    return Settings(
        budget_macs=4 * G,
        data="digits",
        data_hash="abc",
        split_seed=3,
        base=variant("cmt-xs"),
        proxy=True,
        trained_base=variant("cmt-ti"),
        trained_macs=4 * G,
        recipe=recipe,
        precision="fp32",
        pack_px=224,
        sampler="grid",
        trials=9,
        seeds=2,
        seed=1,
        pool_images=100,
        ladder=Ladder(rungs=2, noise_degrees=3, spend=0.5, batch=2, enough=0.9),
        target_images=700,
        tolerance=0.02,
        prefer="macs",
        tour=True,
    )


@pytest.mark.parametrize("budget", [4 * G, 3 * G])
def test_a_base_too_near_to_the_budget_is_refused(budget: int) -> None:
    with pytest.raises(RequestError, match=r"at most half or at least twice.*leave --base away"):
        resolved(budget_macs=budget, base=variant("cmt-s"))


def test_the_default_base_is_far_enough_for_any_number_of_classes() -> None:
    # At 319 M cmt-ti is just far enough with 1000 classes, but too near with 10.
    settings = resolved(budget_macs=319_000_000)
    assert settings.base.name != "cmt-ti"


def test_a_seed_that_generators_refuse_is_refused() -> None:
    with pytest.raises(RequestError, match="seed 5000000000 is not a seed; use 0 to 2147483647"):
        SearchRequest(budget_macs=4 * G, seed=5_000_000_000)


def test_macs_may_be_written_as_papers_write_them() -> None:
    assert SearchRequest(budget_macs=4e9, proxy_macs=9e6) == SearchRequest(
        budget_macs=4 * G, proxy_macs=9_000_000
    )
    with pytest.raises(RequestError, match=r"budget_macs 4\.5 is not a whole number"):
        SearchRequest(budget_macs=4.5)


def test_a_base_above_the_budget_has_no_twins() -> None:
    with pytest.raises(RequestError, match=r"is above the budget 4G: twins grow.*--no-proxy"):
        resolved(base=variant("cmt-b"))
    assert resolved(base=variant("cmt-b"), proxy=False).trained_macs == 4 * G


@pytest.mark.parametrize("budget", ["600M", "1G"])
def test_real_networks_grow_with_their_twins_at_every_budget(budget: str) -> None:
    settings = resolved(budget_macs=parse_macs(budget), data="fashion-mnist")
    assert settings.budget_macs > 2 * cost(settings.base).macs
    assert settings.trained_macs > 2 * cost(settings.trained_base).macs


def test_networks_get_the_classes_and_channels_of_the_data() -> None:
    settings = resolved()
    for network in (settings.base, settings.trained_base):
        assert (network.num_classes, network.in_channels) == (10, 1)
    assert cost(settings.trained_base).macs < 2.4e6


def test_twins_grow_as_much_as_the_real_ones_or_6_25_times() -> None:
    near = resolved(data="fashion-mnist")
    far = resolved(data="fashion-mnist", budget_macs=40 * G, base=variant("cmt-s"))
    twin = cost(near.trained_base).macs
    assert near.trained_macs == round(6.25 * twin)
    assert far.trained_macs == round(twin * 40 * G / cost(far.base).macs)
    assert resolved(proxy_macs=9_000_000).trained_macs == 9_000_000
    assert resolved().trained_macs == round(4.5 * twin)  # the tour trains smaller twins


def test_without_proxies_the_candidates_themselves_are_trained() -> None:
    settings = resolved(proxy=False)
    assert (settings.trained_base, settings.trained_macs) == (settings.base, 4 * G)


def test_digits_are_a_tour_of_few_candidates_and_other_data_are_not() -> None:
    tour, search = resolved(), resolved(data="fashion-mnist")
    assert tour.tour
    assert tour.trials <= 5
    assert not search.tour
    assert search.trials > tour.trials


def test_epochs_override_the_recipe_and_none_leaves_it() -> None:
    recipe = Recipe(epochs=7, lr=1e-3, train_images=100)
    assert resolved(recipe=recipe).recipe == recipe
    assert resolved(recipe=recipe, epochs=3).recipe == replace(recipe, epochs=3)


def test_a_twin_base_below_64_px_is_refused() -> None:
    with pytest.raises(RequestError, match=r"one key and no gradient; use 64 px or more"):
        resolved(proxy_base=replace(PROXY_BASE, resolution_px=32, stages=PROXY_BASE.stages))


def test_twin_macs_without_room_to_scale_are_refused_with_what_works() -> None:
    with pytest.raises(RequestError, match=r"no room to scale.*\(2\.31M\); use") as caught:
        resolved(proxy_macs=4_500_000)
    least = parse_macs(str(caught.value).split()[-3])
    assert resolved(proxy_macs=least).trained_macs == least


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget_macs": 0}, "budget_macs 0 is not a whole number from 1 on"),
        ({"trials": -1}, "trials -1"),
        ({"seeds": 1.5}, "seeds 1.5"),
        ({"epochs": True}, "epochs True"),
        ({"split_seed": -1}, "split_seed -1"),
        ({"split_seed": 2**31}, "split_seed 2147483648 is not a seed"),
        ({"workers": 0}, "workers 0"),
        ({"epochs": 0}, "epochs 0 is not a whole number from 1 on; use 1 or more"),
        ({"trials": 0}, "trials 0"),
        ({"train_images": 0}, "train_images 0"),
        ({"train_images": "most"}, "train_images 'most' is neither a number nor 'all'"),
        ({"sampler": "cmaes"}, "not one of grid, tpe, gp, random"),
        ({"proxy": False, "proxy_macs": 10**7}, "contradict"),
        ({"seeds": 101}, "seeds 101 is out of range; use 1 to 100"),
        ({"target_images": 0}, "target_images 0 is not a whole number from 1 on"),
        ({"target_epochs": -1}, "target_epochs -1 is not a whole number from 1 on"),
        ({"target_images": 9, "target_epochs": 1}, "are two targets; drop one of them"),
        ({"tolerance": 0}, "tolerance 0 is out of range; use a part such as 0.01"),
        ({"tolerance": 1.1}, "tolerance 1.1 is out of range"),
        ({"tolerance": True}, "tolerance True is out of range"),
        ({"tolerance": "1 %"}, "tolerance '1 %' is out of range"),
        ({"prefer": "speed"}, "prefer 'speed' is not one of latency, params, activations, macs"),
        ({"max_params": 0}, "max_params 0 is not a whole number from 1 on"),
        ({"max_activations": 2.5}, r"max_activations 2\.5 is not a whole number"),
        ({"max_latency_seconds": 0}, r"max_latency_seconds 0 is not a time; use seconds such as"),
        ({"max_latency_seconds": "8ms"}, "max_latency_seconds '8ms' is not a time"),
        ({"max_latency_seconds": math.nan}, "max_latency_seconds nan is not a time"),
        ({"family": (G, G)}, "budget 1G is given twice; give it once"),
        ({"family": (3_999_000_000, 2 * G)}, "budget 4G is given twice"),  # they share a file
        ({"family": (8 * G,)}, "budget 8G of the family is above the searched one, 4G"),
        ({"family": (0,)}, "a budget of the family 0 is not a whole number from 1 on"),
    ],
)
def test_a_senseless_request_cannot_exist(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        SearchRequest(**{"budget_macs": 4 * G, **changes})
    assert "\n" not in str(caught.value)


def test_single_settings_override_the_recipe_and_none_leaves_it() -> None:
    recipe = Recipe(train_images=500, batch_size=9, lr=1e-3)
    changes = {"train_images": 300, "batch_size": 8, "lr": 2e-3}
    assert resolved(recipe=recipe, **changes).recipe == replace(recipe, **changes)
    assert resolved(**changes).recipe == replace(resolved().recipe, **changes)
    with pytest.raises(RequestError, match="batch_size 0 is not a whole number from 1 on"):
        resolved(batch_size=0)


@pytest.mark.parametrize("split_images", [84, 54_000])
def test_a_part_of_the_images_is_seen_as_often_whatever_the_data_set_holds(
    split_images: int,
) -> None:
    request = SearchRequest(budget_macs=4 * G, data="folder:/a", train_images=50)
    recipe = resolve(request, pets(split_images)).recipe
    assert (recipe.epochs, recipe.train_images) == (120, 50)  # 6,000 images, as by default


def test_all_images_are_so_many_images_and_of_a_small_set_the_default() -> None:
    everything = resolved(data="fashion-mnist", train_images="all")
    assert (everything.recipe.epochs, everything.recipe.train_images) == (1, 54_000)
    assert everything == resolved(data="fashion-mnist", train_images=54_000)
    request = SearchRequest(budget_macs=4 * G, data="folder:/a")
    assert resolve(replace(request, train_images="all"), pets(84)) == resolve(request, pets(84))


def test_more_images_than_there_are_is_refused() -> None:
    with pytest.raises(RequestError, match=r"train_images 85 are more than the 84 .*use 84 or"):
        resolve(SearchRequest(budget_macs=4 * G, data="folder:/a", train_images=85), pets(84))


def augmentation(split_images: int, **changes: Any) -> tuple[bool, float]:
    request = SearchRequest(**{"budget_macs": 4 * G, "data": "folder:pets", **changes})
    recipe = resolve(request, pets(split_images)).recipe
    return recipe.flip, recipe.shift_fraction


ON, OFF = (True, Recipe.shift_fraction), (False, 0.0)


def test_a_small_data_set_is_augmented_or_as_asked() -> None:
    # the default ladder ends at 54,000 images seen: 4.5 times 12,000, which is nearer to 4 epochs
    assert augmentation(54_000) == augmentation(12_000) == OFF
    assert augmentation(11_999) == augmentation(84) == ON
    assert augmentation(54_000, augment=True) == ON
    assert augmentation(84, augment=False) == OFF
    mine = Recipe(epochs=9, flip=False, shift_fraction=0.2)
    assert augmentation(84, recipe=mine) == (False, 0.2)
    assert augmentation(84, recipe=mine, augment=True) == ON
    assert augmentation(84, recipe=mine, augment=False) == OFF


@pytest.mark.parametrize("split_images", [84, 54_000])
def test_no_horizon_switches_augmentation(split_images: int) -> None:
    horizons = [{}, {"epochs": 1}, {"epochs": 4}, {"epochs": 5}, {"epochs": 50, "train_images": 80}]
    assert len({augmentation(split_images, **horizon) for horizon in horizons}) == 1


def test_a_tour_is_not_augmented() -> None:
    assert not resolved().recipe.flip
    assert resolved().recipe.shift_fraction == 0


def test_paths_may_be_text_as_on_the_command_line() -> None:
    paths: dict[str, Any] = {"out": "out", "cache_dir": "cache", "base": "cmt-xs"}
    request = SearchRequest(budget_macs=4 * G, **paths)
    assert (request.out, request.cache_dir) == (Path("out"), Path("cache"))
    assert request.base == variant("cmt-xs")


# T, 3 T, 9 T of 6,000 images, in as many epochs as it takes
HORIZONS = {
    54_000: [(1, 6_000), (1, 18_000), (1, 54_000)],
    20_000: [(1, 6_000), (1, 18_000), (3, 20_000)],
    6_000: [(1, 6_000), (3, 6_000), (9, 6_000)],
    5_000: [(2, 5_000), (6, 5_000), (18, 5_000)],
    84: [(72, 84), (216, 84), (648, 84)],
}


@pytest.mark.parametrize("split_images", HORIZONS)
def test_runs_see_6_000_images_and_three_times_as_many_whatever_the_data_set_holds(
    split_images: int,
) -> None:
    request = SearchRequest(budget_macs=4 * G, data="folder:/a")
    settings = resolve(request, pets(split_images))
    assert list(settings.horizons) == HORIZONS[split_images]
    assert settings.images_seen == tuple(e * n for e, n in HORIZONS[split_images])
    assert settings.pool_images == split_images
    asked = resolve(replace(request, epochs=7), pets(split_images))
    first_images = min(6_000, split_images)
    assert asked.horizons == tuple((epochs, first_images) for epochs in (7, 21, 63))


@pytest.mark.parametrize(
    ("changes", "horizons"),
    [
        ({"train_images": 1_000}, [(6, 1_000), (18, 1_000), (54, 1_000)]),
        ({"train_images": 12_800, "epochs": 1}, [(1, 12_800), (1, 38_400), (2, 54_000)]),
        ({"train_images": 1_000, "epochs": 1}, [(1, 1_000), (1, 3_000), (1, 9_000)]),
        ({"train_images": 1_000, "epochs": 2}, [(2, 1_000), (6, 1_000), (18, 1_000)]),
        ({"train_images": "all"}, [(1, 54_000), (3, 54_000), (9, 54_000)]),
        ({"ladder": PRESETS["flat"]}, [(1, 6_000)]),
        ({"ladder": PRESETS["thorough"]}, [(1, 6_000), (1, 18_000), (1, 54_000), (3, 54_000)]),
        ({"recipe": Recipe(epochs=2, train_images=500)}, [(2, 500), (6, 500), (18, 500)]),
    ],
    ids=["few", "more", "one epoch", "two epochs", "all", "flat", "thorough", "recipe"],
)
def test_the_horizons_follow_the_length_of_the_first_rung_and_the_ladder(
    changes: dict[str, Any], horizons: list[tuple[int, int]]
) -> None:
    # a part that is repeated in the first rung is all that later ones draw from, too
    assert list(resolved(data="fashion-mnist", **changes).horizons) == horizons


def test_the_recipe_of_a_rung_is_the_search_s_with_the_rung_s_length() -> None:
    settings = replace(explicit(), precision="bf16")
    lengths = [(settings.run_recipe(r).epochs, settings.run_recipe(r).train_images) for r in (0, 1)]
    assert lengths == list(settings.horizons) == [(3, 100), (9, 100)]
    for rung in (0, 1):
        same = replace(settings.recipe, precision="bf16")  # as the folder has fixed it
        assert replace(settings.run_recipe(rung), epochs=3, train_images=100) == same


def test_the_tour_has_one_rung_and_other_searches_three() -> None:
    assert len(resolved().horizons) == 1
    assert resolved(data="fashion-mnist").ladder == PRESETS["standard"] == Ladder(rungs=3)


# --- the target


def test_the_answer_is_for_the_longest_runs_unless_another_target_is_named() -> None:
    fashion: dict[str, Any] = {"data": "fashion-mnist"}
    assert resolved(**fashion).target_images == 54_000
    assert resolved(**fashion, ladder=PRESETS["quick"]).target_images == 18_000
    assert resolved(**fashion, target_images=100_000).target_images == 100_000
    assert resolved(**fashion, target_epochs=2).target_images == 108_000
    assert resolved().target_images == resolved().images_seen[0]  # the tour


def test_a_target_in_epochs_counts_those_of_the_training_split() -> None:
    few = resolved(data="fashion-mnist", train_images=6_000, epochs=2, target_epochs=2)
    assert few.target_images == 108_000
    request = SearchRequest(budget_macs=4 * G, data="folder:/a", target_epochs=100)
    assert resolve(request, pets(84)).target_images == 8_400


def test_runs_of_one_length_answer_for_that_length_alone() -> None:
    flat = {"data": "fashion-mnist", "ladder": PRESETS["flat"]}
    assert resolved(**flat, target_images=6_000).target_images == 6_000
    for other in (5_999, 6_001, 18_000):
        with pytest.raises(RequestError, match=f"say nothing of a target of {other:,} images"):
            resolved(**flat, target_images=other)


def test_a_target_beyond_three_times_the_longest_runs_is_refused_with_what_works() -> None:
    assert resolved(data="fashion-mnist", target_images=162_000).target_images == 162_000
    for far in ({"target_images": 162_001}, {"target_epochs": 4}):
        with pytest.raises(RequestError, match=r"more than 3 times the 54,000.*use 162,000") as e:
            resolved(data="fashion-mnist", **far)
        assert "\n" not in str(e.value)
    longer = resolved(data="fashion-mnist", target_epochs=4, ladder=PRESETS["thorough"])
    assert longer.target_images == 216_000


def test_a_target_below_the_shortest_runs_is_refused_with_what_works() -> None:
    assert resolved(data="fashion-mnist", target_images=6_000).target_images == 6_000
    with pytest.raises(RequestError, match=r"5,999 images is below the 6,000.*use 6,000 or more"):
        resolved(data="fashion-mnist", target_images=5_999)


def test_a_target_that_was_left_open_moves_on_with_the_ladder_and_another_stays() -> None:
    for changes, target in (({}, 162_000), ({"target_images": 20_000}, 20_000)):
        settings = resolved(data="fashion-mnist", **changes)
        longer = replace(settings.as_request(), ladder=PRESETS["thorough"])
        assert resolve(longer, FASHION).target_images == target


# --- the request file


@pytest.mark.parametrize(
    "settings",
    [
        resolved(),
        resolved(proxy=False),
        resolved(data="folder:/a/b c", sampler="tpe", seeds=3),
        resolved(
            data="fashion-mnist",
            ladder=Ladder(rungs=4, noise_degrees=0, spend=1, batch=1, enough=0.85),
            target_images=200_000,
            tolerance=0.05,
            prefer="activations",
        ),
        resolved(data="fashion-mnist", train_images=1_000, epochs=1),
        resolved(data="fashion-mnist", train_images=1_000),
        resolved(max_params=25e6, max_activations=3 * 10**7, max_latency_seconds=0.0083),
        resolved(family=(2e9, 6e8)),
    ],
    ids=[
        "defaults",
        "no proxy",
        "folder",
        "ladder",
        "part of an epoch",
        "part, repeated",
        "limits",
        "family",
    ],
)
def test_the_request_file_gives_back_the_same_settings(tmp_path: Path, settings: Settings) -> None:
    settings.save(tmp_path / "request.toml")
    assert read_settings(tmp_path / "request.toml") == settings
    assert resolve(settings.as_request(), FASHION) == settings


def test_a_request_without_limits_and_family_is_written_as_it_was_before_there_were_any() -> None:
    text = resolved().to_toml()
    assert "max_" not in text
    assert "family" not in text
    committed = Path(__file__).parents[2] / "results/fashion-mnist-4G/search/request.toml"
    assert read_settings(committed).to_toml() == committed.read_text()
    assert read_settings(committed).limits == {}


def test_a_family_may_come_near_to_the_base_which_the_searched_budget_may_not() -> None:
    macs = cost(resolved().base).macs
    assert resolved(family=(macs, round(1.5 * macs))).family == (macs, round(1.5 * macs))


def test_a_family_budget_out_of_the_base_s_reach_is_refused_with_what_works() -> None:
    with pytest.raises(RequestError, match=r"budget 20M is 1/\d+ of the base cmt-xs") as caught:
        resolved(family=(20_000_000,))
    least = parse_macs(str(caught.value).split("; use ")[1].split()[0])
    assert resolved(family=(round(1.01 * least),))


@hypothesis_settings(max_examples=30, deadline=None)
@given(
    lr=st.floats(1e-12, 100),
    decay=st.floats(0, 100),
    seed=st.integers(0, 2**63 - 1),
    data=st.text(st.characters(blacklist_categories=["Cs"]), min_size=1),
)
def test_any_number_and_path_survives_the_request_file(
    tmp_path_factory: pytest.TempPathFactory, lr: float, decay: float, seed: int, data: str
) -> None:
    recipe = replace(explicit().recipe, lr=lr, weight_decay=decay)
    settings = replace(explicit(), recipe=recipe, seed=seed, data=f"folder:{data}")
    path = tmp_path_factory.mktemp("request") / "request.toml"
    settings.save(path)
    assert read_settings(path) == settings


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        (explicit().to_toml(), ""),
        ("[recipe]", "[recipe"),
        ("budget_macs", "budget"),
        ("depth = 3", "depth = -3"),
        ("epochs = 3", "epochs = 0"),
        ("trials = 9", "trials = 9\ncolour = 'red'"),
        ("trials = 9", "trials = 9\x00"),
        ("trials = 9", "trials = 'nine'"),
        ("pack_px = 224", "pack_px = -1"),
        ('sampler = "grid"', 'sampler = "best"'),
        ("rungs = 2", "rungs = 0"),
        ("rungs = 2", "steps = 2"),
        ("tolerance = 0.02", "tolerance = 2.0"),
        ('prefer = "macs"', 'prefer = "speed"'),
        ("trials = 9", "trials = 9\nmax_params = 0"),
        ("trials = 9", "trials = 9\nmax_latency_seconds = 'short'"),
        ("trials = 9", "trials = 9\nfamily = 3"),
    ],
    ids=[
        "empty",
        "torn",
        "key missing",
        "no variant",
        "no recipe",
        "key unknown",
        "binary",
        "no number",
        "negative",
        "no sampler",
        "no ladder",
        "ladder's key unknown",
        "no tolerance",
        "no preference",
        "no limit",
        "no latency",
        "no family",
    ],
)
def test_a_spoilt_request_file_is_one_clear_line(tmp_path: Path, part: str, instead: str) -> None:
    path = tmp_path / "request.toml"
    text = explicit().to_toml()
    assert part in text
    path.write_text(text.replace(part, instead))
    with pytest.raises(
        CmtscaleError, match=r"request\.toml (lacks|is no request|is damaged|is of)"
    ) as caught:
        read_settings(path)
    assert "\n" not in str(caught.value)


def test_a_request_file_of_version_0_1_0_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "request.toml"
    path.write_text(explicit().to_toml().replace("schema = 3\n", ""))
    with pytest.raises(RequestError, match=r"is of cmtscale 0\.1\.0; search again"):
        read_settings(path)


@pytest.mark.parametrize("schema", [2, 4])
def test_a_request_file_of_another_schema_is_refused_in_one_line(
    tmp_path: Path, schema: int
) -> None:
    path = tmp_path / "request.toml"
    path.write_text(explicit().to_toml().replace("schema = 3\n", f"schema = {schema}\n"))
    words = rf"has schema {schema}, of another version of cmtscale; this one reads schema 3"
    with pytest.raises(RequestError, match=words) as caught:
        read_settings(path)
    assert "\n" not in str(caught.value)


def test_the_identity_is_pinned() -> None:
    # If this fails, finished searches of users are not recognised: give a new field its old
    # meaning in record/identity.py instead of changing these.
    assert explicit().identity == "e3a85eb2"
    assert explicit().folder_name == "digits-cmt-xs-4G-e3a85eb2"


WHAT: dict[str, Any] = {
    "budget_macs": 5 * G,
    "data_hash": "other images, or splits",
    "base": variant("cmt-ti"),
    "proxy": False,
    "trained_base": variant("cmt-xs"),
    "trained_macs": 5 * G,
    "recipe": replace(explicit().recipe, lr=2e-3),
}
HOW_MUCH: dict[str, Any] = {
    "sampler": "tpe",
    "trials": 10,
    "seeds": 3,
    "seed": 2,
    "pool_images": 200,
    "ladder": Ladder(rungs=3),
    "target_images": 800,
    "tolerance": 0.03,
    "prefer": "latency",
    "max_params": 10**7,
    "max_seconds": 3600,
    "max_activations": 10**7,
    "max_latency_seconds": 0.01,
    "family": (300_000_000,),
}
NEITHER: dict[str, Any] = {  # names, and what is fixed when a folder is first opened
    "data": "folder:/moved",
    "split_seed": 2,  # the hash of the images covers their splits
    "tour": False,
    "precision": "bf16",
    "pack_px": 32,
}


def test_the_identity_is_what_is_searched_not_how_much_of_it() -> None:
    named = WHAT.keys() | HOW_MUCH.keys() | NEITHER.keys()
    assert named == {field.name for field in fields(Settings)}
    identities = {replace(explicit(), **{name: value}).identity for name, value in WHAT.items()}
    assert len(identities | {explicit().identity}) == len(WHAT) + 1
    for name, value in {**HOW_MUCH, **NEITHER}.items():
        assert replace(explicit(), **{name: value}).identity == explicit().identity, name


def test_the_identity_has_every_field_of_the_recipe_but_the_horizon() -> None:
    recipe = explicit().recipe
    other: dict[str, Any] = {"flip": True, "precision": "bf16", "train_images": 50}
    for field in fields(Recipe):
        value = other.get(field.name, getattr(Recipe(), field.name))
        assert value != getattr(recipe, field.name), field.name
        changed = replace(explicit(), recipe=replace(recipe, **{field.name: value}))
        is_horizon = field.name in ("epochs", "train_images")
        assert (changed.identity == explicit().identity) == is_horizon, field.name


def test_where_a_search_runs_does_not_change_it() -> None:
    elsewhere = resolved(device="cpu", workers=7, out=Path("x"), cache_dir=Path("y"))
    assert elsewhere == resolved()


def test_the_folder_of_a_search_on_a_folder_is_named_after_it_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {
        resolved(data=f"folder:{text}").folder_name
        for text in ("my pets", "./my pets/", str(tmp_path / "my pets"), "x/../my pets")
    }
    (name,) = names
    assert name.startswith("my pets-cmt-xs-4G-")
