"""The report of a sweep from its records: every number against a hand computation, and none that is not data."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.report.comparison import comparison_table, crossed_table, task_table
from lit_pwm.experiments.report.costs import figures_table, mean_curve, quantity
from lit_pwm.experiments.report.grid import Grid, RunResult
from lit_pwm.experiments.sweep.quantities import figures_of, is_diagnostic
from lit_pwm.measures.statistics import t_interval

TASKS = ("cup-catch", "walker-run")
AXES = {
    "world_model": ["mlp", "flow", "refinement"],
    "policy": ["mlp", "flow"],
    "task": list(TASKS),
    "seed": ["0", "1"],
}
LEVEL = {("mlp", "mlp"): 300.0, ("mlp", "flow"): 350.0, ("flow", "mlp"): 500.0, ("flow", "flow"): 290.0}


def returns_of(world_model, policy, task, seed):
    """Four episodes with their mean 10 apart for each seed, and 100 apart between tasks."""
    mean = LEVEL[world_model, policy] + 10 * int(seed) + 100 * TASKS.index(task)
    return [mean - 5, mean + 5, mean - 1, mean + 1]


def record_of(world_model, policy, task, seed, returns):
    def evaluated(values):
        return {"tasks": {task: {"returns": values, "mean": float(np.mean(values))}}, "seeds": [0, 1, 2, 3]}

    scale = 2.0 if world_model == "flow" else 1.0
    curve = [[update, update / 4 + returns[0], update * 1e6 * scale, update * 0.1] for update in (0, 50, 100)]
    return {
        "kind": "sweep", "format": 1, "sweep": "factorial",
        "labels": {"world_model": world_model, "policy": policy, "task": task, "seed": seed}, "axes": AXES,
        "returns": {"best": evaluated(returns), "last": evaluated([value - 40 for value in returns])},
        "world_model": {
            "updates": 100, "final": {"val/reward_error_16": 0.25 * scale, "val/latent_error_1": 0.01,
                                      "val/decoded_error_16": 9.0, "val/decoded_error_16/walker-run": 0.4 * scale},
            "curve": {"columns": ["update", "return", "flops", "seconds"], "rows": []}, "compute": None,
        },
        "policy": {
            "updates": 100, "final": {"eval/return": 1.0, "eval/model_gap": 12.5},
            "curve": {"columns": ["update", "return", "flops", "seconds"], "rows": curve}, "compute": None,
        },
        "cells": {"policy": {"command": f"lit-pwm fit {world_model} {seed}", "configs": {}, "seconds": 36.0,
                             "started": "2026-01-01"}},
        "versions": {"lit_pwm": "0.1.0"},
    }  # fmt: skip


def write(folder: Path, record) -> Path:
    name = ",".join(f"{axis}={label}" for axis, label in record["labels"].items())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.record.json"
    path.write_text(json.dumps(record))
    return path


@pytest.fixture
def records(tmp_path):
    folder = tmp_path / "records"
    for world_model, policy in LEVEL:
        for task in TASKS:
            for seed in AXES["seed"]:
                returns = returns_of(world_model, policy, task, seed)
                write(folder, record_of(world_model, policy, task, seed, returns))
    return folder


def report(records, out, capsys):
    assert run(["report", str(records), "--out", str(out)]) == 0
    capsys.readouterr()
    return (out / "results.md").read_text()


def rows_of(text, heading):
    """A Markdown table's rows by their first cell."""
    lines = text[text.index(heading) :].split("\n\n")[1].splitlines()
    cells = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells[2:]}


def test_every_number_of_the_table(records, tmp_path, capsys):
    text = report(records, tmp_path / "report", capsys)
    best = t_interval([350.0, 360.0])  # of mlp / mlp: 300 and 310 in one task, 400 and 410 in the other
    table = rows_of(text, "Over all tasks")
    assert list(table) == ["mlp / mlp", "mlp / flow", "flow / mlp", "flow / flow"]
    assert table["mlp / mlp"] == [
        "2", f"355 ({best.low:.0f} to {best.high:.0f})", "355", f"315 ({best.low - 40:.0f} to {best.high - 40:.0f})",
        "315", "–",
    ]  # fmt: skip
    assert table["flow / mlp"][-1] == "1.00"
    # Seeds 290 and 300 against 300 and 310: lost, tied or won in (0 + 0 + 0.5 + 0) of 4 pairs.
    assert table["flow / flow"][-1] == "0.12"
    crossed = rows_of(text, "Mean return over tasks")
    assert list(crossed) == ["mlp", "flow"]  # no run of the third label
    assert crossed["flow"][0].startswith("555 (")
    assert rows_of(text, "By task, best")["walker-run"][2] == "605 (541 to 669)"  # 605 ± 12.706 · 5
    assert rows_of(text, "By task, last")["cup-catch"][0] == "265 (201 to 329)"
    # Decoded errors of one task are its own (0.8), of the other the mean over the model's tasks (9).
    models = rows_of(text, "World models, open loop")
    assert models == {"mlp": ["4.7 (× 1.00)", "0.25 (× 1.00)", "0.01 (× 1.00)"],
                      "flow": ["4.9 (× 1.04)", "0.5 (× 2.00)", "0.01 (× 1.00)"]}  # fmt: skip
    assert "Brier" not in text
    assert rows_of(text, "World models, decoded error, 16 steps:")["walker-run"] == ["0.4 (× 1.00)", "0.8 (× 2.00)"]
    assert rows_of(text, "World models, reward error, 16 steps:")["walker-run"] == ["0.25 (× 1.00)", "0.5 (× 2.00)"]
    assert rows_of(text, "World models, decoded error, 16 steps, ratio")["walker-run"] == ["2.00 (2.00 to 2.00)"]


