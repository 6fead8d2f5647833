"""A signal ends its block even where what runs at that moment swallows the exception; the signals are real ones."""

import contextlib
import functools
import signal
import time

import pytest

from lit_pwm.errors import RunStopped
from lit_pwm.runtime import run_signals
from lit_pwm.runtime.stopping import stopping


class Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def in_a_finaliser():
    thing = Dying()
    del thing


def in_a_bare_except():
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)


def in_an_except_that_gives_back_another_value():
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        return 0
    return 1


def works(swallow):
    swallow()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        sum(range(1000))
    return "was not stopped"


SWALLOWING = [in_a_finaliser, in_a_bare_except, in_an_except_that_gives_back_another_value]


@pytest.mark.parametrize("block", [run_signals.catching_signals, stopping], ids=["catching", "stopping"])
@pytest.mark.parametrize("swallow", SWALLOWING)
def test_what_is_swallowed_is_raised_again(block, swallow, capfd):
    began, ends = time.monotonic(), []
    with pytest.raises(RunStopped) as stopped, block():
        ends.append(works(swallow))
    assert not ends
    assert time.monotonic() - began < 8
    assert stopped.value.code == 143
    assert "ignored" not in capfd.readouterr().err


@pytest.mark.parametrize("swallow", SWALLOWING[1:])
def test_and_within_a_block_that_a_signal_ends_at_once(swallow):
    ends = []
    with pytest.raises(RunStopped), run_signals.catching_signals():  # noqa: PT012
        run_signals.defer(True)
        with contextlib.suppress(RunStopped), run_signals.at_once():
            ends.append(works(swallow))
        began = time.monotonic()
        while time.monotonic() - began < 0.5:
            sum(range(1000))  # an update, which is finished: nothing is raised here
        ends.append("finished")
    assert ends == ["finished"]


def test_it_is_raised_again_as_often_as_it_is_swallowed():
    times = []
    with pytest.raises(RunStopped), run_signals.catching_signals():  # noqa: PT012
        signal_once = functools.partial(signal.raise_signal, signal.SIGTERM)
        for _ in range(4):
            try:
                signal_once()
                time.sleep(10)
            except BaseException:
                times.append(time.monotonic())
            signal_once = functools.partial(time.sleep, 0)
        time.sleep(10)
        times.append("was not stopped")
    assert len(times) == 4


def test_what_goes_its_way_is_not_disturbed():
    """What is tidied while the exception passes takes its time, and a signal that was obeyed does not come back."""
    tidied = []
    with pytest.raises(RunStopped), run_signals.catching_signals():  # noqa: PT012
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            time.sleep(0.5)
            tidied.append(True)
    time.sleep(0.3)
    assert tidied == [True]
    assert run_signals.asked() is None
