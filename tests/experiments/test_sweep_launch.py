"""Running sweeps through the real command line: resuming, failures, changed commands, interruptions."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import yaml

from lit_pwm.experiments.sweep import records


def looking(store, **stages):
    """A sweep of light commands: look into a store for each label of an axis."""
    return {
        "name": "looking",
        "axes": {"what": {"good": str(store), "bad": "missing.h5"}},
        "stages": {"look": {"over": ["what"], "run": ["data", "info", "{what}"]}, **stages},
    }


def states(folder):
    return {str(path.parent.relative_to(folder)): json.loads(path.read_text()) for path in folder.rglob("cell.json")}


def test_a_failed_cell_stops_only_those_that_need_it(sweeping, small_store, tmp_path):
    plan = looking(
        small_store,
        again={"over": ["what"], "run": ["evaluate", "--checkpoint", "{folder:look}/no-*.ckpt"]},
        end={"over": ["what"], "run": ["data", "info", "{folder:again}"]},
    )
    code, text = sweeping(plan)
    assert code == 1
    found = states(tmp_path / "out")
    assert {key: state["status"] for key, state in found.items()} == {
        "look/what=good": "finished", "look/what=bad": "failed", "again/what=good": "failed",
    }  # fmt: skip
    good = found["look/what=good"]
    assert good["command"] == ["lit-pwm", "data", "info", str(small_store)]
    assert good["seconds"] > 0
    assert good["exit_code"] == 0
    assert "lit_pwm" in good["versions"]
    assert found["look/what=bad"]["exit_code"] == 2
    assert "cartpole-balance" in (tmp_path / "out/look/what=good/log.txt").read_text()
    assert "6 cells: 1 finished, 2 failed, 3 blocked by a failed one." in text
    assert "missing.h5" in text  # the log's last lines
    assert "matches 0" in text


def test_finished_cells_are_skipped_and_failed_ones_run_again(sweeping, small_store, tmp_path):
    plan = looking(small_store)
    assert sweeping(plan)[0] == 1
    first = states(tmp_path / "out")
    (tmp_path / "missing.h5").symlink_to(small_store)
    left = tmp_path / "out/look/what=bad/left-over"
    left.touch()
    code, text = sweeping(plan)
    assert code == 0
    assert "2 cells: 1 finished, 1 finished before." in text
    second = states(tmp_path / "out")
    assert second["look/what=good"] == first["look/what=good"]
    assert second["look/what=bad"]["status"] == "finished"
    assert not left.exists()


def test_a_changed_command_is_refused_until_it_is_said_to_be_meant(sweeping, small_store, tmp_path):
    plan = looking(small_store)
    plan["axes"]["what"].pop("bad")
    assert sweeping(plan)[0] == 0
    first = states(tmp_path / "out")
    plan["stages"]["look"]["run"][1] = "check"
    code, text = sweeping(plan)
    assert code == 2
    assert "'info' then, 'check' now" in text
    assert "--rerun-changed" in text
    assert states(tmp_path / "out") == first
    assert sweeping(plan, "--rerun-changed")[0] == 0
    assert states(tmp_path / "out")["look/what=good"]["command"][2] == "check"


def test_a_moved_sweep_is_still_finished(sweeping, small_store, tmp_path):
    plan = looking(small_store, end={"over": ["what"], "run": ["data", "info", "{folder:look}/../../../x.h5"]})
    plan["axes"]["what"].pop("bad")
    (tmp_path / "x.h5").symlink_to(small_store)
    assert sweeping(plan)[0] == 0
    (tmp_path / "out").rename(tmp_path / "moved")
    assert "2 finished before" in sweeping(plan, "--out", "moved")[1]


def test_folders_of_the_users_hide_no_package_from_cells(sweeping, small_store, tmp_path):
    for name in ("callbacks", "datamodules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('hidden')")
    plan = looking(small_store)
    plan["axes"]["what"].pop("bad")
    code, text = sweeping(plan)
    assert code == 0, text


def test_two_sweeps_do_not_work_in_one_folder(sweeping, small_store, tmp_path):
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, text = sweeping(looking(small_store))
    assert code == 2
    assert "Another sweep works in 'out'" in text
    assert states(tmp_path / "out") == {}


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_cells_and_leaves_the_rest_to_resume(tmp_path, small_store, sign, request):
    plan = looking(small_store, slow={"run": ["collect", "--tasks", "cup-catch", "--episodes", "9999", "--workers", "2",
                                              "--out", "{folder}/x.h5"]})  # fmt: skip
    plan["axes"]["what"].pop("bad")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(plan))
    argv = [sys.executable, "-m", "lit_pwm", "sweep", "sweep.yaml", "--out", "out", "--workers", "2"]
    # A background job of a shell ignores SIGINT, and so would what it starts: here it is a terminal's.
    terminal = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=terminal
    )
    request.addfinalizer(process.terminate)
    deadline = time.monotonic() + 60
    while not (list(tmp_path.glob("out/slow/all/*x.h5*")) and (tmp_path / "out/look/what=good/cell.json").is_file()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, sign)
    text = process.communicate(timeout=30)[0]
    assert process.returncode == 128 + sign
    assert "these cells were running and are taken up next time: slow/all" in " ".join(text.split())
    assert set(states(tmp_path / "out")) == {"look/what=good"}
    # Every process of the cell inherited the lock, so none is left if it is free.
    with (tmp_path / "out/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_record_is_written_as_soon_as_its_cell_has_finished(sweeping, small_store, monkeypatch):
    plan = looking(small_store) | {"record": {"policy": "look", "returns": {"best": "look"}}}
    events = []
    monkeypatch.setattr(records, "write_record", lambda sweep, cells, labels, *rest: events.append(labels["what"]))
    monkeypatch.setattr(records, "write_records", lambda *rest: events.append("all") or [])
    assert sweeping(plan)[0] == 1  # the bad one failed, and has none
    assert events == ["good", "all"]
