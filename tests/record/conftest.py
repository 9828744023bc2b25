"""A disk that fills up, and readers of one line's worth of error."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from cmtscale.arch.errors import ResultsError


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Within `with full_disk():` no file can be brought to the disk."""

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
    """`with refused(*parts):` expects a `ResultsError` of one line that says all `parts`."""

    @contextmanager
    def expect(*parts: object) -> Iterator[None]:
        with pytest.raises(ResultsError) as caught:
            yield
        assert "\n" not in str(caught.value)
        for part in parts:
            assert str(part) in str(caught.value)

    return expect
