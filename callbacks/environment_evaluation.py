"""Returns of a policy in the real environments while it is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation import EvaluationResult, Evaluator
from lit_pwm.model_gap import STEPS
from lit_pwm.models.accumulation import accumulation_dtype
from lit_pwm.options import Count, Seed, checked
from lit_pwm.policy_learning import PolicyLearning

_METRICS = ("eval/return", f"eval/imagined_return_{STEPS}", f"eval/real_return_{STEPS}", "eval/model_gap")


class EnvironmentEvaluation(Callback):
    """Evaluates the deterministic policy over seeded episodes, once before the first update and at each validation.

    Logs `eval/return/TASK`, the mean return of each task, and `eval/return`, the mean over tasks, which
    `ModelCheckpoint(monitor="eval/return", mode="max")` can choose by. From states visited in these episodes it also
    compares what the world model promises for the next 16 steps with what they brought (`lit_pwm.model_gap`), in
    environment units: `eval/imagined_return_16`, `eval/real_return_16` and their difference `eval/model_gap`, means
    over tasks, and for each task with `/TASK` behind the name. The seeds are the callback's own: report results
    on other seeds, or the best checkpoint's return is biased upwards. Under several ranks each evaluates its share of
    the tasks. The environments stay open during the run. Hooks: `on_train_start` (before the first update, unless the
    run was resumed), `on_validation_epoch_end`; nothing of it is in checkpoints.

    Args:
        episodes: episodes of each task; episode i uses environment seed `seed` + i.
        seed: first environment seed.
        tasks: tasks to evaluate; those the policy is trained for if not given.
        before_training: evaluate before the first update, which also shows early that evaluation works.
    """

    @checked
    def __init__(
        self,
        episodes: Count = 10,
        seed: Seed = 10_000,
        tasks: Sequence[str] | None = None,
        before_training: bool = True,
    ) -> None:
        self.episodes, self.seed, self.before_training = episodes, seed, before_training
        self.tasks = None if tasks is None else tuple(tasks)
        self.latest: EvaluationResult | None = None
        self._evaluator: Evaluator | None = None

    def _evaluate(self, trainer: Trainer, module: PolicyLearning) -> dict[str, dict[str, float]]:
        """Metric → task → value, on every rank."""
        tasks = self.tasks or module.trained_tasks
        share = tasks[trainer.global_rank :: trainer.world_size]
        table = torch.full((len(_METRICS), len(tasks)), torch.nan, dtype=torch.float64)
        if share:
            if self._evaluator is None:
                self._evaluator = Evaluator(share, self.episodes, self.seed)
            was_training = module.training
            module.eval()
            self.latest = self._evaluator.run(module.policy())
            module.train(was_training)
            for name, result in self.latest.tasks.items():
                gap = result.model_gap
                compared = [torch.nan] * 3 if gap is None else [gap.imagined, gap.real, gap.gap]
                table[:, tasks.index(name)] = torch.tensor([result.mean, *compared], dtype=torch.float64)
        gathered = module.all_gather(table.to(accumulation_dtype(module.device)).to(module.device))
        assert isinstance(gathered, torch.Tensor)
        rows = gathered.reshape(-1, *table.shape).nanmean(0).tolist()
        return {name: dict(zip(tasks, row, strict=True)) for name, row in zip(_METRICS, rows, strict=True)}

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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the untrained policy and log it at update zero."""
        if self.before_training and trainer.global_step == 0:
            metrics = self._as_metrics(self._evaluate(trainer, self._policy_module(pl_module)))
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=0)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the policy as it is now."""
        if not trainer.sanity_checking:
            metrics = self._as_metrics(self._evaluate(trainer, self._policy_module(pl_module)))
            pl_module.log("eval/return", metrics.pop("eval/return"), prog_bar=True)
            pl_module.log_dict(metrics)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the policy that is tested."""
        pl_module.log_dict(self._as_metrics(self._evaluate(trainer, self._policy_module(pl_module))))

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

    @staticmethod
    def _policy_module(module: LightningModule) -> PolicyLearning:
        if not isinstance(module, PolicyLearning):
            raise LitPWMError(
                f"EnvironmentEvaluation evaluates policies, but the Trainer fits a {type(module).__name__}. Remove the "
                f"callback from trainer.callbacks, or train a PolicyLearning."
            )
        return module
