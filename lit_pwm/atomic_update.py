"""An update is made whole or not at all: what it moves is copied before it, and put back if it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pwm.errors import LitPWMError, NonFiniteLossError
from lit_pwm.optim import parameters_of
from lit_pwm.random_states import RandomStates


class AtomicUpdate:
    """The part of an update that may be refused, as a `with` block that `training_step` enters once.

    Within it losses and gradients are computed and told to `watch`, buffers move, and `optimizers` step. At its end all
    that was watched is looked at once, on all ranks together: if any of it is not finite, the module's buffers, the
    optimizers' parameters and states and the global random generators are as before the block, and every rank raises.
    The same where anything else is raised within. What an update moves besides (the optimizer that counts updates, slow
    copies, schedules) moves after the block, where nothing is left to be refused.

    Args:
        module: whose updates they are.
        optimizers: those that step within the block.
    """

    def __init__(self, module: LightningModule, optimizers: Sequence[torch.optim.Optimizer] = ()) -> None:
        self._module, self._optimizers = module, tuple(optimizers)
        self._parameters = [parameter for optimizer in self._optimizers for parameter in parameters_of(optimizer)]
        # By owner and name, because a component may put another tensor in a buffer's place, or one where there is none.
        self._buffers = [(part._buffers, name) for part in module.modules() for name in part._buffers]
        self._held: list[Tensor | None] = []
        self._moved: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._random: RandomStates | None = None
        self._watched: list[tuple[str, Tensor, Tensor]] = []

    def watch(self, name: str, loss: Tensor, norm: Tensor) -> None:
        """A loss and the norm of its gradient over all ranks, scalars; `name` says which loss, for the error."""
        self._watched.append((name, loss.detach(), norm.detach()))

    def __enter__(self) -> Self:
        self._watched.clear()
        self._random = RandomStates.now(self._module.device)
        self._held = [owner[name] for owner, name in self._buffers]
        moved = list(self._tensors())
        if [_place(tensor) for tensor in moved] != [_place(copy) for copy in self._copies]:
            self._copies = [torch.empty_like(tensor, requires_grad=False) for tensor in moved]
        self._moved = moved
        if moved:
            with torch.no_grad():
                torch._foreach_copy_(self._copies, moved)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._restore()
            return
        try:
            self._require()
        except LitPWMError:
            self._restore()
            raise

    def _tensors(self) -> Iterator[Tensor]:
        """What may move within the block."""
        yield from (buffer for buffer in self._held if buffer is not None)
        yield from self._parameters
        for optimizer in self._optimizers:
            for state in optimizer.state.values():
                yield from _tensors_of(state)

    @torch.no_grad()
    def _restore(self) -> None:
        kept = {id(tensor) for tensor in self._moved}
        for optimizer in self._optimizers:  # states that the first step made
            made = [p for p, state in optimizer.state.items() if not kept.issuperset(map(id, _tensors_of(state)))]
            for parameter in made:
                del optimizer.state[parameter]
        for (owner, name), before in zip(self._buffers, self._held, strict=True):
            owner[name] = before
        if self._moved:
            torch._foreach_copy_(self._moved, self._copies)
        if self._random is not None:
            self._random.restore()

    def _require(self) -> None:
        """Look at what was watched, on all ranks together.

        Raises:
            NonFiniteLossError: any of it is not finite.
            LitPWMError: something was drawn from a global generator, and there are several ranks.
        """
        values = torch.stack([value for _, *pair in self._watched for value in pair])
        finite = values.isfinite()
        if self._module.trainer.world_size == 1:
            if not finite.all():
                self._refuse(finite.tolist(), finite.tolist())
            return
        drew = self._random != RandomStates.now(self._module.device)
        found = torch.cat([finite, finite.new_tensor([not drew])]).to(torch.uint8)
        on_all = found.clone()
        torch.distributed.all_reduce(on_all, torch.distributed.ReduceOp.MIN)
        *everywhere, undrawn = on_all.bool().tolist()
        if not all(everywhere):
            self._refuse(everywhere, finite.tolist())
        if not undrawn:
            raise LitPWMError(
                f"On {self._module.trainer.world_size} ranks the update of {type(self._module).__name__} drew from a "
                f"global random generator, and the draws of ranks are not yet parts of one whole draw: what is learned "
                f"would depend on the number of ranks. A dynamics' noise source (source: noise), the times of flow "
                f"matching (flow_weight above 0) and the directions of sigreg_coef above 0 draw, and so may components "
                f"of your own (dropout too). Train it on one device (trainer.devices 1), or without them. Nothing was "
                f"stepped."
            )

    def _refuse(self, everywhere: list[bool], here: list[bool]) -> None:
        index = everywhere.index(False)
        name, loss, norm = self._watched[index // 2]
        elsewhere = " here, and not finite on another rank," if here[index] else ""
        raise NonFiniteLossError(
            f"The {name} loss is {loss.item():.4g} and its gradient norm {norm.item():.4g}{elsewhere} at update "
            f"{self._module.global_step}; the update was undone. Look at the batch that was saved; lower the learning "
            f"rate, or run in float32 if this run does not."
        )


def _place(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


def _tensors_of(state: dict[str, object]) -> Iterator[Tensor]:
    yield from (value for value in state.values() if isinstance(value, Tensor))
