"""Discovery rates of tasks that are all or nothing, against hand computations."""

import numpy as np
import pytest
import scipy.stats

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.report import build_report
from lit_pwm.experiments.report.discovery import (
    DiscoverySection,
    all_or_nothing,
    discovery_contrasts,
    discovery_table,
    discovery_tables,
)
from lit_pwm.experiments.report.grid import Grid, RunResult
from lit_pwm.experiments.sweep import read_sweep
from lit_pwm.experiments.sweep.record_grid import grid_of

AXES = {"world_model": ["mlp", "flow"], "policy": ["mlp", "flow"]}
FOUND = {"mlp": [4, 4, 3, 0, 2], "flow": [0, 0, 4, 1, 0]}
"""Policy → how many of the four episodes of each seed find it, in both world models."""


def episodes(found, earned=800.0):
    return [earned + 10 * i for i in range(found)] + [0.0] * (4 - found)


@pytest.fixture
def grid():
    runs = [
        RunResult((model, policy), "cup", str(seed), {"best": episodes(found)})
        for model in AXES["world_model"]
        for policy, seeds in FOUND.items()
        for seed, found in enumerate(seeds)
    ]
    return Grid(AXES, runs, {"cup": 300.0})


def test_shares_of_episodes_and_of_runs_with_their_exact_interval(grid):
    rows = discovery_table(grid, "cup", "best").rows
    table = {row[0][0]: row[1:] for row in rows}
    exact = scipy.stats.binomtest(4, 5).proportion_ci(method="exact")
    found = FOUND["mlp"]
    earned = [800 + 10 * i for number in found for i in range(number)]
    assert table["mlp / mlp"] == [
        (f"{sum(found) / 20:.2f}", ""), ("4 of 5", f"{exact.low:.2f} to {exact.high:.2f}"),
        (f"{np.mean(earned):.0f}", ""),
    ]  # fmt: skip
    # Runs of a seed in two world models are not independent: no interval.
    assert table["flow policy"] == [("0.25", ""), ("2 of 10", ""), ("812", "")]
    assert list(table)[4:] == ["mlp world model", "flow world model", "mlp policy", "flow policy"]


def test_the_difference_of_shares_is_paired_by_seed(grid):
    models, policies = discovery_contrasts(grid, "cup", "best")
    assert policies.differences == pytest.approx(
        {str(seed): (b - a) / 4 for seed, (a, b) in enumerate(zip(*FOUND.values(), strict=True))}
    )
    assert set(models.differences.values()) == {0.0}
    assert policies.digits == 2


def test_cells_without_runs_in_the_task_are_empty(grid):
    grid = Grid(AXES, [*grid.runs, RunResult(("mlp", "mlp"), "other", "0", {"best": [5.0]})], {"other": 1.0})
    rows = discovery_table(grid, "other", "best").rows
    assert rows[0][1:] == [("1.00", ""), ("1 of 1", ""), ("5", "")]  # a single run has no interval
    assert rows[1][1:] == [("–", "")] * 3


def test_a_run_that_finds_nothing_earns_nothing_of_it():
    grid = Grid({"model": ["mlp"]}, [RunResult(("mlp",), "cup", "0", {"best": [0.0] * 4})], {"cup": 300.0})
    assert discovery_table(grid, "cup", "best").rows[0][1:] == [("0.00", ""), ("0 of 1", ""), ("–", "")]


@pytest.mark.parametrize(
    ("returns", "threshold"),
    [
        ([0.0] * 10 + [900.0] * 10, 270.0),
        ([-100.0] * 10 + [900.0] * 10, 200.0),
        ([0.0] * 10 + [100.0] * 4 + [900.0] * 10, 270.0),
        ([0.0] * 10 + [100.0] * 6 + [900.0] * 10, None),  # most that do not find it earn something
        ([0.0] * 4 + [900.0] * 10, None),  # too few to say so
        ([0.0] * 5 + [900.0] * 100, None),
        (list(np.linspace(0, 1000, 200)), None),
        ([5.0] * 20, None),
        ([], None),
    ],
)
def test_all_or_nothing_is_seen_in_the_returns(returns, threshold):
    assert all_or_nothing(returns) == (None if threshold is None else pytest.approx(threshold))


def sweep_record(returns, **more):
    return {
        "sweep": "s", "labels": {"policy": "mlp", "seed": "0"}, "axes": {"policy": ["mlp"], "seed": ["0"]},
        "returns": {"best": {"tasks": {task: {"returns": values} for task, values in returns.items()}}}, **more,
    }  # fmt: skip


def test_thresholds_are_the_sweeps_where_it_gives_them_and_seen_elsewhere():
    returns = {"cup": [0.0] * 10 + [900.0] * 10, "walk": [400.0 + i for i in range(20)]}
    assert grid_of([sweep_record(returns)]).thresholds == {"cup": pytest.approx(270)}
    said = {"cup": 500.0, "walk": 410.0, "no such task": 1.0}
    assert grid_of([sweep_record(returns, discovery=said)]).thresholds == {"cup": 500.0, "walk": 410.0}


def test_the_page_has_a_table_for_each_such_task_or_says_that_there_is_none(grid, tmp_path):
    assert list(discovery_tables(grid)) == [
        "cup, best: episodes that earn 300 or more",
        "cup: differences of the share of episodes that find it",
    ]
    assert "4 of 5" in build_report([DiscoverySection(grid)], tmp_path / "some").read_text()
    page = build_report([DiscoverySection(Grid(AXES, grid.runs))], tmp_path / "none").read_text()
    assert "No task&#39;s returns are all or nothing" in page


SWEEP = """
axes: {seed: [0, 1]}
stages:
  train: {over: [seed], run: [fit, --trainer.default_root_dir, "{folder}"]}
  best: {over: [seed], run: [evaluate, --checkpoint, "{folder:train}/last.ckpt", --out, "{folder}/returns.json"]}
record: {policy: train, returns: {best: best}, discovery: DISCOVERY}
"""


def test_a_sweep_file_gives_thresholds(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(SWEEP.replace("DISCOVERY", "{cup-catch: 300}"))
    assert read_sweep(str(path)).record.discovery == {"cup-catch": 300.0}
    assert read_sweep("configs/sweeps/factorial.yaml").record.discovery == {"cup-catch": 300.0}


@pytest.mark.parametrize("value", ["{cup-catch: much}", "{cup-catch: .nan}", "{cup-catch: true}", "[cup-catch]"])
def test_thresholds_that_are_no_numbers_are_refused(tmp_path, value):
    path = tmp_path / "s.yaml"
    path.write_text(SWEEP.replace("DISCOVERY", value))
    with pytest.raises(LitPWMError, match=r"record\.discovery"):
        read_sweep(str(path))
