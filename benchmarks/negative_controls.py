"""Three forms that are known to be broken, trained on real data, with the mathematics beside the measurement.

    python benchmarks/negative_controls.py        # about two CPU-minutes

1. A flow whose velocity head ends in SimNorm, and whose steps are not brought back to the simplex.
2. A flow with a free velocity that is not brought back to the simplex.
3. A two-hot reward head trained by the squared error of one number against all bins.

They exist here only: no option of the package builds them.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from pages import FLOW_PAGE, markdown, put
from torch import Tensor

import datamodules
from lit_pwm.batch import Batch
from lit_pwm.experiments.training import be_quiet
from lit_pwm.flow import FixedStep, integrate
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import Dynamics, FlowDynamics, TwoHotReward, WorldModel
from lit_pwm.models.conditioned_field import ConditionedField
from lit_pwm.models.layers import simnorm

TASK, HORIZON, GAMMA = "cartpole-swingup", 16, 0.99
RESULT = Path(__file__).parent / "results" / "negative_controls.json"


class UnprojectedFlow(Dynamics):
    """dz/dτ = v(z, task, a, τ) from the latent itself, by Heun with K = 2, with no read-out: what leaves, stays away.

    With `simnorm_head`, v is a group softmax, as in a configuration that gave the flow its MLP's output layer.
    """

    def __init__(
        self, latent_dim: int, action_dim: int, task_dim: int, hidden_dim: int = 128, simnorm_head: bool = False
    ) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        self.hidden_dim, self.simnorm_head = hidden_dim, simnorm_head
        self.field = ConditionedField(latent_dim, latent_dim + task_dim + action_dim, hidden_dim, 2, time_dim=8)

    @property
    def init_args(self) -> dict[str, object]:
        """The options this was built with."""
        return {"hidden_dim": self.hidden_dim, "simnorm_head": self.simnorm_head}

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """z, action, embedding → where the flow ends."""
        condition = self.field.condition(z, embedding, action)

        def velocity(tau: float, x: Tensor) -> Tensor:
            value = self.field(tau, x, condition)
            return simnorm(value) if self.simnorm_head else value

        return integrate(velocity, z, FixedStep("heun", 2))


def model_of(dynamics: object, data: datamodules.MultitaskDataModule) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(data.tasks, dynamics, 64, encoder_dim=64, encoder_layers=1, reward_dim=64, task_dim=8)


def original_loss(model: WorldModel, batch: Batch) -> Tensor:
    """(1/H) Σ_t γ^t mean (ẑ_{t+1} − z_{t+1})²: the consistency loss whose value the inspiring project reports."""
    obs, task = batch["obs"], batch["task"]
    with torch.no_grad():
        targets = model.encode(obs[1:], task)
    z, losses = model.encode(obs[0], task), []
    for t, action in enumerate(batch["action"]):
        z = model.next(z, action, task)
        losses.append(GAMMA**t * (z - targets[t]).square().mean())
    return torch.stack(losses).sum() / HORIZON


def train(model: WorldModel, batches: list[Batch], loss: Any, parameters: Any = None) -> list[float]:
    optimizer = torch.optim.Adam(list(parameters or model.parameters()), lr=1e-3)
    values = []
    for batch in batches:
        value = loss(model, batch)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 20.0)
        optimizer.step()
        values.append(value.item())
    return values


@torch.no_grad()
def group_sums(model: WorldModel, batch: Batch) -> Tensor:
    """Mean sum of a group after 0 to H open-loop steps."""
    latents, _ = model.rollout(model.encode(batch["obs"][0], batch["task"]), batch["action"], batch["task"])
    return latents.unflatten(-1, (-1, 8)).sum(-1).mean((1, 2))


@torch.no_grad()
def relative_error(model: WorldModel, batch: Batch) -> float:
    """Latent error after H open-loop steps over the latents' variance."""
    truth = model.encode(batch["obs"], batch["task"])
    latents, _ = model.rollout(truth[0], batch["action"], batch["task"])
    return ((latents[-1] - truth[-1]).square().mean() / truth[-1].var(0).mean()).item()


