"""Returns of a policy in the real environments while it is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.stop_on_signals import signal_on_any_rank
from callbacks.validation_interval import ValidationInterval, validates
from lit_pwm.batch import Batch
from lit_pwm.errors import LitPWMError, RunStopped
from lit_pwm.evaluation.evaluator import EvaluationResult, Evaluator
from lit_pwm.evaluation.known_tasks import why_none
from lit_pwm.evaluation.model_gap import STEPS
from lit_pwm.models.accumulation import accumulation_dtype
from lit_pwm.options import Count, Length, Positive, Seed, checked
from lit_pwm.policy_learning import PolicyLearning
from lit_pwm.runtime import run_signals
from lit_pwm.tasks.workers import TIMEOUT

_METRICS = ("eval/return", f"eval/imagined_return_{STEPS}", f"eval/real_return_{STEPS}", "eval/model_gap")


class EnvironmentEvaluation(Callback):
    """Evaluates the deterministic policy over seeded episodes, before the first update and in intervals.

    Logs `eval/return/TASK`, the mean return of each task, and `eval/return`, the mean over tasks, which
    `ModelCheckpoint(monitor="eval/return", mode="max")` can choose by. From states visited in these episodes it also
    compares what the world model promises for the next 16 steps with what they brought
    (`lit_pwm.evaluation.model_gap`), in environment units: `eval/imagined_return_16`, `eval/real_return_16` and their
    difference `eval/model_gap`, means over tasks, and for each task with `/TASK` behind the name.
    The seeds are the callback's own: report results
    on other seeds, or the best checkpoint's return is biased upwards. Under several ranks each evaluates its share of
    the tasks. The environments stay open during the run.

    By default it evaluates at each validation, and where there is nothing to validate on, as often as the Trainer's
    `val_check_interval` says. What monitors a metric of it (`ModelCheckpoint`) chooses after each evaluation either
    way. A run that is stopped while it evaluates does that evaluation again, as a whole, when it is resumed.

    Hooks: `on_train_start`, `on_train_batch_end` (evaluations without a validation), `on_validation_epoch_end`. In
    checkpoints: whether an evaluation is still to be done.

    Args:
        episodes: episodes of each task; episode i uses environment seed `seed` + i.
        seed: first environment seed.
        tasks: tasks to evaluate; those the policy is trained for if not given.
        before_training: evaluate before the first update, which also shows early that evaluation works.
        every_n_updates: updates between evaluations; as often as validation if not given.
        timeout: seconds in which a worker process of environments has to answer; one that was killed or stopped ends
            the run with an error that names it.

    Raises:
        LitPWMError: an argument is out of its range; the Trainer fits something else than a policy; or a task has no
            environment, which is said before the first update.
    """

    @checked
    def __init__(
        self,
        episodes: Count = 10,
        seed: Seed = 10_000,
        tasks: Annotated[Sequence[str], Length(1)] | None = None,
        before_training: bool = True,
        every_n_updates: Count | None = None,
        timeout: Positive = TIMEOUT,
    ) -> None:
        if tasks is not None and len(set(tasks)) < len(tasks):
            raise LitPWMError(
                f"EnvironmentEvaluation has tasks {list(tasks)}, which name one twice, so that it would count twice in "
                f"the mean. Name each once."
            )
        self.episodes, self.seed, self.before_training = episodes, seed, before_training
        self.every_n_updates, self._interval = every_n_updates, ValidationInterval()
        self._is_owed, self._was_owed = False, False
        self.timeout = timeout
        self.tasks = None if tasks is None else tuple(tasks)
        self.latest: EvaluationResult | None = None
        self._evaluator: Evaluator | None = None

    def _evaluate(self, trainer: Trainer, module: PolicyLearning) -> dict[str, dict[str, float]]:
        """Metric → task → value, on every rank."""
        tasks = self.tasks or module.trained_tasks
        share = tasks[trainer.global_rank :: trainer.world_size]
        table = torch.full((len(_METRICS), len(tasks)), torch.nan, dtype=torch.float64)
        latest = None
        if share:
            if self._evaluator is None:
                self._check_environments(trainer, module)
                self._evaluator = Evaluator(share, self.episodes, self.seed, timeout=self.timeout)
            latest = self._run(self._evaluator, module)
        stopped = signal_on_any_rank(trainer)
        if stopped is not None:
            raise RunStopped(stopped)
        if share:
            assert latest is not None
            self.latest = latest
            for name, result in self.latest.tasks.items():
                gap = result.model_gap
                compared = [torch.nan] * 3 if gap is None else [gap.imagined, gap.real, gap.gap]
                table[:, tasks.index(name)] = torch.tensor([result.mean, *compared], dtype=torch.float64)
        gathered = module.all_gather(table.to(accumulation_dtype(module.device)).to(module.device))
        assert isinstance(gathered, torch.Tensor)
        rows = gathered.reshape(-1, *table.shape).nanmean(0).tolist()
        return {name: dict(zip(tasks, row, strict=True)) for name, row in zip(_METRICS, rows, strict=True)}

    @staticmethod
    def _run(evaluator: Evaluator, module: PolicyLearning) -> EvaluationResult | None:
        """The result, or nothing where a signal asks to stop, which needs no update to be finished first."""
        was_training = module.training
        module.eval()
        try:
            with run_signals.at_once():
                return evaluator.run(module.policy())
        except RunStopped:
            return None
        except LitPWMError:
            # Processes of environments may end by the same signal.
            if run_signals.asked() is None:
                raise
            return None
        finally:
            module.train(was_training)

    @staticmethod
    def _as_metrics(table: dict[str, dict[str, float]]) -> dict[str, Any]:
        """Each metric of each task, and its mean over tasks; without those that could not be measured."""
        metrics: dict[str, Any] = {}
        for name, values in table.items():
            known = {task: value for task, value in values.items() if not math.isnan(value)}
            if known:
                metrics[name] = sum(known.values()) / len(known)
            metrics |= {f"{name}/{task}": value for task, value in known.items()}
        return metrics

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse at the start what is no policy."""
        self._policy_module(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the untrained policy and log it at update zero; or do what a stopped run has left to be done."""
        module = self._policy_module(pl_module)
        self._interval, self._is_owed = ValidationInterval(), False
        self._check_environments(trainer, module)
        if self._was_owed:
            self._evaluate_beside_validation(trainer, module)
            self._was_owed = False
        elif self.before_training and trainer.global_step == 0:
            metrics = self._as_metrics(self._evaluate(trainer, module))
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Evaluate the policy as it is now, if it is due and no validation does it."""
        due = self._interval.reached(trainer) and not validates(trainer)
        if self.every_n_updates is not None:
            due = trainer.global_step % self.every_n_updates == 0
        if due:
            try:
                self._evaluate_beside_validation(trainer, self._policy_module(pl_module))
            except RunStopped:
                self._is_owed = True  # Lightning ends the run when it has done with this update

    def _evaluate_beside_validation(self, trainer: Trainer, module: PolicyLearning) -> None:
        metrics = self._as_metrics(self._evaluate(trainer, module))
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step - 1)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
        for checkpoint in trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and checkpoint.monitor in metrics:
                checkpoint.on_validation_end(trainer, module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the policy as it is now, unless it has an interval of its own."""
        if not trainer.sanity_checking and (self.every_n_updates is None or trainer.state.fn != TrainerFn.FITTING):
            metrics = self._as_metrics(self._evaluate(trainer, self._policy_module(pl_module)))
            pl_module.log("eval/return", metrics.pop("eval/return"), prog_bar=True)
            pl_module.log_dict(metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """With an interval of its own, keep what monitors a metric of it from choosing by an older evaluation."""
        if self.every_n_updates is not None and trainer.state.fn == TrainerFn.FITTING:
            for checkpoint in trainer.checkpoint_callbacks:
                if isinstance(checkpoint, ModelCheckpoint) and str(checkpoint.monitor).startswith("eval/"):
                    checkpoint._last_global_step_saved = trainer.global_step

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the policy that is tested."""
        pl_module.log_dict(self._as_metrics(self._evaluate(trainer, self._policy_module(pl_module))))

    def state_dict(self) -> dict[str, Any]:
        """Whether an evaluation is still to be done."""
        return {"is_owed": self._is_owed} if self._is_owed else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do it when training goes on."""
        self._was_owed = bool(state_dict.get("is_owed"))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the environments."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the environments."""
        self._close()

    def _close(self) -> None:
        if self._evaluator is not None:
            self._evaluator.close()
            self._evaluator = None

    def _check_environments(self, trainer: Trainer, module: PolicyLearning) -> None:
        """Make the tasks known that only the data or the model's file knows, and refuse what cannot be evaluated."""
        stores = getattr(getattr(trainer, "datamodule", None), "paths", None) or ["no store"]
        file = f"this run's data ({', '.join(stores)}) or world model ({module.world_model_checkpoint})"
        for task in self.tasks or module.trained_tasks:
            if (reason := why_none(task, module.world_model, file)) is not None:
                raise LitPWMError(
                    f"EnvironmentEvaluation is to act in the environment of the task {task!r}, but {reason} Or train "
                    f"without evaluation (--config configs/policy_learning_offline.yaml in place of "
                    f"configs/policy_learning.yaml), or name other tasks in the callback's option tasks."
                )

    @staticmethod
    def _policy_module(module: LightningModule) -> PolicyLearning:
        if not isinstance(module, PolicyLearning):
            raise LitPWMError(
                f"EnvironmentEvaluation evaluates policies, but the Trainer fits a {type(module).__name__}. Remove the "
                f"callback from trainer.callbacks, or train a PolicyLearning."
            )
        return module
