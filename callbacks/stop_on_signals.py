"""A run that is asked to stop ends between two updates, with all of them saved."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.last_checkpoint import LastCheckpoint
from callbacks.requeueing import requeue
from lit_pwm.batch import Batch
from lit_pwm.errors import RunStopped
from lit_pwm.runtime import run_signals


def signal_on_any_rank(trainer: Trainer) -> int | None:
    """The signal that any rank was asked to stop by; every rank must ask."""
    asked = run_signals.asked() or 0
    if trainer.world_size > 1 and torch.distributed.is_available() and torch.distributed.is_initialized():
        largest = torch.tensor([asked], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
        asked = int(largest.item())
    return asked or None


def evaluation_is_owed(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the run that wrote a checkpoint was stopped in an evaluation, which is still to be done."""
    total = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"]
    states = checkpoint.get("callbacks", {}).values()
    return total["started"] == total["processed"] + 1 or any(
        isinstance(state, Mapping) and state.get("is_owed") for state in states
    )


class StopOnSignals(Callback):
    """Ends a run that is asked to by SIGINT, SIGTERM, SIGHUP or SLURM's requeue signal, and takes their place.

    The update in flight is finished on all ranks (which agree after each by one small reduction), `LastCheckpoint`
    saves, and the run ends by `RunStopped`, a SystemExit with code 130, 143 or 129. Before the first update and in an
    evaluation it ends within seconds; a run resumed from there does that evaluation again, as a whole. At the requeue
    signal rank zero asks SLURM once to start the job again, and the code is 0. A second signal ends the process at
    once. Lightning's own handlers, which would exchange messages between ranks from within, are not used.

    The command line has it by default. Hooks: `setup`, `on_train_start`, `on_train_batch_end`, `on_validation_start`,
    `on_validation_batch_end`, `on_train_end`, `on_exception`, `teardown`; checkpoints of a run that was stopped in an
    evaluation say so in the state of Lightning's loops.
    """

    def __init__(self) -> None:
        self._installed, self._cut_short, self._agreed = False, False, None
        self._before: dict[str, Any] = {}
        self._planned: int | None = None
        self._requeues = True

    # -- when -------------------------------------------------------------------------------------------------------
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the signals over; end here if a rank was asked to stop before it had joined the others."""
        self._installed |= run_signals.install()
        self._cut_short, self._agreed = False, None
        trainer_parts = cast("Any", trainer)
        trainer_parts._signal_connector = _StopPoints(self, trainer)
        environment = trainer_parts._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment):
            self._requeues = environment.auto_requeue
            if environment.requeue_signal is not None:
                run_signals.requeue_by(environment.requeue_signal)
        children = _children_of(trainer)
        launched_by = run_signals.launcher()
        run_signals.tell(peers=children if launched_by is None else lambda: (launched_by,), children=children)
        self._stop_if(signal_on_any_rank(trainer))
        run_signals.defer(False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From now on updates are finished first."""
        run_signals.defer(True)
        loop = trainer.fit_loop.epoch_loop.val_loop
        if loop.restarted_mid_evaluation:
            # The loop knows by now that it is to evaluate; a later checkpoint is not to say so again.
            total = loop.batch_progress.total
            total.ready = cast("Any", total).started = total.completed
        else:
            self._let_the_run_end(trainer)  # what there was to evaluate has been done in this hook of another callback

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Agree; the run ends when Lightning has done with this update."""
        self._agreed = signal_on_any_rank(trainer)
        if self._agreed is not None and _epoch_is_over(trainer):
            # Between epochs Lightning's counters stand where it cannot go on from: what is kept is saved before.
            for last in _last_checkpoints(trainer):
                last.save_this_update()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what callbacks save, for an evaluation that is cut short; end one that need not begin."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._let_the_run_end(trainer)
        others = [callback for callback in cast("Any", trainer).callbacks if not isinstance(callback, Checkpoint)]
        self._before = {one.state_key: state for one in others if (state := copy.deepcopy(one.state_dict()))}
        self._stop_if(signal_on_any_rank(trainer))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Agree."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._agreed = signal_on_any_rank(trainer)

    def stop_here(self, trainer: Trainer) -> bool:
        """Called where Lightning can stop: after an update with its validation, a batch of one, or an epoch."""
        if trainer.state.fn == TrainerFn.FITTING and (
            trainer.validating
            or not _epoch_is_over(trainer)
            or (not _run_is_over(trainer) and all(last.has_saved(trainer) for last in _last_checkpoints(trainer)))
        ):
            self._stop_if(self._agreed)
        return False

    @staticmethod
    def _stop_if(signum: int | None) -> None:
        if signum is not None:
            raise RunStopped(signum)

    # -- what is left -----------------------------------------------------------------------------------------------
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Have the state saved, and the job started again if that was asked for."""
        try:
            if isinstance(exception, RunStopped):
                self._save_and_leave(trainer, exception)
        finally:
            self._release()

    def _save_and_leave(self, trainer: Trainer, exception: RunStopped) -> None:
        self._cut_short = trainer.state.fn == TrainerFn.FITTING and trainer.validating
        for last in _last_checkpoints(trainer):
            last.save_stopped(trainer)
        if self._requeues and run_signals.is_requeue(exception.signum):
            run_signals.leave_to_scheduler()
            exception.code = requeue() if trainer.is_global_zero else 0
        if run_signals.launcher() is not None:
            exception.code = 0  # the process that launched this one reports for all, and takes another code for a crash

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Of a run that was stopped in an evaluation, let the checkpoint say that it is still to be done."""
        if not self._cut_short:
            return
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
        done = progress["total"]["completed"] - progress["current"]["completed"]
        # One batch begun and none finished, which is how Lightning knows an evaluation that was interrupted.
        progress["total"] = {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}
        progress["current"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        progress["is_last_batch"] = False
        # Of random states, counters and the like those before it began; files of checkpoints are as they are.
        files = {callback.state_key for callback in trainer.checkpoint_callbacks}
        kept = {key: state for key, state in checkpoint.get("callbacks", {}).items() if key in files}
        checkpoint["callbacks"] = self._before | kept

    # -- what is done again -----------------------------------------------------------------------------------------
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """See whether an evaluation after the last update of the run is to be done."""
        if "loops" in checkpoint and trainer.state.fn == TrainerFn.FITTING:
            owed = evaluation_is_owed(checkpoint)
            if owed and checkpoint["global_step"] >= trainer.max_steps > 0:
                self._planned = trainer.max_steps

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that is at its end would not begin at all: plan one update more until its evaluation begins."""
        if self._planned is not None:
            trainer.fit_loop.epoch_loop.max_steps = self._planned + 1

    def _let_the_run_end(self, trainer: Trainer) -> None:
        if self._planned is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._planned = self._planned, None

    # -- end --------------------------------------------------------------------------------------------------------
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        asked, mine = run_signals.asked(), self._installed
        self._release()
        if mine:
            self._stop_if(asked)

    def _release(self) -> None:
        if self._installed:
            self._installed = False
            run_signals.uninstall()


class _StopPoints:
    """Stands where Lightning's Trainer has its own handlers of signals."""

    def __init__(self, callback: StopOnSignals, trainer: Trainer) -> None:
        self._callback, self._trainer = callback, trainer

    @property
    def received_sigterm(self) -> bool:
        return self._callback.stop_here(self._trainer)

    def register_signal_handlers(self) -> None:
        """They are registered already."""

    def teardown(self) -> None:
        """They stay until the callback gives them back."""


def _epoch_is_over(trainer: Trainer) -> bool:
    """Lightning could stop here too, but would count an epoch too many when it goes on from what is saved here."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached() or _run_is_over(trainer)


def _run_is_over(trainer: Trainer) -> bool:
    loop = trainer.fit_loop.epoch_loop
    return 0 <= loop.max_steps <= loop.global_step


def _last_checkpoints(trainer: Trainer) -> list[LastCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint)]


def _children_of(trainer: Trainer) -> Any:
    """Asks for the running processes that this one has launched as ranks."""
    launcher = trainer.strategy.launcher

    def pids() -> Iterable[int]:
        if isinstance(launcher, _SubprocessScriptLauncher):
            return [process.pid for process in launcher.procs if process.poll() is None]
        return ()

    return pids
