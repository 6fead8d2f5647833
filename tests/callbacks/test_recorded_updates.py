"""Updates whose losses another function gives, as `CUDAGraphs` puts recordings in their place, on any device."""

from __future__ import annotations

import pytest
import torch

import callbacks
from lit_pwm.models import EnergyLoss, FlowDynamics, NoiseSource


class PlainCalls(callbacks.CUDAGraphs):
    """The callback with a plain call in the place of a recording."""

    device_type = "cpu"

    def __init__(self):
        super().__init__()
        self.calls = []

    def record(self, function, modules, inputs):  # ty: ignore[incompatible-mutable-override]
        shapes = [tensor.shape for tensor in inputs]

        def call(*tensors):
            # What a recording would not notice: it runs on tensors of these shapes alone, and without gradient.
            self.calls.append(shapes == [tensor.shape for tensor in tensors])
            assert not any(tensor.requires_grad for tensor in tensors)
            return function(*tensors)

        return call


@pytest.fixture(scope="module")
def models(world_model_files, pretraining, run, tmp_path_factory):
    root = tmp_path_factory.mktemp("sampled")
    module = pretraining("flow", dynamics=sampled)
    run(module, root, updates=3, logger=False).save_checkpoint(root / "sampled.ckpt")
    return {**world_model_files, "sampled": root / "sampled.ckpt"}


def sampled(*dimensions):
    return FlowDynamics(*dimensions, hidden_dim=20, source=NoiseSource, loss=EnergyLoss)


JOBS = [("pretraining", "mlp"), ("pretraining", "sampled"), ("mlp", "refinement"), ("flow", "sampled")]


@pytest.mark.parametrize(("job", "kind"), JOBS)
def test_replaced_functions_train_the_same_to_the_bit(job, kind, models, pretraining, policy_learning, run, tmp_path):
    states, graphs = [], PlainCalls()
    for extra in ([], [graphs]):
        if job == "pretraining":
            module = pretraining(dynamics=sampled) if kind == "sampled" else pretraining(kind)
        else:
            module = policy_learning(models[kind], job)
        run(module, tmp_path, extra, updates=5, limit_val_batches=0, logger=False)
        states.append(module.state_dict())
        assert not {"update_loss", "imagined_returns", "critic_loss"} & set(vars(module)), "its own are back"
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key
    updates, minibatches = 4, 2 * 4
    assert len(graphs.calls) >= updates * (1 if job == "pretraining" else 1 + minibatches)
    assert all(graphs.calls)
