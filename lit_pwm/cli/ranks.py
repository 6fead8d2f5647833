"""The processes of one run, as its command line sees them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.distributed import PrefixStore, Store, TCPStore, rendezvous

from lit_pwm.cli.resuming import Resumption
from lit_pwm.errors import LitPWMError
from lit_pwm.runtime import run_signals
from lit_pwm.runtime.stopping import shielded

_DECIDED = "LIT_PWM_RESUMES_FROM"
_GRACE_SECONDS = 10.0
_PATIENCE = timedelta(minutes=10)
_meetings: list[Store] = []


def was_restarted(root: Path) -> bool:
    """Whether SLURM has started this job again, after a requeue or a failure of a node.

    Where Lightning's own handler has left its checkpoint in the run's folder, Lightning would go on from it without
    comparing settings: that counts too.
    """
    counted = os.environ.get("SLURM_RESTART_COUNT", "0").strip() not in ("", "0")
    return counted or (SLURMEnvironment.detect() and any(root.glob("hpc_ckpt_*.ckpt")))


def agreed_with_rank_zero(find: Callable[[], Resumption | None], ranks: int, nodes: int = 1) -> Resumption | None:
    """What rank zero finds; the other ranks take it over instead of looking by themselves.

    Disks that nodes share show them new files and their times at different moments. Ranks that rank zero launches are
    told by their environment, those that a cluster or `torchrun` starts through the address where they are to meet.

    Args:
        find: looks for a checkpoint.
        ranks: processes of the run.
        nodes: its machines.

    Raises:
        LitPWMError: rank zero's, on all ranks; or it does not answer.
    """
    if run_signals.launcher() is not None and _DECIDED in os.environ:
        decided = os.environ[_DECIDED]
    elif (meeting := _meeting(ranks, nodes)) is None:
        decided = _plain(find())
    else:
        decided = _agreed(find, *meeting)
    return _resumption(_told(decided))


def _told(decided: str) -> str:
    """Tell the ranks that this process will launch."""
    os.environ[_DECIDED] = decided
    return decided


def _plain(found: Resumption | None) -> str:
    return json.dumps(None if found is None else asdict(found), default=str)


def _resumption(decided: str) -> Resumption | None:
    found = json.loads(decided)
    return None if found is None else Resumption(**found | {"path": Path(found["path"])})


def _meeting(ranks: int, nodes: int) -> tuple[Store, int, int] | None:
    """Where processes that others have started meet, which of them this is, and how many look for a checkpoint."""
    if ranks == 1:
        return None
    for kind in (SLURMEnvironment, TorchElasticEnvironment):
        if kind.detect() and (environment := kind()).world_size() == ranks:
            os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = (
                environment.main_address,
                str(environment.main_port),
            )
            store, _, _ = next(rendezvous("env://", environment.global_rank(), ranks, timeout=_PATIENCE))
            return store, environment.global_rank(), ranks
    if nodes > 1 and "MASTER_PORT" in os.environ and not LightningEnvironment().creates_processes_externally:
        node = LightningEnvironment()
        rank = node.node_rank()
        # The same as Lightning's own at this address, which shares it where both are of one process.
        store = TCPStore(node.main_address, node.main_port, nodes, rank == 0, _PATIENCE, False, multi_tenant=True)
        return store, rank, nodes
    return None


def _agreed(find: Callable[[], Resumption | None], store: Store, rank: int, members: int) -> str:
    _meetings.append(store)  # which ends with its last user, and Lightning's ranks meet there again
    store = PrefixStore("lit_pwm", store)
    if rank == 0:
        try:
            decided = _plain(find())
        except LitPWMError as error:
            store.set("refused", str(error))
            store.set("decided", "")
            _wait(store, members)
            raise
        store.set("decided", decided)
        _wait(store, members)
        return decided
    try:
        decided = store.get("decided").decode()
    except Exception as error:
        raise LitPWMError(
            f"Rank 0 has not told rank {rank} which checkpoint to resume from within {_PATIENCE}. Look at its output: "
            f"it may not have started."
        ) from error
    refused = "" if decided else store.get("refused").decode()
    store.set(f"heard/{rank}", "")
    if refused:
        raise LitPWMError(refused)
    return decided


def _wait(store: Store, members: int) -> None:
    """The meeting ends with the process of rank zero: it stays until all others know."""
    store.wait([f"heard/{rank}" for rank in range(1, members)], _PATIENCE)


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
