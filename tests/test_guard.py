"""The guard: a step that does not end is interrupted, one that does is not, however many there are."""

import signal
import threading
import time

import pytest

from identity_props.stack.guard import HangError, alive, limit_in_force, time_limit


def test_what_hangs_is_interrupted_and_said_to():
    with pytest.raises(HangError, match=r"no step ended within 0\.1 s"), time_limit(0.1):
        time.sleep(30)


def test_each_sign_of_life_counts_anew():
    started = time.monotonic()
    with time_limit(0.5):
        for _ in range(4):
            time.sleep(0.2)
            alive()
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 0.4
    assert time.monotonic() - started > 0.5


def test_what_was_there_before_is_there_after():
    handler = signal.getsignal(signal.SIGALRM)
    with time_limit(20):
        assert limit_in_force() == 20
        with time_limit(10):
            assert limit_in_force() == 10
        assert limit_in_force() == 20
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 20
    assert (limit_in_force(), signal.getsignal(signal.SIGALRM)) == (0, handler)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_no_exception_handler_of_a_part_can_swallow_it():
    assert not issubclass(HangError, Exception)


def test_0_and_other_threads_have_no_limit():
    def work():
        with time_limit(0.01):
            assert limit_in_force() == 0

    with time_limit(0):
        assert limit_in_force() == 0
    other = threading.Thread(target=work)
    other.start()
    other.join()
