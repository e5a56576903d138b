"""Signals as requests: honoured where the run's state is whole, and a second one at once."""

import os
import signal

import pytest

from utils.interruption import Interrupted, Interruption


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_run_at_its_next_check(number: int, code: int, capfd: pytest.CaptureFixture) -> None:
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), number)
        steps_finished_meanwhile = True
        with pytest.raises(Interrupted) as stop:
            interruption.check()
    assert steps_finished_meanwhile
    assert stop.value.code == code
    assert stop.value.signal_name == signal.Signals(number).name
    assert capfd.readouterr().err.count("finishing this step, then saving") == 1


def test_a_second_signal_is_not_waited_for() -> None:
    with Interruption():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_signals_do_what_they_did_before() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_signals_that_are_ignored_stay_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            interruption.check()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_watched_items_end_with_a_request_and_can_be_gone_through_again(capfd: pytest.CaptureFixture) -> None:
    with Interruption() as interruption:
        items = interruption.watching([1, 2, 3])
        assert (len(items), list(items), list(items)) == (3, [1, 2, 3], [1, 2, 3])
        one_by_one = iter(items)
        assert next(one_by_one) == 1
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            next(one_by_one)
