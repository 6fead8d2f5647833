"""An update is made whole or not at all, by operations on its device: one flag decides over all that it moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_pwm.errors import LitPWMError, NonFiniteLossError
from lit_pwm.optim import interpolated
from lit_pwm.updates.global_streams import GlobalStreams
from lit_pwm.updates.optimized_part import OptimizedPart


class AtomicUpdate:
    """The machinery by which an update of a module is made or not, without looking at what it computes.

    An update enters it as a `with` block, in which losses and gradients are computed and told to `watch`, buffers move,
    and the optimizers named in `early` step. At the block's end all that was watched becomes one flag, `finite`, alike
    on all ranks; where it is down, `torch.where` puts the module's buffers and the early optimizers' parameters and
    states back to the copies that were made at the block's start. What moves after the block (`step`, `follow`) moves
    by the flag: an optimizer that steps last needs no copy of its states.

    Nothing here reads a number on the host, and every tensor keeps its place. `training_step` calls `require` after
    the update, which reads the flag once and raises. Where anything else is raised within the block, the host puts all
    back. On several ranks the flag is also down where an update drew from a global generator.

    Args:
        module: whose updates they are.
        early: the optimizers that step within the block.

    Attributes:
        streams: the global generators; `training_step` enters `streams.seeded` around an update.
    """

    finite: Tensor
    """Scalar, bool: whether the last update was made."""

    def __init__(self, module: LightningModule, early: Sequence[OptimizedPart] = ()) -> None:
        self._module, self._early = module, tuple(early)
        # By owner and name, because a component may put another tensor in a buffer's place, or one where there is none.
        self._buffers = [(part._buffers, name) for part in module.modules() for name in part._buffers]
        self._held: list[Tensor | None] = []
        self._moved: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._watched: list[tuple[str, Tensor, Tensor]] = []
        self._replaced: list[tuple[dict[str, Tensor | None], str, Tensor | None]] = []
        self.streams = GlobalStreams()

    def watch(self, name: str, loss: Tensor, norm: Tensor) -> None:
        """A loss and the norm of its gradient over all ranks, scalars; `name` says which loss, for the error."""
        self._watched.append((name, loss.detach(), norm.detach()))

    # -- copies -----------------------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        self._watched.clear()
        self._replaced.clear()
        self._held = [owner[name] for owner, name in self._buffers]
        moved = list(self._tensors())
        if [_place(tensor) for tensor in moved] != [_place(copy) for copy in self._copies]:
            self._copies = [torch.empty_like(tensor, requires_grad=False) for tensor in moved]
        self._moved = moved
        with torch.no_grad():
            _copy(self._copies, moved)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with torch.no_grad():
            if kind is not None:
                self._put_back()
                return
            self._settle()
            self._return_buffers()
            for tensor, copy in zip(self._moved, self._copies, strict=True):
                _keep_if(self.finite, tensor, copy)

    def _tensors(self) -> Iterator[Tensor]:
        """What may move within the block."""
        yield from (buffer for buffer in self._held if buffer is not None)
        for optimizer in self._early:  # asked anew, because parts of a model open while it is trained
            yield from optimizer.parameters
            yield from optimizer.state_tensors()

    def _put_back(self) -> None:
        """Undo all at once, on the host."""
        for (owner, name), before in zip(self._buffers, self._held, strict=True):
            owner[name] = before
        _copy(self._moved, self._copies)

    def _return_buffers(self) -> None:
        """Bring what a component put in a buffer's place to that place; of another size it stays, if it may."""
        for (owner, name), place in zip(self._buffers, self._held, strict=True):
            now = owner[name]
            if now is place:
                continue
            if now is not None and place is not None and _place(now) == _place(place):
                place.copy_(now)
                owner[name] = place
            else:
                self._replaced.append((owner, name, place))

    # -- the flag ---------------------------------------------------------------------------------------------------
    def _settle(self) -> None:
        """Make one flag of all that was watched, on all ranks together."""
        values = torch.stack([value for _, *pair in self._watched for value in pair])
        self._here = self._everywhere = values.isfinite()
        if self._ranks() > 1:
            undrawn = self._here.new_tensor([not self.streams.drew()])
            everywhere = torch.cat([self._here, undrawn]).to(torch.uint8)
            torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
            self._everywhere = everywhere.bool()
        self.finite = self._everywhere.all()

    def _ranks(self) -> int:
        return 1 if self._module._trainer is None else self._module.trainer.world_size

    def step(self, optimizer: OptimizedPart) -> None:
        """Let an optimizer step by the gradients that are there, if the update is made; after the block."""
        with torch.no_grad():
            constrained = [p for part in optimizer.constrained for p in part.parameters()]
            if optimizer.can_be_gated:
                before = [parameter.clone() for parameter in constrained]
                optimizer.step(found_inf=(~self.finite).float())
                for parameter, copy in zip(constrained, before, strict=True):
                    _keep_if(self.finite, parameter, copy)
                return
            moved = [*optimizer.parameters, *optimizer.state_tensors()]
            copies = [tensor.clone() for tensor in moved]
            optimizer.step()
            for tensor, copy in zip(moved, copies, strict=True):
                _keep_if(self.finite, tensor, copy)

    @torch.no_grad()
    def follow(self, slow: nn.Module, fast: nn.Module, rate: float) -> None:
        """Soft update of a target network or an EMA (`lit_pwm.optim.follow_`), if the update is made."""
        places = [parameter for parameter in slow.parameters() if parameter.numel()]
        for place, moved in zip(places, interpolated(slow, fast, rate), strict=True):
            place.copy_(torch.where(self.finite, moved, place))

    def require(self) -> None:
        """Read the flag: the one time that the host waits for an update.

        Raises:
            NonFiniteLossError: the update was not made, because a loss or gradient was not finite on some rank.
            LitPWMError: it was not made, because something drew from a global generator, and there are several ranks.
        """
        if bool(self.finite):
            return
        for owner, name, before in self._replaced:
            owner[name] = before
        everywhere, here = self._everywhere.tolist(), self._here.tolist()
        if all(everywhere[: len(here)]):
            raise LitPWMError(
                f"On {self._ranks()} ranks the update of {type(self._module).__name__} drew from a global random "
                f"generator: what is learned would depend on the number of ranks. {self.streams.drawers()} drew. Let "
                f"the component declare its noise (noise_shape), of which each rank is then given its share; train it "
                f"on one device (trainer.devices 1); or leave it out. The update was undone."
            )
        index = everywhere.index(False)
        name, loss, norm = self._watched[index // 2]
        elsewhere = " here, and not finite on another rank," if here[index] else ""
        raise NonFiniteLossError(
            f"The {name} loss is {loss.item():.4g} and its gradient norm {norm.item():.4g}{elsewhere} at update "
            f"{self._module.global_step}; the update was undone. Look at the batch that was saved; lower the learning "
            f"rate, or run in float32 if this run does not."
        )


def _keep_if(finite: Tensor, tensor: Tensor, before: Tensor) -> None:
    torch.where(finite, tensor, before, out=tensor)


def _copy(places: list[Tensor], values: list[Tensor]) -> None:
    if places:
        torch._foreach_copy_(places, values)


def _place(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device
