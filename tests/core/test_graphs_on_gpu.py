"""CUDA graphs of functions against the functions themselves."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lit_pwm.runtime.graphs import graphed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def networks():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)).cuda()
    return ours, copy.deepcopy(ours)


def inputs(rows=5, seed=1):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed)).cuda()


def assert_same_gradients(ours, theirs, **tolerance):
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert q.grad.abs().max() > 0 or q.grad.numel() == 16  # the bias before a batch norm has none
        torch.testing.assert_close(p.grad, q.grad, **tolerance)


@pytest.mark.parametrize("enabled", [False, True], ids=["float32", "bfloat16"])
def test_values_gradients_and_buffers_are_the_functions_own_as_weights_change(enabled):
    ours, theirs = networks()
    replay = None
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (ours, theirs)]
    for seed in range(1, 6):
        x = inputs(seed=seed)
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
                if net is ours:
                    if replay is None:
                        replay = graphed(lambda y: (ours(y), y + 1), [ours], [inputs(seed=99)])
                    value, other = replay(x)
                else:
                    value, other = net(x), x + 1
                (value.float().square().sum() + 0 * other.sum()).backward()
        torch.testing.assert_close(ours[1].running_mean, theirs[1].running_mean)
        assert int(ours[1].num_batches_tracked) == seed
        assert_same_gradients(ours, theirs, rtol=1e-3, atol=1e-4)
        for optimizer in optimizers:
            optimizer.step()


def test_results_stay_when_the_function_is_called_again():
    ours, theirs = networks()
    replay = graphed(lambda x: (ours(x),), [ours], [inputs()])
    first = replay(inputs())[0]
    kept = first.clone()
    assert not torch.equal(replay(inputs(seed=2))[0], first)
    assert torch.equal(first, kept)
    torch.testing.assert_close(first, theirs(inputs()))


def test_inputs_of_other_shapes_and_types_go_to_the_function():
    calls = []
    layer = nn.Linear(3, 4).cuda()

    def function(x):
        calls.append(len(x))
        return (layer(x.float()),)

    replay = graphed(function, [layer], [inputs()])
    recorded = len(calls)
    for x in (inputs(), inputs(seed=3), inputs(7), inputs().double(), inputs()):
        torch.testing.assert_close(replay(x)[0], layer(x.float()))
    assert calls[recorded:] == [7, 5]


def test_the_example_is_left_alone_and_so_are_random_streams():
    layer, example = nn.Linear(3, 4).cuda(), inputs()
    before, state = example.clone(), torch.cuda.get_rng_state()
    replay = graphed(lambda x: (layer(x) + torch.randn_like(layer(x)),), [layer], [example])
    assert torch.equal(torch.cuda.get_rng_state(), state)
    replay(inputs(seed=5))
    assert torch.equal(example, before)


def test_random_numbers_are_new_in_every_call_and_follow_the_seed():
    layer = nn.Linear(3, 4).cuda()
    replay = graphed(lambda x: (layer(x) + torch.randn_like(layer(x)),), [layer], [inputs()])
    torch.manual_seed(7)
    first, second = replay(inputs())[0], replay(inputs())[0]
    torch.manual_seed(7)
    assert torch.equal(replay(inputs())[0], first)
    assert (first - second).abs().min() > 0
