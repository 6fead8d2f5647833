"""What updates draw: functions of the seed, the update and the place in the global batch, dealt alike on all ranks."""

from __future__ import annotations

import pytest
import torch

from lit_pwm.errors import LitPWMError
from lit_pwm.updates.draws import Draws
from lit_pwm.updates.minibatches import Deal

RANKS, SHARE = 3, 4


def of_ranks(draw):
    return torch.cat([draw(Draws(7, 2, rank, RANKS)) for rank in range(RANKS)])


@pytest.mark.parametrize(
    "draw",
    [
        lambda draws, size: draws.normal("actor", size, (5, 2)),
        lambda draws, size: draws.normal("times", size, ()),
        lambda draws, size: draws.permutations("critic", size, 6),
    ],
)
def test_ranks_draw_their_shares_of_what_one_process_draws(draw):
    whole = draw(Draws(7, 2), RANKS * SHARE)
    assert torch.equal(of_ranks(lambda draws: draw(draws, SHARE)), whole)
    assert not torch.equal(whole[:SHARE], whole[SHARE : 2 * SHARE])


def test_a_stream_is_a_function_of_seed_name_and_update_alone():
    first = Draws(7, 2).normal("actor", 8, (5,))
    later = Draws(7, 2)
    later.permutations("critic", 8, 6)
    torch.randn(3)
    before = torch.get_rng_state()
    assert torch.equal(later.normal("actor", 8, (5,)), first)
    assert torch.equal(torch.get_rng_state(), before), "nobody else's stream moves"
    others = [Draws(8, 2).normal("actor", 8, (5,)), Draws(7, 3).normal("actor", 8, (5,))]
    others.append(Draws(7, 2).normal("dynamics", 8, (5,)))
    assert not any(torch.equal(first, other) for other in others)


def test_normal_numbers_are_standard_and_permutations_uniform():
    noise = Draws(0, 0, dtype=torch.float64).normal("noise", 20_000, (2,))
    assert noise.dtype == torch.float64
    assert noise.mean(0).abs().max() < 0.03
    assert (noise.std(0) - 1).abs().max() < 0.03
    orders = Draws(0, 0).permutations("order", 20_000, 3)
    assert torch.equal(orders.sort(-1).values, torch.arange(3).expand(20_000, -1))
    counts = torch.unique(orders @ torch.tensor([9, 3, 1]), return_counts=True)[1]
    assert len(counts) == 6
    assert (counts / 20_000 - 1 / 6).abs().max() < 0.015


@pytest.mark.parametrize(("horizon", "minibatches"), [(8, 4), (5, 2), (7, 3), (4, 4), (5, 1), (5, 4)])
def test_each_pass_deals_every_state_once_and_evenly(horizon, minibatches):
    size = RANKS * SHARE
    deal = Deal(horizon, minibatches, size)
    dealt = deal(Draws(1, 0).permutations("critic", size, horizon))
    assert len(dealt) == len(deal.factors) == minibatches
    assert deal.factors == [1.0] * minibatches
    assert sorted(torch.cat(dealt).tolist()) == list(range(horizon * size))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= horizon % minibatches
    for chosen in dealt:
        of_start = torch.bincount(chosen % size, minlength=size)
        assert of_start.min() >= horizon // minibatches
        assert of_start.max() <= -(-horizon // minibatches)


@pytest.mark.parametrize(("horizon", "minibatches", "share"), [(8, 4, 4), (5, 2, 3), (7, 3, 4), (5, 4, 1)])
def test_minibatches_of_ranks_together_are_those_of_one_process(horizon, minibatches, share):
    size = RANKS * share
    whole = Deal(horizon, minibatches, size)(Draws(1, 0).permutations("critic", size, horizon))
    values = torch.arange(horizon * size, dtype=torch.float64).sqrt()
    means, global_states = torch.zeros(minibatches, dtype=torch.float64), [[] for _ in whole]
    for rank in range(RANKS):
        deal = Deal(horizon, minibatches, share, rank, RANKS)
        dealt = deal(Draws(1, 0, rank, RANKS).permutations("critic", share, horizon))
        for number, chosen in enumerate(dealt):
            states = chosen // share * size + rank * share + chosen % share
            global_states[number] += states.tolist()
            means[number] += deal.factors[number] * values[states].mean() / RANKS
    for number, chosen in enumerate(whole):
        assert sorted(global_states[number]) == sorted(chosen.tolist())
        assert means[number].item() == pytest.approx(values[chosen].mean().item(), rel=1e-12)


def test_starts_are_dealt_in_orders_of_their_own():
    dealt = Deal(8, 4, 64)(Draws(1, 0).permutations("critic", 64, 8))
    first = dealt[0].sort().values
    steps = torch.stack([first[first % 64 == start] // 64 for start in range(64)])
    assert len(torch.unique(steps.sort(-1).values, dim=0)) > 15


def test_more_minibatches_than_states_are_refused():
    with pytest.raises(LitPWMError, match=r"has 5 critic_optimizer.minibatches.*only 4.*at most 4"):
        Deal(4, 5, 8)
