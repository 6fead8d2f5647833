"""How a run is asked to stop: one handler for all signals, which sets one flag.

SIGINT, SIGTERM, SIGHUP and SLURM's requeue signal ask. What asks twice ends the process at once. Where a run must not
be torn apart (within an update) the flag is looked at by whoever knows when it is whole (`callbacks.StopOnSignals`);
elsewhere the handler raises `RunStopped` by itself. What runs at that moment may swallow it, as a `__del__`, a bare
`except` or native code that clears errors does: then it is raised again. Ranks that one process launched tell each
other.
"""

from __future__ import annotations

import _thread
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping
from types import FrameType
from typing import Any, NoReturn

from lit_pwm.errors import RunStopped
from lit_pwm.runtime.atomic import abandon_all

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a command to end."""
_LAUNCHER = "LIT_PWM_LAUNCHER"
_SAME_SECONDS = 0.2  # `timeout` and the like signal a process and then its group
_INSIST_SECONDS = 0.1
# What another rank was asked by comes as a real-time signal, which no one else sends, and never counts as a second.
_FORWARDED = int(getattr(signal, "SIGRTMIN", 0))


class _Stop:
    """The state of this process."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.since = 0.0
        self.deferred = False
        self.owner = 0
        self.raised: Callable[[], RunStopped | None] | None = None
        self.unraisablehook: Callable[[sys.UnraisableHookArgs], object] | None = None
        self.requeue: set[int] = set()
        self.before: dict[int, Any] = {}
        self.peers: Callable[[], Iterable[int]] = tuple
        self.children: Callable[[], Iterable[int]] = tuple


_stop = _Stop()


def asked() -> int | None:
    """The signal by which this process was asked to stop, if it was."""
    return _stop.asked


def is_requeue(signum: int) -> bool:
    """Whether the signal asks for the job to be started again."""
    return signum in _stop.requeue