@torch.no_grad()
def latent_variance(model: WorldModel, batch: Batch) -> float:
    return model.encode(batch["obs"], batch["task"])[-1].var(0).mean().item()


def broadcast_loss(model: WorldModel, batch: Batch) -> Tensor:
    """mean over bins (logits − r)²: every bin is asked for the same number."""
    logits = model.reward_logits(
        model.encode(batch["obs"][:-1], batch["task"]).detach(), batch["action"], batch["task"]
    )
    return (logits - batch["reward"][..., None]).square().mean()


def cross_entropy(model: WorldModel, batch: Batch) -> Tensor:
    logits = model.reward_logits(
        model.encode(batch["obs"][:-1], batch["task"]).detach(), batch["action"], batch["task"]
    )
    return cast("TwoHotReward", model.reward_head).two_hot.cross_entropy(logits, batch["reward"]).mean()


def reward_figures(model: WorldModel, batch: Batch) -> dict[str, float]:
    """Spread of the logits, decoded rewards, their correlation with the truth and the slope that an actor would see."""
    action = batch["action"].clone().requires_grad_()
    z = model.encode(batch["obs"][:-1], batch["task"]).detach()
    logits = model.reward_logits(z, action, batch["task"])
    decoded = cast("TwoHotReward", model.reward_head).two_hot.decode(logits)
    slope = torch.autograd.grad(decoded.sum(), action)[0]
    decoded = decoded.detach()
    both = torch.stack([decoded.flatten(), batch["reward"].flatten()])
    correlation = torch.corrcoef(both)[0, 1].item() if decoded.std() > 1e-6 else float("nan")
    return {
        "logit_spread": logits.detach().std(-1).mean().item(),
        "largest_decoded": decoded.abs().max().item(),
        "correlation": correlation,
        "action_slope": slope.abs().mean().item(),
    }


def run(updates: int, folder: Path) -> dict[str, object]:
    be_quiet()
    store = folder / "negative_controls.h5"
    if not store.exists():
        datamodules.collect((TASK,), 30, store, behaviour="noise", workers=2, seed=0, progress=False)
    data = datamodules.MultitaskDataModule(
        store=str(store), horizon=HORIZON, batch_size=64, batches_per_epoch=updates, seed=0
    )
    data.setup("fit")
    batches = list(data.train_dataloader())
    held_out = cast("Batch", next(iter(data.val_dataloader())))

    floor = sum(GAMMA**t * ((1 + t) / 8) ** 2 for t in range(HORIZON)) / HORIZON
    broken = model_of(partial(UnprojectedFlow, simnorm_head=True), data)
    first = train(broken, batches, original_loss)
    free = model_of(UnprojectedFlow, data)
    second = train(free, batches, original_loss)
    ours = model_of(partial(FlowDynamics, hidden_dim=128), data)
    third = train(ours, batches, original_loss)

    scratch = model_of(partial(FlowDynamics, hidden_dim=128), data)
    before = broadcast_loss(scratch, held_out).item()
    train(scratch, batches, broadcast_loss, scratch.reward_head.parameters())
    pretrained = model_of(partial(FlowDynamics, hidden_dim=128), data)
    train(pretrained, batches, lambda m, b: WorldModelObjective()(m, b)["total"])
    start = reward_figures(pretrained, held_out)
    state = {key: value.clone() for key, value in pretrained.state_dict().items()}
    train(pretrained, batches[:100], broadcast_loss, pretrained.reward_head.parameters())
    tuned = reward_figures(pretrained, held_out)
    pretrained.load_state_dict(state)
    train(pretrained, batches[:100], cross_entropy, pretrained.reward_head.parameters())
    return {
        "updates": updates,
        "floor": floor,
        "simnorm_head_loss": sum(first[-20:]) / 20,
        "simnorm_head_sums": group_sums(broken, held_out).tolist(),
        "simnorm_head_error": relative_error(broken, held_out),
        "free_velocity_loss": sum(second[-20:]) / 20,
        "free_velocity_least": least_entry(free, held_out),
        "free_velocity_error": relative_error(free, held_out),
        "free_velocity_variance": latent_variance(free, held_out),
        "flow_dynamics_variance": latent_variance(ours, held_out),
        "flow_dynamics_loss": sum(third[-20:]) / 20,
        "flow_dynamics_error": relative_error(ours, held_out),
        "reward_loss_before": before,
        "reward_loss_after": broadcast_loss(scratch, held_out).item(),
        "reward_from_scratch": reward_figures(scratch, held_out),
        "reward_pretrained": start,
        "reward_tuned_by_squared_error": tuned,
        "reward_tuned_by_cross_entropy": reward_figures(pretrained, held_out),
    }


