"""Fixtures: a full disk, and a check for one-line errors."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from cmtscale.arch.errors import ResultsError


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Within `with full_disk():` every fsync fails with ENOSPC."""

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def full() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            yield

    return full


@pytest.fixture(scope="session")
def refused() -> Callable[..., AbstractContextManager[None]]:
    """`with refused(*parts):` expects a `ResultsError` of one line that contains all `parts`."""

    @contextmanager
    def expect(*parts: object) -> Iterator[None]:
        with pytest.raises(ResultsError) as caught:
            yield
        assert "\n" not in str(caught.value)
        for part in parts:
            assert str(part) in str(caught.value)

    return expect
