"""Real `lit-pwm` processes, and what can happen to them: signals, kills, full disks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from running_process import Running

# Lightning's log handler keeps the stderr it finds when it is imported: let that be pytest's own and not a test's.
import lit_pwm.cli.trainer  # noqa: F401
from datamodules import EpisodeStore, EpisodeWriter
from datamodules.check import check

HOOKS = Path(__file__).parent / "hooks"
ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests" / "fixtures_v1"
TINY = ["--config", "configs/world_model/mlp_tiny.yaml", "--model.latent_dim", "16", "--model.encoder_dim", "16",
        "--model.reward_dim", "16", "--model.dynamics.hidden_dim", "16"]  # fmt: skip
SHORT = ["--data.batch_size", "8", "--data.horizon", "4", "--trainer.limit_val_batches", "1", "--trainer.devices", "1",
         "--trainer.accelerator", "cpu"]  # fmt: skip


@pytest.fixture
def start(tmp_path_factory):
    """Starts `lit-pwm ARGV` in a folder, with a fault (see hooks/sitecustomize.py) if one is given."""
    started: list[Running] = []

    def run(argv, cwd, fault=None, **environment) -> Running:
        folder = tmp_path_factory.mktemp("output")
        path = os.pathsep.join(filter(None, [str(HOOKS), str(ROOT), os.environ.get("PYTHONPATH")]))
        own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONWARNINGS": "ignore"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PL_", "SLURM_"))}
        if fault is not None:
            own["LIT_PWM_TEST_FAULT"] = json.dumps(fault)
        with open(folder / "stdout", "wb") as stdout, open(folder / "stderr", "wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "lit_pwm", *map(str, argv)],
                cwd=cwd, env={**kept, **own, **environment}, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                start_new_session=True,
            )  # fmt: skip
        started.append(Running(process, folder, Path(cwd)))
        return started[-1]

    yield run
    for running in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()


@pytest.fixture(scope="session")
def here():
    """Runs a command line to its end in this process, for what nothing disturbs: another begins with 4 s of imports."""
    from lit_pwm.cli.main import run

    def to_its_end(argv, cwd):
        threads = torch.get_num_threads()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            patch.syspath_prepend(HOOKS)
            torch.set_num_threads(1)  # as in those that are started
            try:
                assert run([str(part) for part in argv]) == 0
            finally:
                torch.set_num_threads(threads)

    return to_its_end


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Makes a folder once for all workers of this session of tests: a name, and what fills it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name, fill):
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (base / name).exists():
                beside = base / f"{name}.part"
                beside.mkdir()
                fill(beside)
                beside.rename(base / name)
        return base / name

    return made


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A store of four real episodes of two tasks, in today's version."""
    path = tmp_path_factory.mktemp("store") / "episodes.h5"
    old = EpisodeStore(OLD / "collected.h5")
    with EpisodeWriter(path, tasks=old.tasks, action_repeat=old.action_repeat) as writer:
        for episode in old:
            arrays = {"obs": episode.obs, "action": episode.action, "reward": episode.reward}
            writer.append(task=episode.task, **arrays, terminated=episode.terminated, source=episode.source)
    return path


@pytest.fixture(scope="session")
def pretraining(store):
    """The command line of a small pre-training run under a folder."""

    def argv(root, updates=6, validate_every=3, *more):
        run = ["--trainer.max_steps", updates, "--trainer.val_check_interval", validate_every, "--data.store", store]
        return ["fit", "--config", "configs/pretrain.yaml", *TINY, *SHORT, *run, "--trainer.default_root_dir", root,
                "--trainer.log_every_n_steps", "1", *more]  # fmt: skip

    return argv


@pytest.fixture(scope="session")
def policy_learning(store):
    """The command line of a small run of policy learning under a folder."""

    def argv(root, updates=6, validate_every=3, *more):
        run = ["--trainer.max_steps", updates, "--trainer.val_check_interval", validate_every, "--data.store", store]
        run += ["--data.tasks", "[cartpole-swingup]", "--model.world_model_checkpoint", OLD / "mlp.ckpt"]
        return ["fit", "--config", "configs/policy_learning.yaml", "--config", "configs/policy/mlp_tiny.yaml", *SHORT,
                *run, "--model.horizon", "4", "--trainer.default_root_dir", root, *more]  # fmt: skip

    return argv


@pytest.fixture(scope="session")
def lingering():
    """The options that let a run linger in a phase, see hooks/phases.py."""

    def options(phase, updates, file, seconds=1.5):
        linger = {"phase": phase, "updates": updates, "file": str(file), "seconds": seconds}
        return ["--trainer.callbacks+", json.dumps({"class_path": "phases.Linger", "init_args": linger})]

    return options


def state_of(path: Path) -> dict:
    """A checkpoint's content."""
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="session")
def last_of():
    """The content of the one last.ckpt below a folder."""

    def read(root):
        (path,) = root.rglob("last.ckpt")
        return state_of(path)

    return read


KEPT = {".lock", "made_by_lit_pwm.json"}
"""Files that may be empty: a lock, which counts by who holds it, and the mark of an own folder."""
READERS = {
    ".ckpt": state_of,
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
}


@pytest.fixture(scope="session")
def whole():
    """Fails unless each file below a folder is whole; leftovers under other names are allowed after a kill alone."""

    def look(root, killed=False):
        for path in root.rglob("*"):
            if path.is_dir() or path.name in KEPT:
                continue
            beside = path.name.startswith(".") or path.suffix in (".part", ".tmp")
            if beside:
                assert killed, f"left behind: {path.relative_to(root)}"
            elif path.suffix == ".h5":
                assert check(path) == [], path
            elif path.suffix in READERS:
                assert READERS[path.suffix](path), path

    return look


@pytest.fixture(scope="session")
def refused():
    """Fails unless a process ended with one paragraph and exit code 2."""

    def look(code, stderr, *words):
        assert "Traceback" not in stderr, stderr
        assert code == 2, (code, stderr)
        said = stderr[stderr.rindex("error: ") :]
        assert "\n\n" not in said.strip(), said
        for word in words:
            assert word in " ".join(said.split()), said

    return look
