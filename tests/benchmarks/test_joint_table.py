"""The table and the figure of joint training say what its records do, and its criteria can fail."""

import copy
import json

import numpy as np
import pytest
from joint_figure import curve_of, figure
from joint_study import ARMS
from joint_table import NONE, criteria_table, sections

from lit_pwm.errors import LitPWMError
from lit_pwm.measures.statistics import t_interval

CONTROLS = {
    "data": {"mean": 200.0, "best": 480.0, "episodes": 140},
    "best_constant": {"action": [-0.4], "return": 170.0},
    "constants": [[[-0.4], 170.0], [[0.0], 0.0]],
}
TASK = "cartpole-swingup"


def made(arm, seed, last):
    frozen = arm.startswith("frozen")
    flops = 3e9 if frozen else 5e9
    pretraining = {"updates": 2000, "flops": 1e9, "cpu_seconds": 30.0 + seed} if frozen else None
    learning = {"updates": [10.0, 20.0], "flops": [1e9, 2e9], "returns": [last - 50, last + seed]}
    returns = {"last": [last + seed, last - seed], "best": [last + 10]}
    record = {"task": TASK, "arm": arm, "seed": seed, "updates": 400, "model_updates": 2000 if frozen else 0}
    cost = {"flops": flops, "cpu_seconds": 60.0, "pretraining": pretraining, "learning": learning}
    return record | returns | cost


def arms_of(last):
    return {arm: {seed: made(arm, seed, last[arm] + 3 * seed) for seed in range(5)} for arm in ARMS}


LAST = {"frozen-mlp": 500.0, "frozen-flow": 520.0, "joint-mlp": 260.0, "joint-flow": 230.0}


def verdicts(arms, arm):
    lines = criteria_table(arms, CONTROLS).splitlines()
    return [tuple(cell.strip() for cell in line.split("|")[3:5]) for line in lines if line.startswith(f"| {arm} |")]


def test_criteria_say_yes_no_and_not_reached():
    arms = arms_of(LAST)
    last, best = zip(*verdicts(arms, "joint-mlp"), strict=True)
    low = t_interval([260.0 + 3 * seed for seed in range(5)]).low
    assert last == (f"yes ({low:.0f})", f"yes ({low:.0f})", "yes (266)")
    assert best == (f"yes ({low + 10:.0f})", f"yes ({low + 10:.0f})", "yes (276)")
    assert [one[0] for one in verdicts(arms, "joint-flow")][2] == "not reached (236)"
    arms = arms_of(LAST | {"joint-mlp": 198.0})  # the mean is above the data's, 204, and the interval's end is not
    assert [one[0].split()[0] for one in verdicts(arms, "joint-mlp")] == ["NO", "yes", "not"]
    one_seed = {arm: {0: records[0]} for arm, records in arms_of(LAST).items()}
    assert verdicts(one_seed, "joint-mlp")[0] == ("NO (1 seed)", "NO (1 seed)")


def test_curves_are_means_with_intervals_and_begin_after_the_pre_training():
    arms = arms_of(LAST)
    frozen, joint = (curve_of(arms[arm], "flops") for arm in ("frozen-mlp", "joint-mlp"))
    assert frozen.x.tolist() == [2e9, 3e9]
    assert joint.x.tolist() == [1e9, 2e9]
    assert curve_of(arms["frozen-mlp"], "updates").x.tolist() == [2010.0, 2020.0]
    assert joint.mean == pytest.approx([216.0, 268.0])
    assert (joint.low[1], joint.high[1]) == pytest.approx(t_interval([260.0 + 4 * seed for seed in range(5)]))
    other = copy.deepcopy(arms["joint-mlp"])
    other[3]["learning"]["updates"] = [11.0, 20.0]
    with pytest.raises(LitPWMError, match="'joint-mlp' were evaluated at different updates"):
        curve_of(other, "updates")


def test_both_panels_have_every_arm_and_both_controls():
    drawn = figure(arms_of(LAST), CONTROLS)
    for axes, x in zip(drawn.axes, (2020.0, 3e9), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        assert set(lines) == {*ARMS, "data's mean", "best constant action"}
        assert np.max(lines["frozen-flow"].get_xdata()) == x
        assert lines["best constant action"].get_ydata()[0] == 170.0


def test_a_folder_of_records_makes_the_pages_sections(tmp_path):
    assert set(sections(tmp_path).values()) == {NONE}
    for arm, records in arms_of(LAST).items():
        for seed, record in records.items():
            (tmp_path / f"{TASK}_{arm}_{seed}.json").write_text(json.dumps(record))
    with pytest.raises(LitPWMError, match="needs the controls of cartpole-swingup"):
        sections(tmp_path)
    (tmp_path / "controls").mkdir()
    (tmp_path / "controls" / f"{TASK}.json").write_text(json.dumps(CONTROLS))
    text = sections(tmp_path)["returns"]
    (frozen,) = [line for line in text.splitlines() if line.startswith("| frozen-mlp")]
    assert "| 5 | 2000 + 400 | 506 (500 to 512) |" in frozen
    assert "| 3.00e+09 | 1.00e+09 | 1.0 | 0.5 |" in frozen
    (joint,) = [line for line in text.splitlines() if line.startswith("| joint-mlp")]
    assert "-240 (-240 to -240) | 0 | 5.00e+09 | – | 1.0 | – |" in joint
    assert "| best of 2 constant actions: -0.4 | 170 |" in text
    assert "These 20 policies took 20 CPU minutes" in text
    assert "and 5 pre-trainings of world models 3." in text, "whose seconds are equal in both arms here, as if shared"
