"""Equal fields share a hash and different ones do not, also across versions."""

import copy
import math
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cmtscale.arch.variant import variant
from cmtscale.record import identity as module
from cmtscale.record.identity import FROZEN, difference, flat, identity, network_fields

RECIPE = {
    "epochs": 11,
    "train_images": 7,
    "batch_size": 127,
    "lr": 2.1e-3,
    "reference_dim": 17,
    "warmup_fraction": 0.2,
    "weight_decay": 0.0,
    "beta1": 0.8,
    "beta2": 0.99,
    "label_smoothing": 0.1,
    "clip_norm": math.inf,
    "flip": True,
    "shift_fraction": 0.05,
    "drop_path": 0.1,
    "dropout": 0.2,
    "precision": "bf16",
    "attention": "sdpa",
}
RUN = {
    "network": network_fields(variant("cmt-s")),
    "recipe": RECIPE,
    "data": "abc",
    "seed": 7,
}


def test_hashes_are_pinned():
    """If this fails, every user's finished runs would be orphaned and trained again.

    Never change the values. Give a new field its old meaning in the frozen table instead.
    """
    plain = RECIPE | dict.fromkeys(("label_smoothing", "shift_fraction", "drop_path", "dropout"), 0)
    plain |= {"flip": False, "attention": "auto"}
    search = {"budget": 4_000_000_000, "twins": True, "twin_base": RUN["network"], "recipe": plain}
    assert identity({"seed": 0}) == "735b38f776707ffe"
    assert identity({"network": network_fields(variant("cmt-ti"))}) == "c45f19f9649d781c"
    assert identity(RUN) == "5c62353a506d9183"
    assert identity(RUN | {"recipe": plain}) == "e2707289ecf3daef"
    assert identity(search, length=8) == "773595ec"


# --- equality, defined independently of how `identity` computes it

NAMES = st.text("ab_1", min_size=1, max_size=3).filter(lambda name: not name.isdigit())
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from([0, 1, -0.0, 2**53, 2**53 + 1, float(2**53), 1e300, "0", "1", "", "null"])
    | st.text(max_size=3)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(NAMES, VALUES, max_size=3)


def key(value):
    """Equal keys for exactly the values that count as equal."""
    if isinstance(value, dict):
        return "fields", frozenset((name, key(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return "list", tuple(key(item) for item in value)
    if isinstance(value, bool | str | None):
        return type(value).__name__, value
    return "number", value if math.isinf(value) else Fraction(value)


@example(one={}, other={"a": {}})
@example(one={"a": []}, other={"a": {}})
@example(one={"a": []}, other={"a": None})
@example(one={"a": None}, other={})
@example(one={"a": [1, 2]}, other={"a": [[1, 2]]})
@example(one={"a": [[]]}, other={"a": [[], []]})
@example(one={"a": True}, other={"a": 1})
@example(one={"a": True}, other={"a": 1.0})
@example(one={"a": "1"}, other={"a": 1})
@example(one={"a": 2**53 + 1}, other={"a": float(2**53)})
@example(one={"a": 10**300}, other={"a": 1e300})
@example(one={"a": math.inf}, other={"a": "Infinity"})
@example(one={"a": -0.0}, other={"a": 0})
@example(one={"a": (1, 2)}, other={"a": [1.0, 2.0]})
@settings(deadline=None)
@given(one=FIELDS, other=FIELDS)
def test_two_things_share_a_hash_exactly_if_they_are_equal(one, other):
    assert (identity(one) == identity(other)) == (key(one) == key(other))


@st.composite
def changed(draw):
    """A pair: fields, and a copy with one value replaced or one name dropped."""
    fields = draw(FIELDS.filter(bool))
    other = copy.deepcopy(fields)
    parent = other
    while True:
        name = draw(
            st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent)))
        )
        if not parent[name] or not isinstance(parent[name], dict | list) or draw(st.booleans()):
            break
        parent = parent[name]
    if draw(st.booleans()):
        del parent[name]
    else:
        parent[name] = draw(VALUES)
    return fields, other


@settings(deadline=None)
@given(pair=changed())
def test_one_change_anywhere_changes_the_hash(pair):
    one, other = pair
    assert (identity(one) == identity(other)) == (key(one) == key(other))


