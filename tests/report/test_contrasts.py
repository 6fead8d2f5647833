"""Differences between cells, paired by seed and task, against hand computations."""

import numpy as np
import pytest

from lit_pwm.experiments.report import build_report
from lit_pwm.experiments.report.comparison import ComparisonSection
from lit_pwm.experiments.report.contrasts import (
    ContrastsSection,
    between_kinds,
    between_labels,
    component_contrasts,
    contrast_table,
    kind_contrasts,
    paired,
)
from lit_pwm.experiments.report.grid import Grid, RunResult
from lit_pwm.measures.statistics import detectable_difference, holm, t_interval, t_probability

AXES = {"world_model": ["mlp", "flow"], "policy": ["mlp", "flow"]}
OFFSET = {("mlp", "mlp"): 0.0, ("flow", "mlp"): 100.0, ("mlp", "flow"): -10.0, ("flow", "flow"): 20.0}
SLOPE = {("flow", "mlp"): 7.0}
"""By how much a cell's difference to the baseline grows with the seed."""


def runs(cells=OFFSET, tasks=("a", "b"), seeds=range(5)):
    """Scores far apart between tasks and seeds, listed in an order that differs from cell to cell."""
    found = []
    for cell in cells:
        for task in tasks:
            for seed in seeds:
                score = OFFSET[cell] + SLOPE.get(cell, 0) * seed + 50 * seed**2 + 300 * (task == "b")
                found.append(RunResult(cell, task, str(seed), {"best": [score - 1, score + 1], "last": [score - 30.0]}))
    np.random.default_rng(0).shuffle(found)
    return found


def test_a_component_is_compared_at_the_same_seeds_and_labels_of_the_other_axes():
    grid = Grid(AXES, runs())
    found = {contrast.name: contrast for contrast in component_contrasts(grid)}
    assert list(found) == [
        f"flow − mlp {axis}, {kind}" for kind in grid.runs[0].returns for axis in ("world model", "policy")
    ]
    models = found["flow − mlp world model, best"]
    assert models.pairs == 2
    assert models.differences == pytest.approx({str(seed): (100 + 7 * seed + 30) / 2 for seed in range(5)})
    policies = found["flow − mlp policy, last"]
    assert policies.differences == pytest.approx({str(seed): (-10 + 20 - 100 - 7 * seed) / 2 for seed in range(5)})


def test_kinds_are_compared_within_the_same_runs():
    contrast = between_kinds(Grid(AXES, runs()), "last", "best", "policy", "flow")
    assert contrast.name == "last − best, flow policy"
    assert contrast.differences == pytest.approx(dict.fromkeys("01234", -30.0))
    assert len(kind_contrasts(Grid(AXES, runs()))) == 4


def test_seeds_that_a_cell_lacks_and_cells_that_are_missing_are_left_out():
    some = runs([("mlp", "mlp"), ("flow", "mlp"), ("mlp", "flow")])
    some = [run for run in some if (run.cell, run.task, run.seed) != (("flow", "mlp"), "b", "3")]
    grid = Grid(AXES, some)
    contrast = between_labels(grid, "world_model", "flow", "mlp", "best")
    assert contrast.pairs == 1
    assert set(contrast.differences) == set("0124")
    assert contrast.differences["4"] == 128
    # One of two pairs has a seed more, which the other cannot match.
    more = [*some, *runs([("flow", "flow")], seeds=range(2))]
    assert set(between_labels(Grid(AXES, more), "world_model", "flow", "mlp", "best").differences) == set("01")


