"""What signals do to a search: the first ends it, those after it do not break off its end."""

import os
import signal
from collections.abc import Iterator

import pytest

from cmtscale.arch.errors import StoppedError
from cmtscale.search.interrupt import lasting_interrupts
from cmtscale.train.stop import SIGNALS


@pytest.fixture(autouse=True)
def _signals_are_nobodys() -> Iterator[None]:
    """Ray, for one, takes SIGTERM over in the process of the tests."""
    defaults = dict.fromkeys(SIGNALS, signal.SIG_DFL)
    defaults[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def press(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_later_signal_does_not_break_off_what_the_first_has_begun(
    number: signal.Signals,
) -> None:
    ended = []

    def search() -> None:
        with lasting_interrupts():
            try:
                press(number)
            finally:
                press(signal.SIGTERM)
                ended.append("jobs cancelled")

    with pytest.raises(StoppedError) as caught:
        search()
    assert ended == ["jobs cancelled"]
    assert caught.value.exit_code == 128 + number


def test_a_second_ctrl_c_breaks_off_even_the_end() -> None:
    ended = []

    def search() -> None:
        with lasting_interrupts() as interrupts, interrupts.deferred():
            press(signal.SIGINT)
            ended.append("goes on after the first")
            press(signal.SIGINT)
            ended.append("never")

    with pytest.raises(KeyboardInterrupt):
        search()
    assert ended == ["goes on after the first"]


def test_what_was_deferred_and_not_looked_for_is_raised_as_it_ends() -> None:
    def search() -> None:
        with lasting_interrupts() as interrupts:
            with interrupts.deferred():
                press(signal.SIGTERM)
            raise AssertionError("went on")

    with pytest.raises(StoppedError):
        search()


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with lasting_interrupts() as interrupts:
            press(signal.SIGHUP)
            assert interrupts.signal_number == 0
    finally:
        signal.signal(signal.SIGHUP, before)
