"""What compute.json holds: what a run cost."""

from __future__ import annotations

from typing import TypedDict

from lit_pwm.models.parity import ParityRecord


class ComponentRecord(TypedDict):
    """A component's description: its class and options."""

    class_path: str
    init_args: dict[str, object]


class ComputeRecord(TypedDict):
    """The content of compute.json, which docs/metrics.md explains."""

    format: int
    module: str
    components: dict[str, ComponentRecord]
    parameters: dict[str, int]
    parity: ParityRecord | None
    updates: int
    samples: int
    seconds: float
    flops: float
    flops_per_update: float | None
    nfe_per_update: float
    nfe_per_update_by_part: dict[str, float]
    seconds_per_update: float | None
    samples_per_second: float | None
    peak_memory_bytes: int
    device: str
    world_size: int
    threads: int
    precision: str
    torch: str
