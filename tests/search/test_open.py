"""Opening a run folder: one search, one process, and guards whose order does not matter."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cmtscale.arch.errors import ResultsError
from cmtscale.record.folder import held
from cmtscale.search import open as open_module
from cmtscale.search.open import opened, settings_in
from cmtscale.search.outcome import Outcome


def ignore(_: str) -> None: ...


def test_of_two_searches_that_start_at_once_the_second_is_refused(
    finished: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shared"
    first = finished.settings
    second = replace(first, budget_macs=5_000_000_000)

    @contextmanager
    def held_after_the_first(path: Path) -> Iterator[None]:
        """The other search opened and closed the folder before we got the lock."""
        with held(path):
            first.save(path / "request.toml")
            yield

    monkeypatch.setattr(open_module, "held", held_after_the_first)
    with (
        pytest.raises(ResultsError, match=r"holds another search \(its budget differs\)"),
        opened(folder, second, ignore),
    ):
        pytest.fail("it was opened")
    assert [path.name for path in folder.iterdir() if path.name != ".lock"] == ["request.toml"]


def test_a_folder_that_is_held_is_refused(finished: Outcome, tmp_path: Path) -> None:
    with (
        opened(tmp_path / "out", finished.settings, ignore),
        pytest.raises(ResultsError, match="another process is at work in"),
        opened(tmp_path / "out", finished.settings, ignore),
    ):
        pytest.fail("it was opened twice")


def test_a_new_folder_whose_search_never_begins_is_removed(
    finished: Outcome, tmp_path: Path
) -> None:
    with opened(tmp_path / "results" / "out", finished.settings, ignore) as folder:
        assert folder.table.rows == []
        assert folder.path.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_was_fixed_when_the_folder_was_first_opened_stays(finished: Outcome) -> None:
    asked = replace(finished.settings, precision="bf16", pack_px=999, seeds=7)
    settings = settings_in(finished.folder, asked)
    assert (settings.precision, settings.pack_px) == ("fp32", finished.settings.pack_px)
    assert settings.seeds == 7


def test_other_images_are_told_from_another_split(finished: Outcome) -> None:
    other_images = replace(finished.settings, data_hash="other")
    with pytest.raises(ResultsError, match="the images have changed since the runs in"):
        settings_in(finished.folder, other_images)
    other_split = replace(other_images, split_seed=1)
    with pytest.raises(ResultsError, match=r"\(its split_seed differs\)"):
        settings_in(finished.folder, other_split)


def test_what_killed_drivers_left_is_ended_once_the_folder_is_held(
    finished: Outcome, tmp_path: Path
) -> None:
    token = tmp_path / "runs" / ".driver-abc"
    token.parent.mkdir()
    token.touch()
    finished.settings.save(tmp_path / "request.toml")
    with held(tmp_path), pytest.raises(ResultsError), opened(tmp_path, finished.settings, ignore):
        pytest.fail("it was opened twice")
    assert token.exists()
    with opened(tmp_path, finished.settings, ignore):
        assert not token.exists()
