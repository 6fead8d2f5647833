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
def sampled_file(pretraining, run, tmp_path_factory):
    root = tmp_path_factory.mktemp("sampled")
    run(pretraining(dynamics=sampled), root, updates=3, logger=False).save_checkpoint(root / "sampled.ckpt")
    return root / "sampled.ckpt"


def sampled(*dimensions):
    return FlowDynamics(*dimensions, hidden_dim=20, source=NoiseSource, loss=EnergyLoss)


@pytest.mark.parametrize("job", ["pretraining", "policy"])
def test_replaced_functions_train_the_same_to_the_bit(job, sampled_file, pretraining, policy_learning, run, tmp_path):
    states, graphs = [], PlainCalls()
    for extra in ([], [graphs]):
        is_pretraining = job == "pretraining"
        module = pretraining(dynamics=sampled) if is_pretraining else policy_learning(sampled_file, "flow")
        run(module, tmp_path, extra, updates=5, limit_val_batches=0, logger=False)
        states.append(module.state_dict())
        assert not {"update_loss", "imagined_returns", "critic_loss"} & set(vars(module)), "its own are back"
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key
    updates, minibatches = 4, 2 * 4
    assert len(graphs.calls) >= updates * (1 if job == "pretraining" else 1 + minibatches)
    assert all(graphs.calls)
