"""The Brier score and the reliability curve of a continuation head against loops over transitions."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from lit_pwm.measures.continuation_score import EDGES, ContinuationScore, scores_of
from lit_pwm.models import ContinuationHead, MLPDynamics, WorldModel

TASKS = {"falls": (5, 2), "trips": (5, 2), "stands": (4, 1)}
RATES = {"falls": 0.2, "trips": 0.05, "stands": 0.0}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    heads = {"continuation": partial(ContinuationHead, hidden_dim=12)}
    model = WorldModel(TASKS, partial(MLPDynamics, hidden_dim=16), 16, 4, heads=heads, encoder_dim=16)
    for p in model.parameters():
        p.data.add_(0.5 * torch.randn_like(p))
    model.know_ends_({"falls": True, "trips": True})
    return model.eval()


def make_batch(seed, size=40, horizon=5):
    """Slices of all tasks; some of the first two end, and what lies beyond the end is garbage."""
    generator = torch.Generator().manual_seed(seed)
    task = torch.randint(3, (size,), generator=generator)
    last = torch.randint(2 * horizon, (size,), generator=generator)  # beyond the horizon: the episode goes on
    last[task == 2] = horizon
    steps = torch.arange(horizon)[:, None]
    valid = steps <= last
    return {
        "obs": torch.randn(horizon + 1, size, 5, generator=generator),
        "action": torch.rand(horizon, size, 2, generator=generator),
        "task": task, "valid": valid, "terminated": (steps == last) | ~valid,
    }  # fmt: skip


@torch.no_grad()
def by_loops(model, batches):
    """Task → (predicted, happened), one of each valid transition."""
    found: dict[str, list] = {}
    for batch in batches:
        for b, task in enumerate(batch["task"]):
            z = model.encode(batch["obs"][0, b], task)
            for t, action in enumerate(batch["action"][:, b]):
                if batch["valid"][t, b]:
                    c = model.continuation(z, action, task).item()
                    found.setdefault(list(TASKS)[task], []).append((1 - c, float(batch["terminated"][t, b])))
                z = model.next(z, action, task)
    return {task: np.array(rows).T for task, rows in found.items()}


def filled(model, batches):
    metric = ContinuationScore(RATES, model.task_names)
    for batch in batches:
        metric.update(model, batch)
    return metric


def test_scores_and_curve_are_those_of_loops_over_valid_transitions(model):
    batches = [make_batch(1), make_batch(2)]
    metric, expected = filled(model, batches), by_loops(model, batches)
    records, scores = metric.records(), metric.compute()
    assert set(records) == {"falls", "trips"}
    for task, record in records.items():
        p, y = expected[task]
        assert (record["transitions"], record["ends"]) == (len(p), y.sum())
        assert 0 < y.sum() < len(y)
        assert record["brier"] == pytest.approx(((p - y) ** 2).mean(), rel=1e-4)
        assert record["brier_base_rate"] == pytest.approx(((RATES[task] - y) ** 2).mean(), rel=1e-9)
        place = np.digitize(p, EDGES[1:-1])
        for number, found in zip(np.unique(place), record["bins"], strict=True):
            inside = place == number
            assert found["count"] == inside.sum()
            assert found["predicted"] == pytest.approx(p[inside].mean(), rel=1e-4)
            assert found["observed"] == pytest.approx(y[inside].mean())
        assert sum(found["count"] for found in record["bins"]) == len(p)
        for key in ("brier", "brier_base_rate"):
            assert scores[f"continuation_{key}/{task}"].item() == pytest.approx(record[key])
    mean = (records["falls"]["brier"] + records["trips"]["brier"]) / 2
    assert scores["continuation_brier"].item() == pytest.approx(mean)


def test_a_head_that_says_the_rate_scores_as_the_rate_and_one_that_knows_scores_zero():
    class Saying:
        def __init__(self, c):
            self.c = c

        def encode(self, obs, task):
            return obs

        def rollout(self, z, actions, task):
            return z.expand(len(actions) + 1, *z.shape), None

        def continuation(self, z, action, task):
            return self.c

    batch = make_batch(3)
    batch["terminated"] &= batch["valid"]
    for c, scored in ((torch.full((5, 40), 0.8), "rate"), (1 - batch["terminated"].float(), "zero")):
        metric = ContinuationScore(dict.fromkeys(TASKS, 0.2), tuple(TASKS))
        metric.update(Saying(c), batch)
        for record in metric.records().values():
            assert record["brier"] == pytest.approx(record["brier_base_rate"] if scored == "rate" else 0.0, abs=1e-6)


def test_sums_of_two_ranks_equal_one_process(model):
    batches = [make_batch(seed) for seed in range(4)]
    one, first, second = filled(model, batches), filled(model, batches[:1]), filled(model, batches[1:])
    merged = ContinuationScore(RATES, model.task_names)
    for name, reduce in merged._reductions.items():
        setattr(merged, name, reduce(torch.stack([getattr(first, name), getattr(second, name)])))
    assert scores_of(merged.records()) == pytest.approx(scores_of(one.records()))
    assert [found["count"] for found in merged.records()["falls"]["bins"]] == [
        found["count"] for found in one.records()["falls"]["bins"]
    ]


def test_tasks_without_ends_and_batches_without_marks_say_nothing_of_them(model):
    batch = make_batch(5)
    batch["task"] = torch.full_like(batch["task"], 2)
    assert filled(model, [batch]).records() == {}
    assert filled(model, [batch]).compute() == {}
    whole = {key: value for key, value in make_batch(6).items() if key not in ("valid", "terminated")}
    record = filled(model, [whole]).records()["falls"]
    assert record["ends"] == 0
    assert record["transitions"] == 5 * int((whole["task"] == 0).sum())
