"""On a GPU, recorded updates are made whole or not at all: what the recording moved is put back too."""

from __future__ import annotations

import copy

import lightning.pytorch as pl
import pytest
import torch

import callbacks
from benchmarks.encoder_steadying import SteadiedObjective
from lit_pwm.errors import NonFiniteLossError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
]
BAD = 3


def moved(trainer):
    """All that an update moves on the device."""
    module = trainer.lightning_module
    return copy.deepcopy(
        {
            "module": {key: value.detach() for key, value in module.state_dict().items()},
            "optimizers": [optimizer.state_dict()["state"] for optimizer in trainer.optimizers],
            "step": trainer.global_step,
            "random": torch.cuda.get_rng_state() if torch.cuda.is_available() else torch.get_rng_state(),
        }
    )


def assert_same(ours, theirs, where=""):
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in ours.items():
            assert_same(value, theirs[key], f"{where}.{key}")
    elif isinstance(ours, list):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where


class Spoil(pl.Callback):
    """Lets one update go wrong after graphs have been recorded, and keeps what was there before and after it.

    Args:
        what: `batch` puts a NaN into an observation, which the recorded functions then compute with; else the name of a
            function of the module.
        call: which call of that function gives NaN.
    """

    def __init__(self, what, call=1):
        self.what, self.call = what, call

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step != BAD:
            return
        assert vars(pl_module).keys() & {"update_loss", "critic_loss"}, "graphs were not recorded"
        self.before = moved(trainer)
        if self.what == "batch":
            batch["obs"][:, 0] = torch.nan
            return
        own, calls = getattr(pl_module, self.what), []

        def spoiled(*inputs):
            calls.append(1)
            value = own(*inputs)
            return value * torch.nan if len(calls) == self.call else value

        setattr(pl_module, self.what, spoiled)

    def on_exception(self, trainer, pl_module, exception):
        self.after = moved(trainer)


def refused_and_resumed(run, make, root, spoil):
    settings = {"accelerator": "gpu", "updates": 10, "limit_val_batches": 0}
    guard = callbacks.NonFiniteGuard()
    with pytest.raises(NonFiniteLossError):
        run(make(), root, [callbacks.CUDAGraphs(), spoil, guard, callbacks.RNGState()], **settings)
    assert spoil.before["step"] == BAD
    assert_same(spoil.after, spoil.before)
    trainer = run(
        make(), root / "resumed", [callbacks.CUDAGraphs(), callbacks.RNGState()],
        ckpt_path=root / "last_good.ckpt", **settings,
    )  # fmt: skip
    assert trainer.global_step == 10
    state = trainer.lightning_module.state_dict()
    assert all(value.isfinite().all() for value in state.values())
    assert any(not torch.equal(value, spoil.before["module"][key].to(value.device)) for key, value in state.items())


@pytest.mark.parametrize("kind", ["mlp", "flow", "refinement"])
def test_a_recorded_model_update_is_whole_or_none(kind, pretraining, run, tmp_path):
    def make():
        return pretraining(kind, objective=SteadiedObjective(target_encoder_rate=0.1, sigreg_coef=0.1))

    refused_and_resumed(run, make, tmp_path, Spoil("batch"))


@pytest.mark.parametrize(
    ("what", "call"), [("batch", 1), ("actor_loss", 1), ("critic_loss", 1), ("critic_loss", 5), ("critic_loss", 8)]
)
@pytest.mark.parametrize("actor", ["mlp", "flow"])
def test_a_recorded_policy_update_is_whole_or_none(
    actor, what, call, world_model_files, policy_learning, run, tmp_path
):
    def make():
        options = {
            "actor_optimizer": {"average_rate": 0.1},
            "critic_optimizer": {"target_rate": 0.5, "passes": 2, "minibatches": 4},
        }
        return policy_learning(world_model_files["flow"], actor, **options)

    refused_and_resumed(run, make, tmp_path, Spoil(what, call))
