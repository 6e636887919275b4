from __future__ import annotations

import signal
import threading

import pytest

from rheos.training import Stopped
from rheos.training.signals import Interrupt


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_noted(number: signal.Signals, code: int) -> None:
    former = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert interrupt.code == 0
        signal.raise_signal(number)
        assert interrupt.code == code
    assert signal.getsignal(number) is former


def test_a_second_ctrl_c_stops_at_once() -> None:
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interrupt.code == 130


def test_another_thread_takes_no_signals() -> None:
    seen: list[int] = []

    def enter() -> None:
        with Interrupt() as interrupt:
            seen.append(interrupt.code)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [0]


def test_what_is_raised_names_step_and_code() -> None:
    stopped = Stopped(143, 17)
    assert (stopped.code, stopped.step) == (143, 17)
    assert "after step 17" in str(stopped)
