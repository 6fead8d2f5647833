"""The numbers in the report: tables in every form, times, and drawings without global state."""

import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments import report
from lit_pwm.experiments.demo.demo_report import note_of, results_rows
from lit_pwm.experiments.report import returns
from lit_pwm.measures.statistics import detectable_difference, t_interval
from lit_pwm.provenance import describe_machine

ROWS = [
    report.ResultsRow(
        "one", {"random": [0.0, 10.0], "data": [50.0, 150.0], "best": [900.0] * 3, "last": [700.0, 800.0, 810.0]},
        {"data": 400.0},
    ),
    report.ResultsRow("two", {"random": [30.0, 20.0], "best": [500.0] * 3, "last": [600.0, 600.0, 600.0]}),
]  # fmt: skip


def between(values):
    low, high = t_interval(values)
    return f"({low:.0f} to {high:.0f})"


def test_markdown_shows_means_intervals_best_episodes_and_the_mean_over_tasks():
    assert report.results_table(ROWS).markdown().splitlines() == [
        "| task | Random policy | Data, mean | Data, best episode | PWM, best | PWM, last |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        f"| one | 5 (-59 to 69) | 100 {between([50, 150])} | 400 | 900 (900 to 900) | 770 {between([700, 800, 810])} |",
        f"| two | 25 {between([20, 30])} | – | – | 500 (500 to 500) | 600 (600 to 600) |",
        # Tasks are averaged run by run: 15 and 15 of the random policy, in opposite order in the two.
        f"| mean over tasks | 15 (15 to 15) | – | – | 700 (700 to 700) | 685 {between([650, 700, 705])} |",
    ]


def test_a_single_run_has_no_interval_and_a_single_task_no_overall_row():
    lines = report.results_table([report.ResultsRow("one", {"best": [900.0]})]).markdown().splitlines()
    assert lines[2:] == ["| one | – | – | – | 900 (1 seed) | – |"]


def test_runs_that_one_task_lacks_have_no_overall_figure():
    rows = [report.ResultsRow("one", {"best": [1.0, 2.0]}), report.ResultsRow("two", {"best": [1.0]})]
    assert report.results_table(rows).markdown().splitlines()[-1] == "| mean over tasks | – | – | – | – | – |"


def test_the_terminal_shows_the_same_numbers(capsys):
    Console(width=100).print(report.results_table(ROWS))
    text = capsys.readouterr().out
    for words in ("one", "two", "mean over tasks", "PWM, best", "900 to 900", "-59 to 69", "685"):
        assert words in text


def test_columns_can_be_ones_own():
    columns = (report.Column("flow", "flow", ours=True), report.Column("top", "flow", "best"))
    row = report.ResultsRow("one", {"flow": [1.0, 3.0]})
    assert report.results_table([row], columns).markdown().splitlines()[2] == "| one | 2 (-11 to 15) | 3 |"


def test_the_best_of_ours_is_marked(tmp_path):
    text = report.build_report([report.ResultsSection(ROWS)], tmp_path).read_text()
    assert text.count('<td class="best">900') == 1
    assert text.count('<td class="best">600') == 1
    assert text.count('class="best"') == 3  # and the mean over tasks


def test_other_columns_are_never_marked(tmp_path):
    rows = [report.ResultsRow("one", {"data": [999.0, 999.0], "best": [10.0, 10.0]})]
    assert '<td class="best">10' in report.build_report([report.ResultsSection(rows)], tmp_path).read_text()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (8.26, "8.3 s"),
        (59.97, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7380, "2 h 03 min"),
    ],
)
def test_durations(seconds, text):
    assert report.duration(seconds) == text


def test_the_machine_is_described():
    machine = describe_machine()
    assert int(machine["usable cores"]) >= 1
    assert machine["python"] == sys.version.split()[0]


def test_importing_loads_no_matplotlib_and_drawing_changes_no_global_state(tmp_path):
    # Reading matplotlib's setting "backend" would choose one.
    program = """
import sys
from lit_pwm.experiments import report
from lit_pwm.experiments.report import returns
assert not [name for name in sys.modules if name.startswith("matplotlib")]
import matplotlib
settings = lambda: {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
before = settings()
report.build_report([report.StagesSection({"a": 1.0})], sys.argv[1])
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_open_loop_panels_are_gathered_by_task(tmp_path):
    panels = [report.OpenLoopPanel(task, "reward", np.zeros(3).tolist(), [0.0, 0.5, 1.0]) for task in "abab"]
    text = report.build_report([report.OpenLoopSection(panels)], tmp_path).read_text()
    assert text.count("<h3>a</h3>") == text.count("<h3>b</h3>") == 1
    assert len(list((tmp_path / "assets").iterdir())) == 8
    assert "they differ by 0.5 on average" in text


def record_of(seed, **returns):
    """A demo's record as far as its table goes: task → returns of its policies' episodes."""
    return {
        "seed": seed,
        "tasks": [
            {"task": task, "returns": {"data": [0.0], "best": best, "last": last}}
            for task, (best, last) in returns.items()
        ],
    }


def test_several_runs_show_means_of_runs_by_the_tasks_names_and_the_best_episode_of_all():
    records = [
        record_of(0, one=([10.0, 30.0], [1.0]), two=([500.0], [2.0])),
        record_of(1, two=([700.0], [2.0]), one=([10.0, 90.0], [1.0])),
    ]
    one, two = results_rows(records)
    assert (one.task, one.returns["best"], one.highest["best"]) == ("one", [20.0, 50.0], 90.0)
    assert (two.task, two.returns["best"]) == ("two", [500.0, 700.0])


def test_a_single_run_shows_its_mean_over_episodes_and_no_interval():
    (row,) = results_rows([record_of(3, one=([10.0, 90.0], [1.0]))])
    lines = report.results_table([row]).markdown().splitlines()
    assert lines[2] == "| one | – | 0 (1 seed) | 0 | 50 (1 seed) | 1 (1 seed) |"
    assert "there is no interval" in note_of([record_of(3, one=([10.0, 90.0], [1.0]))])


def test_runs_of_different_tasks_are_not_reported_together():
    records = [record_of(0, one=([1.0], [1.0])), record_of(1, two=([1.0], [1.0]))]
    with pytest.raises(LitPWMError, match=r"seed 0 of \['one'\], seed 1 of \['two'\]"):
        results_rows(records)


def test_a_report_of_several_runs_says_what_they_could_show():
    best, last = ([90.0, 100.0, 125.0], [50.0, 90.0, 95.0])
    text = note_of(
        [record_of(seed, a=([b], [x]), b=([b], [x])) for seed, (b, x) in enumerate(zip(best, last, strict=True))]
    )
    apart = detectable_difference(best, independent=True)
    paired = detectable_difference([b - x for b, x in zip(best, last, strict=True)])
    assert f"a difference of {apart:.0f} between the mean over tasks" in text
    assert f"one of {paired:.0f} between best and last" in text


def test_the_drawing_shows_intervals_whole():
    low, high = t_interval([0.0, 900.0, 900.0])
    assert low < 0
    (axes,) = returns._draw([report.ResultsRow("one", {"best": [0.0, 900.0, 900.0]})], report.COLUMNS).axes
    assert axes.get_xlim()[0] < low < high < axes.get_xlim()[1]