def test_scores_of_foreseen_ends_stand_among_those_of_world_models(records, tmp_path, capsys):
    for path in records.glob("*.json"):
        record = json.loads(path.read_text())
        ends = {"val/continuation_brier": 0.0044, "val/continuation_brier_base_rate": 0.0111}
        record["world_model"]["final"] = ends
        path.write_text(json.dumps(record))
    models = rows_of(report(records, tmp_path / "report", capsys), "World models, open loop")
    assert models["mlp"] == ["0.0044 (× 1.00)", "0.0111 (× 1.00)"]


def test_differences_between_components_are_paired_over_all_other_axes(records, tmp_path, capsys):
    rows = rows_of(report(records, tmp_path / "report", capsys), "Differences of returns between components")
    # flow − mlp world model: +200 with the MLP policy, −60 with the flow's, at every seed.
    assert rows["flow − mlp world model, best"] == ["2", "2", "+70 (+70 to +70)", "+70 to +70", "0", "0"]
    assert rows["flow − mlp policy, last"][2] == "-80 (-80 to -80)"
    assert not [name for name in rows if "refinement" in name]  # of which there is no run
    rows = rows_of(report(records, tmp_path / "report", capsys), "Differences of returns from the best checkpoint")
    assert rows["last − best, mlp policy"][2] == "-40 (-40 to -40)"


def test_the_page_has_every_part_and_its_figures(records, tmp_path, capsys):
    out = tmp_path / "report"
    report(records, out, capsys)
    page = (out / "index.html").read_text()
    for anchor in (
        "comparison", "differences", "by-task", "discovery", "cost-curves", "compute", "world-models", "diagnostics",
        "run-record",
    ):  # fmt: skip
        assert f'id="{anchor}"' in page
    assert "eval/model_gap" in page
    assert all(f"By task: {what} error, 16 steps." in page for what in ("decoded", "reward"))
    for name in re.findall(r'src="(assets/[^"]+)"', page):
        assert (out / name).is_file()
    drawn = {path.name for path in (out / "assets").iterdir()}
    assert {f"cost-curves-{task}-{cost}.svg" for task in TASKS for cost in ("update", "flops", "seconds")} <= drawn


def test_one_more_seed_changes_table_and_figures(records, tmp_path, capsys):
    before = report(records, tmp_path / "before", capsys)
    assert report(records, tmp_path / "same", capsys) == before
    write(records, record_of("mlp", "mlp", "cup-catch", "2", [900.0, 902.0]))
    half = report(records, tmp_path / "half", capsys)
    # A seed without a run in every task counts in its task alone.
    old, new = rows_of(before, "Over all tasks"), rows_of(half, "Over all tasks")
    assert new["mlp / mlp"][0] == "2–3"
    assert new["mlp / mlp"][1:] == old["mlp / mlp"][1:]
    assert new["flow / mlp"][1] == old["flow / mlp"][1]
    assert new["flow / mlp"][-1] != old["flow / mlp"][-1]
    assert rows_of(half, "By task, best")["cup-catch"][0].startswith("504 (")  # (300 + 310 + 901) / 3
    write(records, record_of("mlp", "mlp", "walker-run", "2", [500.0, 502.0]))
    after = report(records, tmp_path / "after", capsys)
    assert rows_of(after, "Over all tasks")["mlp / mlp"][1].startswith("470 (")  # (350 + 360 + (901 + 501) / 2) / 3
    # Other cells lack the seed, and differences stay those of the shared ones.
    for title in ("Differences of returns between", "By task, last"):
        assert rows_of(after, title).keys() == rows_of(before, title).keys()
    assert (
        rows_of(after, "Differences of returns between")["flow − mlp world model, best"]
        == rows_of(before, "Differences of returns between")["flow − mlp world model, best"]
    )
    for name in ("comparison-means.svg", "cost-curves-walker-run-update.svg"):
        drawings = [(tmp_path / run / "assets" / name).read_text() for run in ("before", "same", "after")]
        assert drawings[0] == drawings[1] != drawings[2], name
    name = "cost-curves-walker-run-update.svg"
    assert (tmp_path / "before/assets" / name).read_text() == (tmp_path / "half/assets" / name).read_text()


