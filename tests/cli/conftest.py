"""Commands run in this process: those that must succeed, and those that must be refused."""

from collections.abc import Callable

import pytest

from cmtscale.cli.app import run


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused; the one line that says why."""

    def refuse(*arguments: str) -> str:
        assert run(list(arguments)) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert line.startswith("cmtscale: ")
        return line

    return refuse


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must succeed; its stdout."""

    def succeed(*arguments: str) -> str:
        assert run(list(arguments)) == 0
        return capsys.readouterr().out

    return succeed
