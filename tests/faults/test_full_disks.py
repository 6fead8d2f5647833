"""A disk that is full at any write: one paragraph that names it, the files before it whole, nothing half written."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from chunk_files import chunk_arrays
from tensordict_pickles import save_tensordict

OLD = Path(__file__).parents[1] / "fixtures_v1"


@pytest.fixture
def disk(tmp_path):
    """Mounts an empty disk of some kilobytes; without the right to mount, skips."""
    mounted = []

    def make(kilobytes):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(["mount", *options], capture_output=True).returncode:
            pytest.skip("mounting a small disk needs root")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def used(folder) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*")) // 1024


def assert_out_of_room(running, refused):
    refused(running.finish(), running.stderr)
    said = " ".join(running.stderr[running.stderr.rindex("error: ") :].split())
    assert "No space left on device" in said or "File too large" in said, said
    return said


@pytest.fixture
def four_updates(pretraining):
    return lambda root: pretraining(root, 4, 2)


def test_a_checkpoint_that_finds_no_room(tmp_path, disk, start, here, four_updates, refused, whole):
    """The second of two, and a small TMPDIR beside: the first stays whole."""
    small, full = disk(200), disk(4000)
    here(four_updates(full / "run"), tmp_path)
    needed = used(full / "run")
    room = disk(needed)
    running = start(four_updates(room / "run"), tmp_path, TMPDIR=str(small))
    code = running.finish()
    if code:  # beside what is there, the next checkpoint needs room of its own
        refused(code, running.stderr, "No space left on device")
    whole(room)
    (last,) = room.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == (4 if code == 0 else 2)


@pytest.mark.faults
def test_training_on_disks_of_any_size(tmp_path, disk, start, here, four_updates, refused, whole):
    here(four_updates(tmp_path / "run"), tmp_path)
    needed, codes = used(tmp_path / "run"), []
    for share in (0.02, 0.05, 0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5):
        room = disk(max(8, int(share * needed)))
        running = start(four_updates(room / "run"), tmp_path)
        codes.append(running.finish())
        if codes[-1]:
            refused(codes[-1], running.stderr, "No space left on device")
        whole(room)
    assert codes[-1] == 0
    assert codes.count(0) < len(codes) - 4


@pytest.mark.faults
@pytest.mark.parametrize("largest", [0, 1000, 5000, 20000, 60000])
def test_training_where_files_must_stay_small(largest, tmp_path, start, four_updates, refused, whole):
    """A quota, without root: no file may grow beyond so many bytes."""
    root = tmp_path / "run"
    running = start(four_updates(root), tmp_path, {"largest_file": largest})
    with contextlib.suppress(ValueError):  # where even the error cannot be written
        refused(running.finish(), running.stderr, "File too large")
    whole(root)


@pytest.mark.faults
@pytest.mark.parametrize("kilobytes", [4, 8, 16, 24, 32, 64])
def test_collecting_without_room(kilobytes, tmp_path, disk, start, here, refused):
    room = disk(kilobytes)
    argv = ["collect", "--tasks", "cartpole-balance", "--episodes", "6", "--workers", "1", "--out"]
    running = start([*argv, room / "new.h5"], tmp_path)
    assert_out_of_room(running, refused)
    assert not (room / "new.h5").exists()
    # The sound episodes are kept: with room, it goes on.
    subprocess.run(["mount", "-o", "remount,size=4m", str(room)], check=True)
    here([*argv, room / "new.h5"], tmp_path)
    here(["data", "check", room / "new.h5"], tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("kilobytes", [4, 12, 40])
def test_importing_without_room(kilobytes, tmp_path, disk, start, here, refused):
    room, chunk = disk(kilobytes), tmp_path / "chunk_0.pt"
    save_tensordict(chunk, chunk_arrays([0, 4, 8] * 4, 40))
    argv = ["data", "import", chunk, "--out", room / "new.h5"]
    assert_out_of_room(start(argv, tmp_path), refused)
    assert not (room / "new.h5").exists()
    subprocess.run(["mount", "-o", "remount,size=4m", str(room)], check=True)
    here(argv, tmp_path)
    here(["data", "check", room / "new.h5"], tmp_path)


@pytest.mark.faults
def test_results_without_room_keep_the_earlier_ones(tmp_path, disk, start, refused):
    room = disk(8)
    (room / "result.json").write_text(json.dumps({"earlier": 1}))
    (room / "ballast").write_bytes(bytes(4096))
    argv = ["evaluate", "--checkpoint", OLD / "mlp_policy.ckpt", "--tasks", "cartpole-swingup", "--episodes", "1"]
    running = start([*argv, "--out", room / "result.json"], tmp_path)
    assert_out_of_room(running, refused)
    assert json.loads((room / "result.json").read_text()) == {"earlier": 1}
    assert sorted(path.name for path in room.iterdir()) == ["ballast", "result.json"]


@pytest.mark.faults
def test_a_report_without_room_keeps_the_earlier_one(tmp_path, disk, start, refused):
    room = disk(24)
    (room / "index.html").write_text("<html>earlier</html>")
    (room / "ballast").write_bytes(bytes(8192))
    (tmp_path / "runs").mkdir()
    shutil.copy(Path(__file__).parent / "demo_record.json", tmp_path / "runs/record.json")
    running = start(["report", tmp_path / "runs", "--out", room], tmp_path)
    assert_out_of_room(running, refused)
    assert (room / "index.html").read_text() == "<html>earlier</html>"
    assert not [path for path in room.rglob(".*") if path.is_file()]


@pytest.mark.faults
def test_a_sweep_without_room_goes_on_when_there_is(tmp_path, disk, start, refused, whole, store):
    room = disk(16)
    look = {"over": ["n"], "run": ["data", "check", str(store)]}
    (tmp_path / "small.yaml").write_text(json.dumps({"name": "s", "axes": {"n": [0, 1, 2]}, "stages": {"look": look}}))
    argv = ["sweep", tmp_path / "small.yaml", "--out", room / "out", "--workers", "1"]
    running = start(argv, tmp_path)
    assert_out_of_room(running, refused)
    whole(room)
    subprocess.run(["mount", "-o", "remount,size=4m", str(room)], check=True)
    again = start(argv, tmp_path)
    assert again.finish() == 0, again.stdout + again.stderr
    assert [json.loads(path.read_text())["status"] for path in room.rglob("cell.json")] == ["finished"] * 3


@pytest.mark.faults
@pytest.mark.parametrize("kilobytes", [0, 4, 16, 40, 64])
def test_videos_without_room_leave_none(kilobytes, tmp_path, disk):
    from lit_pwm.errors import LitPWMError
    from lit_pwm.evaluation.video import write_video

    room, rng = disk(100), np.random.default_rng(0)
    (room / "ballast").write_bytes(bytes((96 - kilobytes) * 1024))
    frames = (rng.integers(256, size=(64, 64, 3), dtype=np.uint8) for _ in range(200))
    with pytest.raises(LitPWMError, match="video could not be written"):
        write_video(room / "x.mp4", frames, 25)
    assert [path.name for path in room.iterdir()] == ["ballast"]