def test_a_third_row_appears_with_its_first_record_but_has_no_overall_figure(records, tmp_path, capsys):
    write(records, record_of("refinement", "mlp", "cup-catch", "0", [700.0, 710.0]))
    text = report(records, tmp_path / "report", capsys)
    row = rows_of(text, "Over all tasks")["refinement / mlp"]
    assert row == ["0–1", "–", "–", "–", "–", "–"]
    assert rows_of(text, "By task, best")["cup-catch"][4] == "705 (1 seed)"


def test_curves_are_means_over_runs_where_all_have_a_value():
    def result(seed, updates, flops):
        curve = {"update": updates, "return": [10.0 * u + seed for u in updates], "flops": flops}
        return RunResult(("mlp",), "t", str(seed), {"best": [1.0]}, curve)

    grid = Grid({"model": ["mlp"]}, [result(0, [0, 2, 4], [0.0, 10.0, 20.0]), result(2, [0, 4], [0.0, 40.0])])
    assert mean_curve(grid, ("mlp",), "t", "flops") == [(0.0, 1.0), (30.0, 41.0)]
    without = Grid({"model": ["mlp"]}, [result(0, [0, 2], [None, None])])
    assert mean_curve(without, ("mlp",), "t", "flops") == []


def test_other_figures_are_means_with_their_ratio_to_the_first_cell():
    runs = [
        RunResult((label,), "t", str(seed), {"best": [1.0]}, figures={"policy: FLOPs": flops + seed})
        for label, flops in (("flow", 3e9), ("mlp", 2e9))
        for seed in (0, 2)
    ]
    grid = Grid({"model": ["mlp", "flow"]}, runs)
    table = figures_table(grid, ["policy: FLOPs", "policy: NFE"])
    assert table.head == ["cell", "policy: FLOPs", "policy: NFE"]
    assert table.rows == [
        [("mlp", ""), ("2 G", "× 1.00"), ("–", "")],
        [("flow", ""), ("3 G", "× 1.50"), ("–", "")],
    ]
    assert [quantity(x) for x in (0.01234, 12.0, 135424, 2.5e12)] == ["0.0123", "12", "135 k", "2.5 T"]


def test_figures_of_a_record_are_named_by_what_they_are():
    record = record_of("flow", "mlp", "cup-catch", "0", [1.0])
    ledger = {"parameters": {"actor": 7, "critic": 9}, "flops_per_update": 2e9, "nfe_per_update": 32}
    record["policy"]["compute"] = ledger
    found = figures_of(record, "cup-catch")
    assert found == {
        "actor parameters": 7.0, "policy: FLOPs": 2e9, "policy: NFE": 32.0, "eval/model_gap": 12.5,
        "reward error, 16 steps": 0.5, "latent error, 1 step": 0.01,
        "decoded error, 16 steps": 9.0,
    }  # fmt: skip
    assert [name for name in found if is_diagnostic(name)] == ["eval/model_gap"]


def test_the_terminal_has_the_differences_and_what_could_have_been_seen(records, tmp_path, capsys):
    assert run(["report", str(records), "--out", str(tmp_path / "report")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "flow − mlp world model, best: +70 (+70 to +70), 2 seeds, p = 0 (Holm); detectable: 0" in said


def test_one_axis_has_no_crossed_table_and_one_run_no_interval():
    grid = Grid({"model": ["a", "b"]}, [RunResult((label,), "t", "0", {"best": [5.0, 7.0]}) for label in "ab"])
    assert crossed_table(grid) is None
    assert comparison_table(grid).rows[0] == [("a", ""), ("1", ""), ("6", "1 seed"), ("6", ""), ("–", "")]
    assert task_table(grid, "best").rows == [[("t", ""), ("6", "1 seed"), ("6", "1 seed")]]


def test_two_results_of_one_run_are_refused():
    runs = [RunResult(("a",), "t", "0", {"best": [value]}) for value in (5.0, 7.0)]
    with pytest.raises(LitPWMError, match=r"cell 'a', task 't', seed 0"):
        Grid({"model": ["a"]}, runs)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[:100], "not the record"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "format 9"),
        (lambda text: text.replace('"factorial"', '"other"'), "different sweeps"),
    ],
)
def test_damaged_records_are_refused(records, tmp_path, capsys, damage, words):
    path = sorted(records.iterdir())[-1]
    path.write_text(damage(path.read_text()))
    assert run(["report", str(records), "--out", str(tmp_path / "report")]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "report").exists()


def test_records_of_demos_and_sweeps_are_not_mixed(records, tmp_path, capsys):
    (records / "record.json").write_text("{}")
    assert run(["report", str(records), "--out", str(tmp_path / "report")]) == 2
    assert "one kind" in " ".join(capsys.readouterr().err.split())