def shuffled(value):
    """A copy with mappings in reverse order, lists as tuples, and whole floats as integers."""
    if isinstance(value, dict):
        return {name: shuffled(item) for name, item in reversed(value.items())}
    if isinstance(value, list):
        return tuple(shuffled(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@settings(deadline=None)
@given(fields=FIELDS)
def test_neither_order_nor_the_kind_of_sequence_or_number_matters(fields):
    assert identity(shuffled(fields)) == identity(fields)
    assert identity(shuffled(RUN)) == identity(RUN)


@pytest.mark.parametrize("name", ["a.b", "recipe.flip"])
def test_a_name_that_could_be_mistaken_for_a_nested_one_is_refused(name):
    for fields in ({name: 1}, {"a": {name: 1}}, {"a": [{name: 1}]}):
        with pytest.raises(AssertionError):
            identity(fields)
    with pytest.raises(AssertionError):
        identity({"a": {"0": 1}})  # looks like a list index


@pytest.mark.parametrize("value", [object(), b"", {1, 2}, 1j, [object()]])
def test_what_is_no_plain_value_has_no_hash(value):
    with pytest.raises(TypeError):
        identity({"a": value})


# --- later versions


def leaves(fields, path=()):
    for name, value in fields.items() if isinstance(fields, dict) else enumerate(fields):
        if isinstance(value, dict | list | tuple):
            yield from leaves(value, (*path, name))
        else:
            yield *path, name


def with_value(fields, path, value):
    fields = copy.deepcopy(fields)
    parent = fields
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    return fields


def test_every_value_of_a_run_decides():
    others = [identity(with_value(RUN, path, "another")) for path in leaves(RUN)]
    assert len(set(others) | {identity(RUN)}) == len(others) + 1 == len(flat(RUN)) + 1


@pytest.mark.parametrize("old_meaning", [0.0, False, None, "auto", -1])
def test_a_new_field_with_its_old_meaning_leaves_every_hash(old_meaning, monkeypatch):
    before, longer = identity(RUN), copy.deepcopy(RUN)
    longer["recipe"]["mixup"] = old_meaning
    for stage in longer["network"]["stages"]:
        stage["dilation"] = old_meaning
    assert identity(longer) != before
    table = {"recipe.mixup": old_meaning, "network.stages.dilation": old_meaning}
    monkeypatch.setitem(FROZEN, 1, {**FROZEN[1], **table})
    assert identity(RUN) == identity(longer) == before
    for path in (("recipe", "mixup"), *(("network", "stages", n, "dilation") for n in range(4))):
        others = {identity(with_value(longer, path, value)) for value in (0.5, "x", True, 7, [0])}
        assert len(others | {before}) == 6
    one_of_four = {
        identity(with_value(longer, path, 9)) for path in leaves(longer) if "dilation" in path
    }
    assert len(one_of_four) == 4


def test_a_present_default_that_changes_leaves_every_hash(monkeypatch):
    monkeypatch.setitem(FROZEN, 1, {"recipe.x": 1})
    assert identity({"recipe": {"x": 1}, "seed": 0}) == identity({"seed": 0})
    assert identity({"recipe": {"x": True}, "seed": 0}) != identity({"seed": 0})
    assert identity({"recipe": {"x": 1.0}, "seed": 0}) == identity({"seed": 0})
    assert identity({"recipe": {"x": [1]}, "seed": 0}) != identity({"seed": 0})
    assert identity({"other": {"x": 1}, "seed": 0}) != identity({"seed": 0})


def test_another_schema_is_another_hash(monkeypatch):
    monkeypatch.setitem(FROZEN, 2, FROZEN[1])
    assert identity(RUN, schema=2) != identity(RUN, schema=1) == identity(RUN)


def test_what_networks_meant_holds_wherever_a_network_stands():
    for network in module.NETWORKS:
        assert {f"{network}.{name}" for name in module.NETWORK_1} <= FROZEN[1].keys()


def test_the_name_of_a_network_does_not_matter_and_all_else_does():
    network = variant("cmt-s")
    fields = network_fields(network)
    assert fields == network_fields(replace(network, name="another"))
    assert fields != network_fields(replace(network, num_classes=10))
    assert set(fields) == {"resolution_px", "stem_channels", "stages", "num_classes", "in_channels"}


def test_a_dataclass_is_its_fields():
    @dataclass
    class Part:
        a: int
        b: tuple

    assert identity({"x": Part(1, (2, Part(3, ())))}) == identity(
        {"x": {"a": 1, "b": [2, {"a": 3, "b": []}]}}
    )


# --- the difference, as text for messages


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""),
        ({"recipe": RECIPE | {"lr": 1e-3}}, " (its lr differs)"),
        (
            {"recipe": RECIPE | {"lr": 1e-3, "flip": False}, "seed": 8},
            " (its lr, flip, seed differ)",
        ),
        ({"recipe": RECIPE | {"flip": 1}}, " (its flip differs)"),
        ({"network": network_fields(variant("cmt-ti"))}, " (its network differs)"),
        ({"network": RUN["network"] | {"resolution_px": 32}}, " (its network differs)"),
        ({"more": None}, " (its more differs)"),
    ],
    ids=str,
)
def test_the_difference_names_parts_of_the_recipe_and_other_fields_whole(changes, text):
    now = RUN | changes
    assert difference(RUN, now) == text
    assert difference(flat(RUN), now) == text
    assert (identity(RUN) == identity(now)) == (text == "")


def test_a_field_that_is_gone_differs():
    assert difference(RUN, {k: v for k, v in RUN.items() if k != "seed"}) == " (its seed differs)"


def test_a_field_that_did_not_exist_yet_is_no_difference():
    now = with_value(RUN, ("recipe", "attention"), "auto")
    before = copy.deepcopy(now)
    del before["recipe"]["attention"]
    assert difference(before, now | {"seed": 8}) == " (its seed differs)"


@settings(deadline=None)
@given(one=FIELDS, other=FIELDS)
def test_there_is_a_difference_exactly_if_the_hashes_differ(one, other):
    assert (difference(one, other) == "") == (identity(one) == identity(other))
