"""Functions of tensors, with their gradients, as CUDA graphs: one launch for hundreds of small kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import cast

import torch
from torch import Tensor, nn

Function = Callable[..., tuple[Tensor, ...]]
"""Tensors → a tuple of tensors."""


def graphed(function: Function, modules: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Function:
    """A function whose forward and backward passes are recorded here and replayed by every call.

    Replays run the very kernels of the recording on new inputs and the parameters' present values, so numbers are those
    of the function itself; what is saved is the time in which Python and the driver launch kernels one by one, which is
    most of the time of small networks on a GPU. Calls with inputs of other shapes or types go to the function as it is.

    There are no gradients of gradients; of a call's gradients only those after the last call are right; Python code
    within the function (hooks, counters) runs only while recording; and parameters must stay where they are in memory,
    as optimizers and `load_state_dict` leave them.

    Args:
        function: of CUDA tensors without gradient; it must not wait for the GPU (`.item()`).
        modules: what the function evaluates. Their parameters get gradients; recording leaves their buffers and torch's
            random generators as they are.
        inputs: an example of the tensors; their values do not matter.

    Returns:
        The function; its results that depend on parameters carry gradient to them.
    """
    # The recording keeps parameters' gradient accumulators of its own stream, for which backward waits: microseconds.
    warnings.filterwarnings("ignore", message=".*AccumulateGrad node's stream does not match.*", category=UserWarning)
    buffers = [buffer for module in modules for buffer in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    own = tuple(tensor.detach().clone() for tensor in inputs)  # the recording goes on writing to them
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[own[0].device]))
        if torch.is_autocast_enabled("cuda"):  # its cache of weights must not outlive the recording: see `_Recorded`
            dtype = torch.get_autocast_dtype("cuda")
            stack.enter_context(torch.autocast("cuda", dtype, cache_enabled=False))
        module = torch.cuda.make_graphed_callables(_Recorded(function, modules), own, allow_unused_input=True)
    replay = cast("Function", module)
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value)
    signature = _signature(own)

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        if _signature(tensors) != signature:
            return function(*tensors)
        return tuple(result.clone() for result in replay(*tensors))  # the next replay overwrites them

    return call


def _signature(tensors: Sequence[Tensor]) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in tensors]


class _Recorded(nn.Module):
    """The function as torch wants it: a module that holds the parameters which are to get gradients."""

    def __init__(self, function: Function, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.function = function
        trained = {p: None for module in modules for p in module.parameters() if p.requires_grad and p.numel()}
        self.trained = nn.ParameterList(trained)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if not torch.is_autocast_enabled("cuda"):
            return self.function(*tensors)
        # Within the function each weight is cast once, and not once for every step of a rollout.
        with torch.autocast("cuda", torch.get_autocast_dtype("cuda"), cache_enabled=True):
            results = self.function(*tensors)
        torch.clear_autocast_cache()
        return results
