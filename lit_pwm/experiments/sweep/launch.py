"""Runs a sweep's cells as processes on this machine, a few at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from lit_pwm import run_signals
from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.own_folders import check_own, only_one
from lit_pwm.experiments.sweep.cells import Cell
from lit_pwm.experiments.sweep.display import Display
from lit_pwm.experiments.sweep.going_on import further, goes_on
from lit_pwm.experiments.sweep.state import (
    CELL,
    LOG,
    Begun,
    CellState,
    empty,
    read_begun,
    read_state,
    write_begun,
    write_state,
)
from lit_pwm.imports import current_folder_as_here
from lit_pwm.processes import LIFELINE, lifeline
from lit_pwm.results import versions

_PATIENCE = 8.0
"""Seconds between asking an interrupted cell to end and ending it."""


@dataclass
class Outcome:
    """How a sweep went, by keys of cells.

    Attributes:
        skipped: finished before.
        finished: finished now.
        failed: their command did not exit with 0.
        blocked: not run, because a cell they need, directly or not, failed.
    """

    skipped: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)


@dataclass
class _Running:
    cell: Cell
    command: list[str]
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    started: datetime
    clock: float


class LocalLauncher:
    """Runs each cell as a `lit-pwm` process of its own, with one thread, its output in the cell's folder.

    A finished cell is skipped. One that was interrupted goes on where it was, if it is a training or a collection
    (`lit_pwm.experiments.sweep.going_on`); any other folder is emptied, if a sweep made it, and its cell started anew.
    A failed cell stops only those that need it. Cells whose turn it is are taken from the latest stage first, so that
    results, and errors of late stages, show early.

    Args:
        cells: of the sweep, each after those it needs; their states must not be of other work.
        out: the sweep's folder.
        workers: processes at a time.
        display: told what happens.
        on_finished: called with each cell that finishes now.
    """

    def __init__(
        self,
        cells: Mapping[str, Cell],
        out: Path,
        workers: int,
        display: Display,
        on_finished: Callable[[Cell], object] = lambda cell: None,
    ) -> None:
        self.cells, self.out, self.workers, self.display = cells, out, workers, display
        self._on_finished = on_finished
        stages = list(dict.fromkeys(cell.stage for cell in cells.values()))
        self._rank = {key: -stages.index(cell.stage) for key, cell in cells.items()}
        self._running: list[_Running] = []
        self._kept_open = (-1, -1)

    def run(self) -> Outcome:
        """Run what is not finished.

        Raises:
            LitPWMError: another sweep, or a cell that outlived one, still works in the folder, or a folder of a cell
                is one that no sweep made.
            KeyboardInterrupt: a signal asked to end (`lit_pwm.stopping`); the running cells have been ended.
        """
        outcome = Outcome()
        with only_one(self.out, "sweep") as lock, lifeline() as line:
            self._kept_open = (lock, line)
            done, waiting = set(), []
            for key, cell in self.cells.items():
                state = read_state(cell.folder(self.out))
                if state is not None and state.status == "finished" and state.fingerprint == cell.fingerprint:
                    outcome.skipped.append(key)
                    done.add(key)
                    self.display.skipped(cell, state.seconds)
                else:
                    check_own(cell.folder(self.out), (CELL,))
                    waiting.append(key)
            waiting.sort(key=self._rank.__getitem__)
            run_signals.tell(peers=tuple, children=lambda: [-running.process.pid for running in self._running])
            with self.display:
                try:
                    self._loop(waiting, done, outcome)
                finally:
                    self._end_all()
        return outcome

    def _loop(self, waiting: list[str], done: set[str], outcome: Outcome) -> None:
        while waiting or self._running:
            for key in [key for key in waiting if done.issuperset(self.cells[key].needs)]:
                if len(self._running) == self.workers:
                    break
                waiting.remove(key)
                self._start(self.cells[key], outcome)
            for running in [r for r in self._running if r.process.poll() is not None]:
                self._finish(running, outcome, done)
            lost = {*outcome.failed, *outcome.blocked}
            for key in self.cells:  # in order, so that what needs a blocked cell is blocked too
                if key in waiting and not lost.isdisjoint(self.cells[key].needs):
                    waiting.remove(key)
                    lost.add(key)
                    outcome.blocked.append(key)
                    self.display.blocked(self.cells[key])
            self.display.tick()
            time.sleep(0.05)

    def _start(self, cell: Cell, outcome: Outcome) -> None:
        folder, going_on = cell.folder(self.out), goes_on(cell, self.out)
        before = read_begun(folder) if going_on else None
        if not going_on:
            empty(folder)
        spent = before.seconds if before is not None else 0.0
        (folder / CELL).unlink(missing_ok=True)
        write_begun(folder, Begun(cell.fingerprint, spent))
        started, clock, log = datetime.now(UTC), time.monotonic() - spent, (folder / LOG).open("ab")
        try:
            command = cell.command(self.out) + (further(cell) if going_on else [])
        except LitPWMError as error:
            log.write(f"error: {error}\n".encode())
            log.close()
            write_state(folder, self._state(cell, cell.shown(self.out), None, started, 0.0))
            outcome.failed.append(cell.key)
            self.display.failed(cell, folder)
            return
        # A session of its own: Ctrl-C reaches the cell through this process, which ends it with all that it started.
        # The cell ends by itself when this process was killed, and the inherited lock keeps the folder until it has.
        with run_signals.held():
            process = subprocess.Popen(
                [sys.executable, "-m", "lit_pwm", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=run_signals.not_launched(os.environ)
                | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", LIFELINE: str(self._kept_open[1])}
                | current_folder_as_here(),
                start_new_session=True,
                pass_fds=self._kept_open,
            )
            self._running.append(_Running(cell, ["lit-pwm", *command], process, log, started, clock))
        self.display.started(cell)

    def _finish(self, running: _Running, outcome: Outcome, done: set[str]) -> None:
        self._running.remove(running)
        running.log.close()
        cell, code, seconds = running.cell, running.process.returncode, time.monotonic() - running.clock
        state = self._state(cell, running.command, code, running.started, seconds)
        write_state(cell.folder(self.out), state)
        if code == 0:
            done.add(cell.key)
            outcome.finished.append(cell.key)
            self.display.finished(cell, seconds)
            self._on_finished(cell)
        else:
            outcome.failed.append(cell.key)
            self.display.failed(cell, cell.folder(self.out))

    @staticmethod
    def _state(cell: Cell, command: list[str], code: int | None, started: datetime, seconds: float) -> CellState:
        return CellState(
            status="finished" if code == 0 else "failed",
            exit_code=code,
            command=command,
            arguments=list(cell.arguments),
            fingerprint=cell.fingerprint,
            configs=cell.configs,
            labels=cell.labels,
            started=started.isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
            versions=versions(),
        )

    def _end_all(self) -> None:
        """End the cells that run, with the processes they started; they have no state, and are begun again."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for running in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.process.pid, sign)
            deadline = time.monotonic() + _PATIENCE
            for running in self._running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.process.wait(max(0.0, deadline - time.monotonic()))
        for running in self._running:
            running.log.close()
            seconds = round(time.monotonic() - running.clock, 3)
            with contextlib.suppress(LitPWMError):
                write_begun(running.cell.folder(self.out), Begun(running.cell.fingerprint, seconds))
        self._running = []
