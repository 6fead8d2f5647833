"""The arms of the study of terminations: policies that heed the continuation head, and ones that ignore it."""

from __future__ import annotations

from policy_study import Arm

from lit_pwm.experiments.recipes import DEMO_POLICY, WORLD_MODEL
from lit_pwm.tasks.registry import TASK_SETS

TASKS = TASK_SETS["failing"]
MODELS = {"model": WORLD_MODEL}
MODEL_OPTIONS = {"data.horizon": 8}
_LEDGER = {"trainer.callbacks+": [{"class_path": "callbacks.ComputeLedger"}]}
_IGNORING = {"model.discounting": {"class_path": "lit_pwm.discounting.ConstantDiscount"}}
HEAD, IGNORING = "head", "ignoring"
ARMS = {HEAD: Arm(DEMO_POLICY, _LEDGER), IGNORING: Arm(DEMO_POLICY, _LEDGER | _IGNORING)}
