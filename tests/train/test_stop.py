"""Signals ask a training to stop, and act as before when it has ended."""

import os
import signal
import threading

import pytest

from cmtscale.arch.errors import StoppedError
from cmtscale.train import stop
from cmtscale.train.stop import SIGNALS, listening, never, stop_if_asked, stopped_by_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_request_while_a_training_listens(number):
    before = signal.getsignal(number)
    with listening() as request:
        assert request.signal_number == 0
        os.kill(os.getpid(), number)
        assert request.signal_number == number
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_does_not_wait_but_one_that_is_passed_on_does(monkeypatch):
    with listening() as request:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # at once: torchrun's
        assert request.signal_number == signal.SIGINT
        monkeypatch.setattr(stop, "IMPATIENT_SECONDS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_another_thread_trains_without_signals():
    heard = []

    def train():
        with listening() as request:
            heard.append(request.signal_number)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert heard == [0]


@pytest.mark.parametrize("number", SIGNALS)
def test_work_that_a_signal_stops_ends_with_the_signals_exit_code(number):
    def work():
        with stopped_by_signals() as check_in:
            stop_if_asked(check_in)
            os.kill(os.getpid(), number)
            stop_if_asked(check_in)

    with pytest.raises(StoppedError, match="the same command goes on") as caught:
        work()
    assert caught.value.exit_code == 128 + number


def test_work_that_nobody_stops_goes_on():
    stop_if_asked(never)
    with pytest.raises(StoppedError):
        stop_if_asked(lambda: True)
