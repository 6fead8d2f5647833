"""The processes of one run, as its command line sees them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from lit_pwm.cli.resuming import Resumption
from lit_pwm.runtime import run_signals
from lit_pwm.runtime.stopping import shielded

_DECIDED = "LIT_PWM_RESUMES_FROM"
_GRACE_SECONDS = 10.0


def was_restarted(root: Path) -> bool:
    """Whether SLURM has started this job again, after a requeue or a failure of a node.

    Where Lightning's own handler has left its checkpoint in the run's folder, Lightning would go on from it without
    comparing settings: that counts too.
    """
    counted = os.environ.get("SLURM_RESTART_COUNT", "0").strip() not in ("", "0")
    return counted or (SLURMEnvironment.detect() and any(root.glob("hpc_ckpt_*.ckpt")))


def agreed_with_rank_zero(find: Callable[[], Resumption | None]) -> Resumption | None:
    """What rank zero finds; ranks that it launches take it over instead of looking by themselves."""
    if run_signals.launcher() is not None and _DECIDED in os.environ:
        decided = json.loads(os.environ[_DECIDED])
        return None if decided is None else Resumption(**decided | {"path": Path(decided["path"])})
    found = find()
    os.environ[_DECIDED] = json.dumps(None if found is None else asdict(found), default=str)
    return found


def shield_ranks(trainer: Trainer) -> None:
    """Let ranks be born deaf to signals: for one that a signal ends as it imports, Lightning would kill rank zero."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        launch = launcher._call_children_scripts

        def launch_shielded() -> None:
            with shielded():
                launch()

        launcher._call_children_scripts = launch_shielded


def end_ranks(trainer: Trainer) -> None:
    """Let the ranks that this process has launched end, and end those that do not; none outlives it."""
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher) or not launcher.procs:
        return
    processes = list(launcher.procs)
    launcher.procs.clear()  # Lightning watches them, and would kill this process for the code of one
    for process in processes:
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
