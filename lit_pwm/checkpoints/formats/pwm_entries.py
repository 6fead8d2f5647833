"""What PWM's and Flow-MBPO-PWM's files hold beside networks: plain values, running statistics, optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lit_pwm.checkpoints.formats.base import notice
from lit_pwm.checkpoints.formats.inert_objects import plain_numbers, plain_statistics
from lit_pwm.errors import LitPWMError

FAMILY = ("pwm", "flow-mbpo")
"""Formats whose files share these entries."""
_NETWORKS = ("world_model", "actor", "critic")
_DEEPEST = 50
_told: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Entries:
    """The entries of a file.

    Attributes:
        order: names of all entries.
        values: plain values by name.
        statistics: running statistics as plain values, None where not set.
        optimizers: groups of the parameters of each optimizer: rates and other settings.
        moments: optimizers that held more, which is not carried.
    """

    order: list[str]
    values: dict[str, Any]
    statistics: dict[str, dict[str, Any] | None]
    optimizers: dict[str, list[Any]]
    moments: tuple[str, ...] = ()

    @classmethod
    def read(cls, raw: Mapping[Any, Any], path: str | Path) -> Self:
        """Those of a file.

        Raises:
            LitPWMError: one is no plain value, no tensor and not what PWM has under its name.
        """
        values, statistics, optimizers, moments = {}, {}, {}, []
        for name, value in raw.items():
            if name in _NETWORKS:
                continue
            if isinstance(name, str) and name.endswith("_rms"):
                statistics[name] = plain_statistics(value, name, path)
            elif isinstance(name, str) and name.endswith("_opt") and _is_optimizer(value):
                optimizers[name] = list(value["param_groups"])
                state = value.get("state")
                moments += [name] if state is not None and not (isinstance(state, Mapping) and not state) else []
            else:
                values[name] = plain_numbers(value)
            found = statistics.get(name) if name in statistics else optimizers.get(name, values.get(name))
            if not isinstance(name, str) or not _is_plain(found):
                raise LitPWMError(
                    f"The checkpoint {str(path)!r} holds {name!r:.80}, which is no plain value ("
                    f"{type(value).__name__}). The file is damaged, or not of PWM."
                )
        return cls([str(name) for name in raw], values, statistics, optimizers, tuple(moments))

    def plain(self) -> dict[str, Any]:
        """As a native checkpoint keeps them."""
        return {
            "order": self.order,
            "values": self.values,
            "statistics": self.statistics,
            "optimizers": self.optimizers,
        }

    @classmethod
    def of(cls, plain: Any) -> Self | None:
        """The way back of `plain`; None where there is nothing."""
        if not isinstance(plain, Mapping) or "order" not in plain:
            return None
        return cls(plain["order"], plain["values"], plain["statistics"], plain["optimizers"])

    def lost_statistics(self) -> list[str]:
        """The statistics that were set."""
        return [name for name, value in self.statistics.items() if value is not None]

    def say(self, path: str | Path) -> None:
        """Say once for each file what of it is not used."""
        if self.moments:
            say_once(
                path,
                "moments",
                f"The checkpoint {path} holds states of optimizers ({', '.join(self.moments)}), which are not carried: "
                f"a run that goes on from its weights starts without moments.",
            )
        if self.statistics.get("obs_rms") is not None:
            say_once(
                path,
                "observations",
                f"The checkpoint {path} holds obs_rms: its networks were trained on observations standardised by it "
                f"and clamped to ±5. lit_pwm keeps its numbers, and shows the networks observations as they are given.",
            )


def fresh_optimizers(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Groups of Adam's for these networks, as PWM makes them, with PWM's settings."""
    groups: dict[str, list[Any]] = {}
    for name, rate in (("actor", 5e-4), ("critic", 5e-4)):
        if name in parts:
            groups[f"{name}_opt"] = _groups([len(parts[name])], rate, (0.7, 0.95))
    keys = list(parts["world_model"])
    counts = [
        sum(key.startswith(prefixes) for key in keys)
        for prefixes in ("_encoder.", ("_dynamics.", "_velocity."), "_reward.")
    ]
    return groups | {"world_model_opt": _groups([*counts, 0], 3e-4, (0.9, 0.999))}


def _groups(counts: list[int], rate: float, betas: tuple[float, float]) -> list[Any]:
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(1)) for _ in range(count)]} for count in counts]
    return torch.optim.Adam(parameters, rate, betas).state_dict()["param_groups"]


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("param_groups"), (list, tuple))


def _is_plain(value: Any, depth: int = 0) -> bool:
    if value is None or isinstance(value, (bool, int, float, str, Tensor)):
        return True
    if depth > _DEEPEST:
        return False
    if isinstance(value, Mapping):
        return all(isinstance(key, (str, int)) and _is_plain(entry, depth + 1) for key, entry in value.items())
    return isinstance(value, (list, tuple)) and all(_is_plain(entry, depth + 1) for entry in value)


def say_once(path: str | Path, what: str, text: str) -> None:
    """A notice that is given once for each file, however often it is read."""
    if (str(path), what) not in _told:
        _told.add((str(path), what))
        notice(text)