def not_launched(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is no rank of the run of the one that starts it."""
    return {name: value for name, value in environment.items() if name != _LAUNCHER}


def forget_launcher() -> None:
    """Say that this process is no rank of the run of the one that started it."""
    os.environ.pop(_LAUNCHER, None)


def launcher() -> int | None:
    """The process that launched this one as another rank of its run, if one did."""
    pid = os.environ.get(_LAUNCHER, "")
    return int(pid) if pid.isdigit() and int(pid) == os.getppid() else None


def install() -> bool:
    """Let signals ask this process to stop; False where they do already or the process's main thread does not call.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.
    """
    if _stop.owner == os.getpid() or threading.current_thread() is not threading.main_thread():
        return False
    hook = _stop.unraisablehook if sys.unraisablehook is _unraisable else sys.unraisablehook
    _stop.__init__()  # what a forked process has inherited is its parent's
    _stop.owner, _stop.unraisablehook, sys.unraisablehook = os.getpid(), hook, _unraisable
    for signum in ENDING:
        _handle(signum)
    if "SLURM_JOB_ID" in os.environ:
        requeue_by(signal.SIGUSR1)
    # Before it has joined its run, a rank that went away would leave the others waiting for it.
    _stop.deferred = launcher() is not None
    if launcher() is None:
        os.environ[_LAUNCHER] = str(os.getpid())
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, heard())  # what came since it was born deaf comes now
    return True


def heard() -> set[int]:
    """The signals that this process acts on, which a process that it starts must not meet before it does so too."""
    asking = {*ENDING, *_stop.requeue}
    return asking | ({_FORWARDED + signum for signum in asking} if _FORWARDED else set())


def requeue_by(signum: int) -> None:
    """Let this signal ask to stop and to start the job again."""
    if _stop.owner == os.getpid() and signum not in _stop.requeue:
        _stop.requeue.add(signum)
        _handle(signum)


def leave_to_scheduler() -> None:
    """Pass over SIGTERM until this process has ended: a scheduler that shall start the job again sends it to all."""
    if _stop.owner == os.getpid():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _stop.before.pop(signal.SIGTERM, None)


def _handle(signum: int) -> None:
    if signal.getsignal(signum) == signal.SIG_IGN or signum in _stop.before:
        return
    _stop.before[signum] = signal.signal(signum, _on_signal)
    if _FORWARDED:
        _stop.before[_FORWARDED + signum] = signal.signal(_FORWARDED + signum, _on_signal)


def uninstall() -> None:
    """Give the signals back to whoever had them."""
    if _stop.owner == os.getpid():
        for signum, handler in _stop.before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        if launcher() is None:
            os.environ.pop(_LAUNCHER, None)
        if sys.unraisablehook is _unraisable and _stop.unraisablehook is not None:
            sys.unraisablehook = _stop.unraisablehook
        _stop.__init__()


@contextlib.contextmanager
def catching_signals() -> Generator[None, None, None]:
    """A block within which signals ask this process to stop.

    Raises:
        RunStopped: one did.
    """
    mine = install()
    try:
        yield
        if mine and _stop.asked is not None:
            raise RunStopped(_stop.asked)
    finally:
        if mine:
            uninstall()


def defer(deferred: bool) -> None:
    """From now on only set the flag, or raise at once."""
    _stop.deferred = deferred


@contextlib.contextmanager
def at_once() -> Generator[None, None, None]:
    """A block that a signal ends at once, also where others are deferred: one that can be done again as a whole.

    Raises:
        RunStopped: a signal asks, or has asked already.
    """
    before, _stop.deferred = _stop.deferred, False
    try:
        if _stop.asked is not None:
            raise RunStopped(_stop.asked)
        yield
    finally:
        _stop.deferred = before


@contextlib.contextmanager
def held() -> Generator[None, None, None]:
    """A block at whose end a signal ends this process, where it would within it: one that must be done as a whole.

    Raises:
        RunStopped: a signal came meanwhile.
    """
    before, _stop.deferred = _stop.deferred, True
    try:
        yield
    finally:
        _stop.deferred = before
    if _stop.asked is not None and not before:
        raise RunStopped(_stop.asked)


def tell(peers: Callable[[], Iterable[int]], children: Callable[[], Iterable[int]]) -> None:
    """Name the processes of the same run: those to be told of a signal, and those that end when this one does."""
    _stop.peers, _stop.children = peers, children


def _on_signal(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _stop.owner:
        _in_a_worker(signum)
        return
    forwarded = bool(_FORWARDED) and signum > _FORWARDED
    number, now = signum - _FORWARDED if forwarded else signum, time.monotonic()
    if _stop.asked is None:
        _stop.asked, _stop.since = number, now
        if not forwarded:
            _send(_stop.peers(), (_FORWARDED or 0) + number)
        if launcher() is None:
            name = signal.Signals(number).name
            said = f"\n{name}: stopping as soon as the run is whole; a second signal ends it at once.\n"
            with contextlib.suppress(OSError):  # at SIGHUP the terminal is gone
                os.write(2, said.encode())
        if not _stop.deferred:
            _raise(number)
    elif forwarded and _is_swallowed():
        _raise(number)
    elif not forwarded and now - _stop.since > _SAME_SECONDS:
        end_now(128 + number)


def _raise(number: int) -> NoReturn:
    stopped = RunStopped(number)
    if _stop.raised is None and _FORWARDED:
        # Not threading.Thread: this may have interrupted the making of one, whose locks are taken then.
        _thread.start_new_thread(_insist, (_stop.owner, number))
    _stop.raised = weakref.ref(stopped)
    try:
        raise stopped
    finally:
        del stopped  # else this frame, which the exception refers to, would keep it alive


def _unraisable(met: sys.UnraisableHookArgs) -> None:
    """Python's words on what it cannot raise, but for what will be raised again."""
    if isinstance(met.exc_value, RunStopped) and _stop.raised is not None:
        _stop.raised = lambda: None  # whoever keeps it
    else:
        (_stop.unraisablehook or sys.__unraisablehook__)(met)


def _is_swallowed() -> bool:
    """Whether what the handler raised is gone without having ended the block that it was to end."""
    return _stop.raised is not None and _stop.raised() is None and not _stop.deferred


def _insist(owner: int, number: int) -> None:
    """In a thread: have the main thread meet the exception again for as long as it is swallowed."""
    main = threading.main_thread().ident
    assert main is not None
    while _stop.owner == owner == os.getpid() and _stop.asked is not None:
        time.sleep(_INSIST_SECONDS)
        if _is_swallowed():
            signal.pthread_kill(main, _FORWARDED + number)


def _in_a_worker(signum: int) -> None:
    """In a process forked from ours: its parent decides, and ends it by SIGTERM."""
    if signum == signal.SIGTERM:
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)


def end_now(code: int) -> None:
    """End this process and those that it launched, leaving no half-written file."""
    abandon_all()
    _send(_stop.children(), signal.SIGKILL)
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(code)


def _send(pids: Iterable[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signum)
