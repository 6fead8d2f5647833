"""Tasks handed to another process, which has run none of the code that made them known in this one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lit_pwm.tasks.allowed_imports import allow, is_allowed
from lit_pwm.tasks.spec import GYM_MAKE, TaskSpec

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec


@dataclass(frozen=True)
class Handover:
    """What a process needs in order to build the environments of some tasks as the process that sent it does.

    Attributes:
        modules: that may be imported for them.
        registered: entries of gymnasium's registry that they are.
    """

    modules: tuple[str, ...]
    registered: tuple[EnvSpec, ...]

    def take(self) -> None:
        """Let this process do what the one that sent it may."""
        for module in self.modules:
            allow(module)
        if self.registered:
            import gymnasium

            for entry in self.registered:
                gymnasium.registry.setdefault(entry.id, entry)


def hand_over(specs: Iterable[TaskSpec]) -> Handover:
    """What to send along with specs.

    Raises:
        LitPWMError: an environment of gymnasium is not registered here.
    """
    modules, entries = [], []
    for spec in specs:
        if spec.make == GYM_MAKE:
            from lit_pwm.tasks.gymnasium_registry import registered

            entries.append(registered(spec.kwargs["id"], f"The task {spec.name!r}"))
        modules.append(spec.module)
    return Handover(tuple(module for module in modules if is_allowed(module)), tuple(entries))
