import signal
import threading
import time

import pytest

from model_name.errors import PreemptedError
from model_name.io import signals
from model_name.io.signals import StopEvent, stop_on_signal


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_a_word_within_the_block_and_what_it_was_after_it(number, code):
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
        assert stop.exit_code == code
    assert signal.getsignal(number) is before


def test_a_signal_that_comes_while_one_waits_ends_the_waiting():
    with stop_on_signal() as stop:
        threading.Timer(0.1, signal.raise_signal, (signal.SIGTERM,)).start()
        started = time.monotonic()
        assert stop.wait(30)
    assert time.monotonic() - started < 5


def test_waiting_ends_when_the_time_is_over():
    assert not StopEvent().wait(0.06)


def test_it_can_be_set_by_who_holds_the_lock_of_an_event():
    stop = StopEvent()
    with stop._cond:  # where a signal would find who waits for an event of Python's
        stop.set()
    assert stop.is_set()


def test_a_signal_that_was_swallowed_before_is_heard_and_insists_no_more(monkeypatch):
    # Given a SIGTERM that fell into a place that swallows it
    monkeypatch.setattr(signals, "RAISE_INTERVAL_SECONDS", 0.2)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    try:
        signals.install_handlers()
        with pytest.raises(PreemptedError):
            signal.raise_signal(signal.SIGTERM)
        # When the work begins that ends between two steps, then it is told to end, and not interrupted
        with stop_on_signal() as stop:
            assert stop.is_set()
            assert stop.exit_code == 143
            time.sleep(0.5)
    finally:
        signals.disarm()
        for number, handler in before.items():
            signal.signal(number, handler)
