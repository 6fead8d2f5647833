"""The one runner: order, what is skipped, what a failure stops, and calls in this process and in others."""

import graphlib
import importlib
import os
import sys

import pytest

from lit_pwm.experiments.calls import Calls, Here, Work, run_study
from lit_pwm.experiments.engine import Engine, Watcher, ordered
from lit_pwm.runtime.pool import Call, Pool, WorkerEndedError

NEEDS = {"data": (), "model a": ("data",), "model b": ("data",), "policy a": ("model a",), "policy b": ("model b",),
         "table": ("policy a", "policy b"), "other": ()}  # fmt: skip


class Steps:
    """An executor of so many places whose work ends one piece at a time, the first begun first."""

    def __init__(self, places=1, done=(), failing=(), impossible=()):
        self.places, self.done, self.failing, self.impossible = places, done, failing, impossible
        self.running, self.begun, self.most = [], [], 0

    def is_finished(self, key):
        return key in self.done

    def has_room(self):
        return len(self.running) < self.places

    def start(self, key):
        if key in self.impossible:
            return False
        self.running.append(key)
        self.begun.append(key)
        self.most = max(self.most, len(self.running))
        return True

    def ended(self):
        key = self.running.pop(0)
        return [(key, key not in self.failing)]


def run(executor, first=lambda key: 0.0, watcher=None):
    engine = Engine(NEEDS, executor, watcher, first)
    engine.look()
    return engine.run()


def test_each_comes_after_what_it_needs_and_else_in_the_order_given():
    steps = Steps()
    assert run(steps).finished == steps.begun
    # What is ready is begun in the order given: `other` is ready first, but stands last.
    assert steps.begun == ["data", "model a", "model b", "policy a", "policy b", "table", "other"]
    assert ordered({"b": ("a",), "a": (), "c": ("b",)}) == ["a", "b", "c"]
    with pytest.raises(graphlib.CycleError):
        ordered({"b": ("a",), "a": ("b",)})


def test_places_are_filled_and_the_least_is_begun_first():
    steps = Steps(places=2)
    rank = {"policy a": -1.0, "policy b": -1.0, "table": -2.0}
    run(steps, lambda key: rank.get(key, 0.0))
    assert steps.most == 2
    assert steps.begun == ["data", "other", "model a", "model b", "policy a", "policy b", "table"]


def test_what_is_finished_is_skipped_whatever_it_needs():
    steps = Steps(done=("model a", "policy b"))
    outcome = run(steps)
    assert outcome.skipped == ["model a", "policy b"]
    assert steps.begun == ["data", "model b", "policy a", "table", "other"]


@pytest.mark.parametrize("how", ["failing", "impossible"])
def test_a_failure_stops_only_what_needs_it(how):
    seen = []

    class Seen(Watcher):
        def failed(self, key):
            seen.append(("failed", key))

        def blocked(self, key):
            seen.append(("blocked", key))

    outcome = run(Steps(**{how: ("model a",)}), watcher=Seen())
    assert outcome.failed == ["model a"]
    assert outcome.blocked == ["policy a", "table"]
    assert outcome.finished == ["data", "model b", "policy b", "other"]
    assert seen == [("failed", "model a"), ("blocked", "policy a"), ("blocked", "table")]


def test_a_finished_piece_is_not_blocked_by_one_that_it_needed():
    outcome = run(Steps(done=("policy a",), failing=("model a",)))
    assert (outcome.failed, outcome.blocked) == (["model a"], [])
    assert "table" in outcome.finished


# -- calls ------------------------------------------------------------------------------------------------------------
WORK = """
import os
from pathlib import Path

def leave(path, *needed):
    if missing := [name for name in needed if not Path(name).exists()]:
        raise ValueError(f"{missing} should be there")
    Path(path).write_text(str(os.getpid()))
    return f"left {Path(path).name}"

def die(path):
    os._exit(3)
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The functions of the calls, in a module that worker processes can import."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "done_work.py").write_text(WORK)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("done_work")
    sys.path.remove(str(folder))


def work_of(done, folder, *, model_fails=False):
    leave = done.leave
    paths = {name: folder / name for name in ("model", "policy", "other")}
    needed = str(folder / "no such file") if model_fails else str(folder)
    return {
        "model": Work(Call("the model", leave, (str(paths["model"]), needed)), leaves=paths["model"], for_others=True),
        "policy": Work(
            Call("the policy", leave, (str(paths["policy"]), str(paths["model"]))), ("model",), paths["policy"]
        ),
        "other": Work(Call("the other", leave, (str(paths["other"]),)), leaves=paths["other"]),
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_does_what_is_missing_and_no_more(workers, done, tmp_path, capsys):
    outcome = run_study(work_of(done, tmp_path), workers)
    assert sorted(outcome.finished) == ["model", "other", "policy"]
    assert "policy: left policy" in capsys.readouterr().out
    here = {(tmp_path / name).read_text() == str(os.getpid()) for name in ("model", "policy", "other")}
    assert here == {workers == 1}
    (tmp_path / "model").unlink()  # which nothing needs any more
    (tmp_path / "other").unlink()
    outcome = run_study(work_of(done, tmp_path), 1)
    assert (outcome.skipped, outcome.finished) == (["model", "policy"], ["other"])
    (tmp_path / "policy").unlink()
    assert run_study(work_of(done, tmp_path), 1).finished == ["model", "policy"]


def test_a_studys_failure_is_told_and_stops_what_needs_it(done, tmp_path, capsys):
    outcome = run_study(work_of(done, tmp_path, model_fails=True), 1)
    assert (outcome.failed, outcome.blocked, outcome.finished) == (["model"], ["policy"], ["other"])
    said = capsys.readouterr().out
    assert "model failed: ValueError" in said
    assert "1 finished, 1 failed, 1 blocked" in said


def test_an_error_ends_everything_where_nothing_can_go_on_without(done, tmp_path):
    with pytest.raises(ValueError, match="should be there"):
        Calls(work_of(done, tmp_path, model_fails=True), Here()).run()
    assert not (tmp_path / "other").exists()
    with pytest.raises(WorkerEndedError, match="which worked on the end"), Pool(1) as pool:
        Calls({"end": Work(Call("the end", done.die, (str(tmp_path),)))}, pool).run()
