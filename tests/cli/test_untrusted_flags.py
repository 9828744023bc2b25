"""Whatever a flag says, a command does it or says one line and ends with 2; nothing is written."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmtscale.cli.app import run

FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="\0"), max_size=8),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", " ", "-1", "--", "9" * 5000, "1e999G", "4G,4G", "../..", "/", "x" * 300]),
    st.sampled_from(["4.0G", "cmt-s", "cmt-s@288", "2h", "8ms", "320x256", "folder:/", "digits"]),
)
FLAGS = {
    "flops": ["--variant", "--resolution"],
    "scale": ["--base", "--phi", "--alpha", "--budget"],
    "show": ["--follow"],
    "variants": ["--json"],
}
SEARCH_FLAGS = ["--budget", "--max-time", "--max-latency", "--max-params", "--ladder", "--spend"]
SEARCH_FLAGS += ["--from", "--seeds", "--tolerance", "--base", "--train-images", "--prefer"]


def refused_or_done(arguments: list[str]) -> int:
    """The exit code of a command; where it is refused, it says why in one line and no more."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    assert code in (0, 2), err.getvalue()
    if code == 2:
        assert out.getvalue() == ""
        assert len(err.getvalue().splitlines()) == 1, err.getvalue()
        assert err.getvalue().startswith("cmtscale: ")
    return code


@pytest.mark.parametrize("command", FLAGS)
@FEW
@given(data=st.data())
def test_flags_of_quick_commands(
    command: str, data: st.DataObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = data.draw(st.lists(st.sampled_from(FLAGS[command]), unique=True, max_size=2))
    refused_or_done([command, *(part for flag in flags for part in (flag, data.draw(TEXTS)))])
    assert list(tmp_path.iterdir()) == []


@FEW
@given(data=st.data())
def test_flags_of_a_search_that_needs_no_images(
    data: st.DataObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = data.draw(st.lists(st.sampled_from(SEARCH_FLAGS), unique=True, min_size=1, max_size=3))
    arguments = [part for flag in flags for part in (flag, data.draw(TEXTS))]
    missing = ["--data", "folder:missing", "--out", "out", "--budget", "4G"]
    assert refused_or_done(["search", *missing, *arguments]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_commands_the_terminal_is_printed_as_text(
    refusal: Callable[..., str],
) -> None:
    line = refusal("flops", "--variant", "\x1b[2J\n\u202ex.toml")
    assert r"\x1b[2J \u202ex.toml" in line
    assert line.isprintable()
