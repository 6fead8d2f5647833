"""Measures of gradients and Jacobians, as plain functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lit_pwm.flow import VelocityField


def expected_snr(gradients: Tensor, unbiased: bool = True) -> Tensor:
    """ESNR of independent gradient estimates: Σ_i E[g_i]² / Σ_i Var[g_i] (Parmas et al., 2023; used by PWM).

    With sample mean ḡ and sample covariance S (divisor M − 1), ‖ḡ‖² / tr S overestimates it by 1/M, because the mean of
    pure noise has a length too; `unbiased` subtracts that, so that gradients without a signal give zero on average, and
    single values may be negative. (For Gaussian gradients with variance σ² in each of P entries the expectation is
    ‖μ‖²/(Pσ²) up to a factor 1 + 2/((M − 1)P − 2).)

    The mean of n of these estimates has n times the ESNR.

    Args:
        gradients: M ≥ 2 independent estimates of the same gradient [M, P].
        unbiased: subtract what noise alone would give.

    Returns:
        A scalar.
    """
    mean = gradients.mean(0)
    noise = (gradients - mean).square().sum() / (len(gradients) - 1)
    ratio = mean.square().sum() / noise
    return ratio - 1 / len(gradients) if unbiased else ratio


def jacobian_square_norms(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    probes: int = 1,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Squared Frobenius norms of a function's Jacobians, sample by sample, estimated by random products.

    For v ~ N(0, I), E ‖vᵀJ‖² = ‖J‖²_F (Hutchinson, 1989): one backward pass for each probe, whatever the widths.

    Args:
        function: takes `inputs` and returns [B, *]; each sample's result depends on that sample alone.
        inputs: tensors [B, *].
        probes: random vectors v to average.
        generator: draws them.

    Returns:
        For each input the estimates of ‖∂ function / ∂ input‖²_F [B].
    """
    with torch.inference_mode(False), torch.enable_grad():
        # Copies, because tensors made in inference mode cannot be differentiated.
        leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        output = function(*leaves)
        totals = [output.new_zeros(len(leaf)) for leaf in leaves]
        for probe in range(probes):
            v = torch.randn(output.shape, generator=generator, device=output.device, dtype=output.dtype)
            products = torch.autograd.grad(output, leaves, v, retain_graph=probe + 1 < probes)
            for total, product in zip(totals, products, strict=True):
                total += product.detach().flatten(1).square().sum(1)
    return [total / probes for total in totals]


@contextmanager
def watching_substeps(module: nn.Module) -> Generator[dict[float, list[Tensor]], None, None]:
    """Collects the gradients that reach the states of every velocity field in `module` while the block runs.

    Yields:
        τ, to two decimals → the gradient [..., D] of each state at which a field was evaluated there, once a backward
        has run. States without gradient, and times given for each sample, are left out.
    """
    found: dict[float, list[Tensor]] = {}

    def watch(field: nn.Module, arguments: tuple[object, ...]) -> None:
        tau, x = arguments[:2]
        if isinstance(x, Tensor) and x.requires_grad and not (isinstance(tau, Tensor) and tau.ndim):
            gradients = found.setdefault(round(float(torch.as_tensor(tau).detach()), 2), [])
            x.register_hook(lambda gradient: gradients.append(gradient.detach()))

    handles = [part.register_forward_pre_hook(watch) for part in module.modules() if isinstance(part, VelocityField)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
