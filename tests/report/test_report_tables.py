"""The numbers in the report: tables in every form, times, and drawings without global state."""

import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from lit_pwm.experiments import report
from lit_pwm.experiments.record import results_rows
from lit_pwm.statistics import bootstrap_interval

ROWS = [
    report.ResultsRow(
        "one", {"random": [0.0, 10.0], "data": [50.0, 150.0], "best": [900.0] * 3, "last": [700.0, 800.0]}
    ),
    report.ResultsRow("two", {"random": [20.0, 30.0], "best": [500.0] * 3, "last": [600.0, 600.0]}),
]


def test_markdown_shows_means_intervals_best_episodes_and_the_mean_over_tasks():
    low, high = bootstrap_interval([[700.0, 800.0]])
    assert report.results_markdown(ROWS).splitlines() == [
        "| task | Random policy | Data, mean | Data, best episode | PWM, best | PWM, last |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        f"| one | 5 (0–10) | 100 (50–150) | 150 | 900 (900–900) | 750 ({low:.0f}–{high:.0f}) |",
        "| two | 25 (20–30) | – | – | 500 (500–500) | 600 (600–600) |",
        "| mean over tasks | 15 (10–20) | – | – | 700 (700–700) | 675 (650–700) |",
    ]


def test_a_single_episode_has_no_interval_and_a_single_task_no_overall_row():
    lines = report.results_markdown([report.ResultsRow("one", {"best": [900.0]})]).splitlines()
    assert lines[2:] == ["| one | – | – | – | 900 | – |"]


def test_the_terminal_shows_the_same_numbers(capsys):
    Console(width=100).print(report.results_table(ROWS))
    text = capsys.readouterr().out
    for words in ("one", "two", "mean over tasks", "PWM, best", "900–900", "50–150", "675"):
        assert words in text


def test_columns_can_be_ones_own():
    columns = (report.Column("flow", "flow", ours=True), report.Column("top", "flow", "best"))
    row = report.ResultsRow("one", {"flow": [1.0, 3.0]})
    assert report.results_markdown([row], columns).splitlines()[2] == "| one | 2 (1–3) | 3 |"


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
    machine = report.describe_machine()
    assert machine["usable cores"] >= 1
    assert machine["python"] == sys.version.split()[0]


def test_importing_loads_no_matplotlib_and_drawing_changes_no_global_state(tmp_path):
    # Reading matplotlib's setting "backend" would choose one.
    program = """
import sys
from lit_pwm.experiments import report
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


def test_several_runs_show_means_of_runs_and_the_best_episode_of_all():
    records = [
        {"tasks": [{"task": "one", "returns": {"data": [10.0, scored], "best": [500.0]}}]} for scored in (30, 90)
    ]
    (row,) = results_rows(records)
    assert row.returns == {"data": [20.0, 50.0], "best": [500.0, 500.0]}
    cells = report.results_markdown([row]).splitlines()[2].split(" | ")
    assert (cells[2].split()[0], cells[3]) == ("35", "90")
