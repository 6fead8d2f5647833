"""Differences from the flow are paired by seed, with Student's t, and corrected where there are several."""

import json
import re

import numpy as np
import pytest
from scipy import stats
from stochastic_contrasts import contrasts
from stochastic_table import write_policy_table, write_table

TASK = "cartpole-swingup-kicked"


@pytest.fixture
def results(tmp_path):
    """Records of five seeds of which the flow lacks the last; seeds differ more than arms do, and are shuffled."""
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 50, 5)
    gains = {"flow-energy-sharp": 10.0, "one-step-energy": 0.0, "mlp-energy": 9.0, "mlp": -40.0}
    for folder, kind in (("records", "arm"), ("policies", "model")):
        (tmp_path / folder).mkdir()
        for arm, gain in gains.items():
            for seed in range(4 if arm.startswith("flow") else 5):
                score = 250 + gain + seeds[seed] + float(rng.normal(0, 4))
                energy = dict.fromkeys(("1", "4", "16"), score / 1000)
                content: dict[str, object] = {"task": TASK, kind: arm, "seed": seed, "energy_score": energy}
                content |= {"spread_ratio": [1.0] * 16, "spread_error_ratio": [1.0] * 16}
                content |= {"best": [score + 1, score - 1], "last": [score]}
                (tmp_path / folder / f"{TASK}_{arm}_{seed}.json").write_text(json.dumps(content))
    return tmp_path


def scores(results, arm, seeds):
    records = [json.loads((results / "policies" / f"{TASK}_{arm}_{seed}.json").read_text()) for seed in seeds]
    return np.array([np.mean(record["best"]) for record in records])


def row(text, name):
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |")).strip("| ").split(" | ")


def numbers(cell):
    return [float(number) for number in re.findall(r"[+-]?\d+(?:\.\d+)?", cell)]


def test_the_twin_is_compared_seed_by_seed(results):
    text = contrasts(results, TASK)
    flow, twin = (scores(results, arm, range(4)) for arm in ("flow-energy-sharp", "one-step-energy"))
    expected = stats.ttest_rel(flow, twin)
    interval = expected.confidence_interval(0.95)
    assert numbers(row(text, "mean")[4]) == pytest.approx([np.mean(flow - twin)], abs=0.5)
    assert numbers(row(text, "95 % interval")[4]) == pytest.approx([interval.low, interval.high], abs=0.5)
    assert interval.high - interval.low < np.std(flow)  # what pairing is for
    # A t test of as many pairs finds the difference that is called detectable in four of five cases.
    detectable, error = numbers(row(text, "detectable")[4])[0], np.std(flow - twin, ddof=1) / 2
    found = 1 - stats.nct.cdf(stats.t.ppf(0.975, 3), 3, detectable / error)
    assert found == pytest.approx(0.8, abs=0.05)


def test_of_several_controls_those_that_differ_after_correction_are_bold(results):
    text = contrasts(results, TASK)
    flow = scores(results, "flow-energy-sharp", range(4))
    for arm in ("mlp-energy", "mlp"):
        test = stats.ttest_rel(flow, scores(results, arm, range(4)))
        cell = row(text, arm)[4]
        interval = test.confidence_interval(0.95)
        assert numbers(cell) == pytest.approx([np.mean(flow - scores(results, arm, range(4))), *interval], abs=0.5)
        assert cell.startswith("**") == (arm == "mlp")
        assert (test.pvalue * 2 < 0.05) == (arm == "mlp")
    assert "gaussian" not in text  # has no record


def test_the_mean_of_the_samplers_needs_all_of_them_at_a_seed(results):
    heading = "| mean of the four samplers − |"
    assert heading not in contrasts(results, TASK)
    for seed in (0, 1, 3):  # the flow has 0 to 3
        path = results / "policies" / f"{TASK}_one-step-energy_{seed}.json"
        content = json.loads(path.read_text()) | {"model": "refinement-energy", "best": [100.0 * seed]}
        path.with_name(f"{TASK}_refinement-energy_{seed}.json").write_text(json.dumps(content))
    text = contrasts(results, TASK)
    table = text[text.index(heading) :].split("\n\n")[0]
    arms = ("flow-energy-sharp", "one-step-energy", "refinement-energy", "mlp-energy")
    mean = np.mean([scores(results, arm, (0, 1, 3)) for arm in arms], axis=0)
    test = stats.ttest_rel(mean, scores(results, "mlp", (0, 1, 3)))
    expected = [np.mean(mean - scores(results, "mlp", (0, 1, 3))), *test.confidence_interval(0.95)]
    assert table.splitlines()[0] == f"{heading} return, best | return, last |"  # no refinement among the predictions
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| mlp"]
    assert numbers(row(table, "mlp")[1]) == pytest.approx(expected, abs=0.5)


def test_one_seed_has_no_interval(results):
    for path in results.rglob("*_[1-4].json"):
        path.unlink()
    text = contrasts(results, TASK)
    assert row(text, "95 % interval")[1:] == ["–"] * 5
    assert row(text, "detectable")[1:] == ["–"] * 5
    assert row(text, "mlp")[4].endswith("(–)")


def test_the_study_and_its_policies_leave_them_beside_their_tables(results):
    for write in (write_table, write_policy_table):
        write(results)
        assert contrasts(results, TASK) in (results / "contrasts.md").read_text()
        (results / "contrasts.md").unlink()
    for path in results.glob("records/*"):
        path.unlink()
    write_policy_table(results)
    assert not (results / "contrasts.md").exists()
