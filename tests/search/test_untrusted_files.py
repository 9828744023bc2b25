"""Whatever a file holds, it is read or refused in one line, never with a traceback."""

import json
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import CmtscaleError
from cmtscale.arch.variant import Variant, variant
from cmtscale.record.environment import read_environments
from cmtscale.record.folder import TRIALS
from cmtscale.record.forecast import read_forecast
from cmtscale.record.losses import require_losses
from cmtscale.record.metrics import read_curves, read_metrics, require_curves
from cmtscale.record.rate_check import read_rate_check
from cmtscale.record.reads import readings
from cmtscale.record.row import Row, read_rows, to_csv
from cmtscale.record.twin_check import read_twin_check
from cmtscale.search.deadline import seconds_taken
from cmtscale.search.decide import read_decisions
from cmtscale.search.ladder import Ladder, read_ladder
from cmtscale.search.settings import Settings, read_settings
from cmtscale.search.timings import read_timings
from cmtscale.train.full_recipe import read_recipe
from cmtscale.train.paper_recipe import published_recipe

FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([0, -1, 10**18, 1e308, "", "\0", "../..", "nan"]),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)
HOSTILE = (b"", b"\xff\xfe\0", b"[" * 100_000, b"a = " + b"[" * 100_000, b"9" * 10_000, b"{" * 9)


def read_or_refuse(read: Callable[[Path], object], path: Path, content: bytes) -> None:
    """Read a file with this content; it stays as it is, and an error is one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    message = ""
    try:
        read(path)
    except CmtscaleError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1, message
    assert len(message) < 2_000
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def with_a_change(table: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The table with another value, in a table inside it where the name has a dot."""
    first, _, rest = name.partition(".")
    if not rest:
        return {**table, first: value}
    return {**table, first: with_a_change(table[first], rest, value)}


def names_in(table: Mapping[str, Any]) -> list[str]:
    inner = [f"{n}.{i}" for n, t in table.items() if isinstance(t, dict) for i in names_in(t)]
    return [*table, *inner, "novelty"]


def in_folder(read: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: read(path.parent)


@pytest.fixture(scope="module")
def toml(tiny_base: Variant, tiny_settings: Settings) -> dict[str, tuple[Any, dict[str, Any]]]:
    """By kind of file: how it is read, and a whole one as a table."""
    whole = {
        "variant": (lambda path: cost(variant(path)), tiny_base.to_toml()),
        "request": (read_settings, tiny_settings.to_toml()),
        "ladder": (lambda path: read_ladder(str(path)), tomli_w.dumps(vars(Ladder()))),
        "recipe": (read_recipe, published_recipe("cmt-s").to_toml()),
    }
    return {name: (read, tomllib.loads(text)) for name, (read, text) in whole.items()}


@pytest.mark.parametrize("kind", ["variant", "request", "ladder", "recipe"])
@FEW
@given(data=st.data())
def test_a_changed_toml_file_is_read_or_refused(kind: str, toml: Any, data: Any) -> None:
    read, table = toml[kind]
    name = data.draw(st.sampled_from(names_in(table)))
    try:
        content = tomli_w.dumps(with_a_change(table, name, data.draw(VALUES))).encode()
    except (ValueError, TypeError):  # no TOML can hold it
        return
    with tempfile.TemporaryDirectory() as folder:
        read_or_refuse(read, Path(folder) / "a" / "x.toml", content)


@pytest.mark.parametrize("kind", ["variant", "request", "ladder", "recipe"])
@FEW
@given(content=st.binary(max_size=40) | st.sampled_from(HOSTILE))
def test_any_bytes_are_read_as_toml_or_refused(kind: str, toml: Any, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        read_or_refuse(toml[kind][0], Path(folder) / "a" / "x.toml", content)


JSON: dict[str, tuple[Callable[[Path], object], dict[str, Any]]] = {
    "environment.json": (
        in_folder(read_environments),
        {"versions": {"torch": "2"}, "devices": ["cpu"], "data": {"val": 9}, "resumed": []},
    ),
    "timings.json": (
        in_folder(read_timings),
        {"device": "cpu", "seconds_per_image": {"a": 0.1}, "latency_seconds": {}},
    ),
    "twins/check.json": (lambda path: read_twin_check(path.parents[1]), {"sizes": []}),
    "rates/check.json": (lambda path: read_rate_check(path.parents[1]), {"lines": []}),
    "metrics.jsonl": (in_folder(read_metrics), {"step": 1, "images": 1, "seconds": 1.0}),
}


@pytest.mark.parametrize("name", [*JSON, "decisions.json", "clock.json"])
@FEW
@given(data=st.data())
def test_any_json_is_read_or_refused(name: str, tiny_settings: Settings, data: Any) -> None:
    ours = {
        "decisions.json": (
            in_folder(lambda folder: read_decisions(folder, tiny_settings)),
            {"batches": [[{"candidate": "a", "epochs": 1, "train_images": 1, "seed": 0}]]},
        ),
        "clock.json": (
            in_folder(lambda folder: seconds_taken(folder, tiny_settings, [], slots=1)),
            {"seconds": 1.0},
        ),
    }
    read, table = {**JSON, **ours}[name]
    change = with_a_change(table, data.draw(st.sampled_from(names_in(table))), data.draw(VALUES))
    content = data.draw(
        st.sampled_from([json.dumps(change).encode(), *HOSTILE]) | st.binary(max_size=40)
    )
    with tempfile.TemporaryDirectory() as folder:
        read_or_refuse(read, Path(folder) / "a" / name, content)


@FEW
@given(data=st.data())
def test_any_table_is_read_or_refused(make_row: Callable[..., Row], data: Any) -> None:
    whole = to_csv([make_row(), make_row(seed=1)])
    lines = [line.split(",") for line in whole.splitlines()]
    line = data.draw(st.integers(0, 2))
    column = data.draw(st.integers(0, len(lines[0]) - 1))
    lines[line][column] = data.draw(st.text(max_size=6) | st.sampled_from(["nan", "1e999", '"']))
    changed = "\n".join(map(",".join, lines)).encode(errors="surrogatepass") + b"\n"
    content = data.draw(st.sampled_from([changed, *HOSTILE]) | st.binary(max_size=40))
    readers = {
        TRIALS: read_rows,
        "forecast.csv": in_folder(read_forecast),
        "test_reads.csv": in_folder(readings),
        "curves.csv": in_folder(lambda folder: (read_curves(folder), require_curves(folder))),
        "val_losses.npz": in_folder(require_losses),
    }
    for name, read in readers.items():
        with tempfile.TemporaryDirectory() as folder:
            read_or_refuse(read, Path(folder) / "a" / name, content)
