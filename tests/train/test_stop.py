"""Signals ask a training to stop, and act as before when it has ended."""

import os
import signal
import threading

import pytest

from cmtscale.train import stop
from cmtscale.train.stop import SIGNALS, listening


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