def test_cells_without_runs_in_some_task_or_with_no_seed_in_common_are_not_compared():
    short = [*runs([("mlp", "mlp")]), *runs([("flow", "mlp")], tasks=("a",))]
    assert component_contrasts(Grid(AXES, short)) == []
    assert between_labels(Grid(AXES, short), "world_model", "flow", "mlp", "best", tasks=("a",)).pairs == 1
    both = [
        *runs([("mlp", "mlp"), ("flow", "mlp")], tasks=("a",)),
        *runs([("mlp", "flow")]),
    ]  # neither has b, another has
    assert not [found for found in component_contrasts(Grid(AXES, both)) if "world model" in found.name]
    apart = [*runs([("mlp", "mlp")], seeds=(0, 1)), *runs([("flow", "mlp")], seeds=(2, 3))]
    assert component_contrasts(Grid(AXES, apart)) == []
    assert paired(Grid(AXES, apart), "nothing", []) is None


def test_the_table_has_each_interval_corrected_ones_and_what_could_have_been_seen():
    contrasts = component_contrasts(Grid(AXES, runs()))
    table = contrast_table(contrasts)
    assert len(table.head) == len(table.rows[0])
    probabilities = holm([t_probability(contrast.values) for contrast in contrasts])
    for contrast, row, probability in zip(contrasts, table.rows, probabilities, strict=True):
        low, high = t_interval(contrast.values)
        wide = t_interval(contrast.values, 1 - 0.05 / 4)
        assert row[3] == (f"{np.mean(contrast.values):+.0f}", f"{low:+.0f} to {high:+.0f}")
        assert row[4][0] == f"{wide[0]:+.0f} to {wide[1]:+.0f}"
        assert row[5][0] == f"{probability:.2g}"
        assert row[6][0] == f"{detectable_difference(contrast.values):.0f}"


def test_one_seed_has_a_difference_and_no_interval_anywhere():
    rows = contrast_table(component_contrasts(Grid(AXES, runs(seeds=[3])))).rows
    assert [entry[0] for entry in rows[0][1:]] == ["2", "1", "+76", "–", "–", "–"]
    assert rows[0][3][1] == "1 seed"


def test_a_correction_counts_only_the_rows_that_are_tests():
    two, one = (
        component_contrasts(Grid(AXES, runs(seeds=[0, 1])))[0],
        component_contrasts(Grid(AXES, runs(seeds=[0])))[0],
    )
    rows = contrast_table([two, one, one]).rows
    assert rows[0][4][0] == rows[0][3][1]
    assert rows[0][5][0] == f"{t_probability(two.values):.2g}"


def test_the_section_says_when_there_is_nothing_to_compare(tmp_path):
    page = build_report([ContrastsSection(Grid(AXES, runs([("mlp", "mlp")], seeds=[0])))], tmp_path / "one").read_text()
    assert "last − best, mlp policy" in page
    grid = Grid(AXES, [RunResult(("mlp", "mlp"), "a", "0", {"best": [1.0]})])
    assert "nothing is compared" in build_report([ContrastsSection(grid)], tmp_path / "none").read_text()
    assert "nothing is compared" in build_report([ContrastsSection(Grid(AXES, []))], tmp_path / "empty").read_text()


def test_tasks_whose_returns_have_another_scale_are_in_no_mean_over_tasks(tmp_path):
    plain, mixed = (Grid(AXES, runs(tasks=tasks)) for tasks in (("a", "b"), ("a", "b", "gym:Hopper-v5")))
    for cell in plain.cells:
        for figure in (Grid.estimate, Grid.iqm, Grid.improvement):
            assert figure(mixed, cell, "best") == figure(plain, cell, "best")
        assert mixed.in_task(cell, "gym:Hopper-v5", "best") is not None
    assert kind_contrasts(mixed) == kind_contrasts(plain)
    alone = Grid(AXES, runs(tasks=("gym:Hopper-v5",)))
    assert alone.estimate(("flow", "mlp"), "best") == alone.in_task(("flow", "mlp"), "gym:Hopper-v5", "best")
    apart = Grid(AXES, runs(tasks=("gym:Hopper-v5", "gym:Ant-v5")))
    assert apart.estimate(("flow", "mlp"), "best") is None
    for number, grid in enumerate((mixed, apart)):
        page = build_report([ComparisonSection(grid)], tmp_path / str(number)).read_text()
        assert "because their returns have another scale: gym:Hopper-v5" in page
