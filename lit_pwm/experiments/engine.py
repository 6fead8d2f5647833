"""The one runner of experiments: work that needs other work, some at a time, and nothing that is finished twice.

A sweep's cells are processes of the command line, the demo's and the studies' work are calls of functions. Where work
runs is an `Executor`'s; what is begun next, what is skipped and what a failure stops is decided here.
"""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass
class Outcome:
    """How work went, by its keys.

    Attributes:
        skipped: finished before.
        finished: finished now.
        failed: did not end well.
        blocked: not begun, because work that it needs, directly or not, failed.
    """

    skipped: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)


class Executor(Protocol):
    """Where work runs."""

    def is_finished(self, key: str) -> bool:
        """Whether this work was done before."""
        ...

    def has_room(self) -> bool:
        """Whether more can be begun now."""
        ...

    def start(self, key: str) -> bool:
        """Begin this work; False if it could not be begun, which counts as failed."""
        ...

    def ended(self) -> Iterable[tuple[str, bool]]:
        """The work that has ended since the last call, and whether well; waits for a moment if there is none."""
        ...


class Watcher:
    """Is told what happens; all methods do nothing here."""

    def skipped(self, key: str) -> None:
        """The work was finished before."""

    def started(self, key: str) -> None:
        """The work runs."""

    def finished(self, key: str) -> None:
        """The work ended well."""

    def failed(self, key: str) -> None:
        """The work did not end well, or could not be begun."""

    def blocked(self, key: str) -> None:
        """The work cannot be begun, because some that it needs failed."""

    def tick(self) -> None:
        """Some time has passed."""


def ordered(needs: Mapping[str, Collection[str]]) -> list[str]:
    """The keys, each after those that it needs, and otherwise in the order in which they are given.

    Raises:
        graphlib.CycleError: keys need each other; its second argument names them, the first again at the end.
    """
    return list(graphlib.TopologicalSorter(needs).static_order())


class Engine:
    """Runs work once what it needs is finished.

    Args:
        needs: the key of each piece of work → the keys of those that come before it, which are among the keys.
        executor: where it runs.
        watcher: is told what happens.
        first: of what can be begun, the least is; equals are begun in the order of `needs`.
    """

    def __init__(
        self,
        needs: Mapping[str, Collection[str]],
        executor: Executor,
        watcher: Watcher | None = None,
        first: Callable[[str], float] = lambda key: 0.0,
    ) -> None:
        self.needs, self.executor, self.watcher = needs, executor, watcher or Watcher()
        place = {key: number for number, key in enumerate(needs)}
        self._turn = lambda key: (first(key), place[key])
        self.outcome, self._left = Outcome(), dict[str, set[str]]()

    def look(self) -> list[str]:
        """Skip what is finished, whatever it needs; returns the rest."""
        for key in self.needs:
            if self.executor.is_finished(key):
                self.outcome.skipped.append(key)
                self.watcher.skipped(key)
        done = set(self.outcome.skipped)
        self._left = {key: set(needs) - done for key, needs in self.needs.items() if key not in done}
        return list(self._left)

    def run(self) -> Outcome:
        """Run what `look` left. Work that fails stops only what needs it."""
        sorter = graphlib.TopologicalSorter(self._left)
        sorter.prepare()
        ready, running = [*sorter.get_ready()], 0
        while ready or running:
            ready.sort(key=self._turn)
            while ready and self.executor.has_room():
                key = ready.pop(0)
                if self.executor.start(key):
                    running += 1
                    self.watcher.started(key)
                else:
                    self._fail(key)
            for key, well in self.executor.ended() if running else ():
                running -= 1
                if well:
                    self.outcome.finished.append(key)
                    self.watcher.finished(key)
                    sorter.done(key)
                    ready += sorter.get_ready()
                else:
                    self._fail(key)
            self.watcher.tick()
        return self.outcome

    def _fail(self, key: str) -> None:
        self.outcome.failed.append(key)
        self.watcher.failed(key)
        lost = {key, *self.outcome.blocked}
        for other in ordered(self._left):  # in order, so that what needs a blocked one is blocked too
            if other not in lost and not lost.isdisjoint(self._left[other]):
                lost.add(other)
                self.outcome.blocked.append(other)
                self.watcher.blocked(other)