@torch.no_grad()
def least_entry(model: WorldModel, batch: Batch) -> float:
    latents, _ = model.rollout(model.encode(batch["obs"][0], batch["task"]), batch["action"], batch["task"])
    return latents.min().item()


def text(r: dict[str, Any]) -> str:
    sums = r["simnorm_head_sums"]
    scratch, start = r["reward_from_scratch"], r["reward_pretrained"]
    tuned, entropy = r["reward_tuned_by_squared_error"], r["reward_tuned_by_cross_entropy"]
    rows = [
        (
            "Velocity head ends in SimNorm",
            "v ≥ 0 and each group of v sums to 1, so after k steps a group sums to 1 + k: 2 after one, 17 after 16",
            f"{sums[1]:.4f}, {sums[16]:.4f}",
        ),
        (
            "its loss",
            "groups of the target sum to 1, so the error per entry at step t is at least ((1 + t)/8)²: "
            f"(1/16) Σ .99^t ((1 + t)/8)² = {r['floor']:.5f}",
            f"{r['simnorm_head_loss']:.4f}",
        ),
        (
            "its error at 16 steps ÷ variance",
            f"the default flow on the same batches has {r['flow_dynamics_error']:.2f}",
            f"{r['simnorm_head_error']:,.0f}",
        ),
        (
            "A free velocity, but no read-out",
            "nothing keeps entries non-negative; a velocity added to the latent rewards an encoder whose latents move "
            "little",
            f"least entry {r['free_velocity_least']:.3f}; loss {r['free_velocity_loss']:.5f} against the default's "
            f"{r['flow_dynamics_loss']:.5f}, of latents with variance {r['free_velocity_variance']:.5f} against "
            f"{r['flow_dynamics_variance']:.5f}; error at 16 steps ÷ variance {r['free_velocity_error']:.2f}",
        ),
        (
            "Reward by squared error over bins, from scratch",
            "all rows of the last layer start at zero and get one gradient, so they stay equal: a uniform softmax, "
            "which decodes to 0",
            f"loss {r['reward_loss_before']:.4f} → {r['reward_loss_after']:.4f}; logit spread "
            f"{scratch['logit_spread']:.1e}, largest decoded reward {scratch['largest_decoded']:.1e}, slope in the "
            f"action {scratch['action_slope']:.1e}",
        ),
        (
            "100 updates of it on a trained head",
            "its optimum is equal logits again; on the way there the decoded reward means nothing",
            f"correlation with the truth {start['correlation']:+.2f} → {tuned['correlation']:+.2f}, largest decoded "
            f"{start['largest_decoded']:.2f} → {tuned['largest_decoded']:.2f} (by cross-entropy: correlation "
            f"{entropy['correlation']:+.2f})",
        ),
    ]
    note = (
        f"{r['updates']} updates of 64 slices of {TASK}. The inspiring project's log gives 1.3040 for the flow's loss."
    )
    return f"{markdown(('what', 'mathematics', 'measured'), rows, left=range(3))}\n\n{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the data goes")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    result = run(options.updates, options.runs)
    options.result.parent.mkdir(parents=True, exist_ok=True)
    options.result.write_text(json.dumps(result, indent=1) + "\n")
    print(text(result))
    if options.result == RESULT:
        put(FLOW_PAGE, "negative controls", text(result))


if __name__ == "__main__":
    main()
