"""Runs a sweep's cells as processes on this machine, a few at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.engine import Engine, Outcome
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
from lit_pwm.provenance import versions
from lit_pwm.runtime import run_signals
from lit_pwm.runtime.imports import current_folder_as_here
from lit_pwm.runtime.processes import LIFELINE, lifeline

_PATIENCE = 8.0
"""Seconds between asking an interrupted cell to end and ending it."""
_MOMENT = 0.05
"""Seconds between looks at the cells that run."""


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
        self._running: list[_Running] = []
        self._kept_open = (-1, -1)

    def run(self) -> Outcome:
        """Run what is not finished.

        Raises:
            LitPWMError: another sweep, or a cell that outlived one, still works in the folder, or a folder of a cell
                is one that no sweep made.
            KeyboardInterrupt: a signal asked to end (`lit_pwm.runtime.stopping`); the running cells have been ended.
        """
        stages = list(dict.fromkeys(cell.stage for cell in self.cells.values()))
        rank = {key: -stages.index(cell.stage) for key, cell in self.cells.items()}
        needs = {key: cell.needs for key, cell in self.cells.items()}
        with only_one(self.out, "sweep") as lock, lifeline() as line:
            self._kept_open = (lock, line)
            engine = Engine(needs, self, self.display, rank.__getitem__)
            for key in engine.look():
                check_own(self.cells[key].folder(self.out), (CELL,))
            run_signals.tell(peers=tuple, children=lambda: [-running.process.pid for running in self._running])
            with self.display:
                try:
                    return engine.run()
                finally:
                    self._end_all()

    # -- what the engine asks -----------------------------------------------------------------------------------------
    def is_finished(self, key: str) -> bool:
        """Whether the cell has ended well with the work that the sweep wants of it."""
        cell = self.cells[key]
        state = read_state(cell.folder(self.out))
        return state is not None and state.status == "finished" and state.fingerprint == cell.fingerprint

    def has_room(self) -> bool:
        """Whether fewer cells run than may."""
        return len(self._running) < self.workers

    def ended(self) -> list[tuple[str, bool]]:
        """The cells whose commands have exited; waits for a moment if none has."""
        over = [running for running in self._running if running.process.poll() is not None]
        if not over:
            time.sleep(_MOMENT)
        return [(running.cell.key, self._finish(running)) for running in over]

    def start(self, key: str) -> bool:
        """Begin a cell's command; False if it cannot be told, which its log explains."""
        cell = self.cells[key]
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
            return False
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
        return True

    def _finish(self, running: _Running) -> bool:
        """Write a cell's state; whether it ended well."""
        self._running.remove(running)
        running.log.close()
        cell, code, seconds = running.cell, running.process.returncode, time.monotonic() - running.clock
        state = self._state(cell, running.command, code, running.started, seconds)
        write_state(cell.folder(self.out), state)
        if code == 0:
            self._on_finished(cell)
        return code == 0

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
