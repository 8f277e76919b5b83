import signal
import threading
import time

import pytest

from model_name.errors import PreemptedError
from model_name.io import signals
from model_name.io.signals import StopEvent, stop_on_signal


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_set_the_event_and_handlers_are_restored(number, code):
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
        assert stop.exit_code == code
    assert signal.getsignal(number) is before


def test_a_signal_ends_wait():
    with stop_on_signal() as stop:
        threading.Timer(0.1, signal.raise_signal, (signal.SIGTERM,)).start()
        started = time.monotonic()
        assert stop.wait(30)
    assert time.monotonic() - started < 5


def test_wait_ends_after_its_timeout():
    assert not StopEvent().wait(0.06)


def test_set_works_while_the_lock_of_the_event_is_held():
    stop = StopEvent()
    with stop._cond:  # a signal may interrupt a thread that holds it in `wait`
        stop.set()
    assert stop.is_set()


def test_a_swallowed_signal_sets_the_event_and_is_not_raised_again(monkeypatch):
    # Given a SIGTERM whose exception was swallowed
    monkeypatch.setattr(signals, "RAISE_INTERVAL_SECONDS", 0.2)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    try:
        signals.install_handlers()
        with pytest.raises(PreemptedError):
            signal.raise_signal(signal.SIGTERM)
        # When the block begins, then the event is set and nothing is raised
        with stop_on_signal() as stop:
            assert stop.is_set()
            assert stop.exit_code == 143
            time.sleep(0.5)
    finally:
        signals.disarm()
        for number, handler in before.items():
            signal.signal(number, handler)
