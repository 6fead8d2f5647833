"""The figures of a record that a report shows beside its returns: compute, open-loop errors, diagnostics."""

from __future__ import annotations

from lit_pwm.experiments.record_types import SweepRecord

COMPUTE_NAMES = (
    "dynamics parameters",
    "actor parameters",
    "world model: FLOPs",
    "world model: NFE",
    "world model: seconds",
    "policy: FLOPs",
    "policy: NFE",
    "policy: seconds",
)
"""Sizes of the swapped parts, and what one update of either training costs."""
PER_UPDATE = {"FLOPs": "flops_per_update", "NFE": "nfe_per_update", "seconds": "seconds_per_update"}
_SWAPPED = {"world_model": "dynamics", "policy": "actor"}

OPEN_LOOP_NAMES = tuple(
    f"{what} error, {k} {'step' if k == 1 else 'steps'}" for what in ("decoded", "reward", "latent") for k in (1, 4, 16)
)
"""Open-loop errors of the world model. Those of latents cannot be compared between encoders."""
BY_TASK = ("decoded error, 16 steps", "reward error, 16 steps")
"""Those that are also shown for each task."""
_ENDS = {
    "Brier score of ends": "val/continuation_brier",
    "Brier score of their base rate": "val/continuation_brier_base_rate",
}
WORLD_MODEL_NAMES = (*OPEN_LOOP_NAMES, *_ENDS)
"""All that is shown of world models; that of ends where episodes end by termination."""
_DIAGNOSTICS = ("diagnostics/", "eval/imagined", "eval/real", "eval/model_gap")


def figures_of(record: SweepRecord, task: str) -> dict[str, float]:
    """The figures of one record by name; those that were not recorded are left out.

    Open-loop errors are those of the task where they were logged for each task, else means over the model's tasks.
    Names with a slash are metrics as they were logged at the end of policy learning (see `is_diagnostic`).
    """
    found: dict[str, float | None] = {}
    for role, part in _SWAPPED.items():
        compute = record.get(role, {}).get("compute") or {}
        found[f"{part} parameters"] = compute.get("parameters", {}).get(part)
        for name, key in PER_UPDATE.items():
            found[f"{role.replace('_', ' ')}: {name}"] = compute.get(key)
    held_out = record.get("world_model", {}).get("final", {})
    for name in OPEN_LOOP_NAMES:
        what, steps = name.split(" error, ")
        metric = f"val/{what}_error_{steps.split()[0]}"
        found[name] = held_out.get(f"{metric}/{task}", held_out.get(metric))
    for name, metric in _ENDS.items():
        found[name] = held_out.get(f"{metric}/{task}", held_out.get(metric))
    learned = record.get("policy", {}).get("final", {})
    found |= {key: value for key, value in learned.items() if key.startswith(_DIAGNOSTICS)}
    return {name: float(value) for name, value in found.items() if value is not None}


def is_diagnostic(name: str) -> bool:
    """Whether a figure is a metric logged for diagnosis."""
    return name.startswith(_DIAGNOSTICS)
