"""Reports count a run once, wherever copies of its record lie, and refuse runs that are of no one experiment."""

import shutil
from pathlib import Path

import pytest

from lit_pwm.cli.main import run


@pytest.fixture
def sweep(made, tmp_path, monkeypatch):
    """The records of a small sweep, in `sweep/records`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for policy in made.LABELS["policy"]:
        for task in made.LABELS["task"]:
            for seed in made.LABELS["seed"]:
                made.write(tmp_path / "sweep/records", made.cell(policy, task, seed))
    return tmp_path


def reported(capsys, *folders):
    """The exit code, and what was printed or written."""
    code = run(["report", *map(str, folders), "--out", "out"])
    said = capsys.readouterr()
    if code:
        return code, " ".join(said.err.split())
    return code, Path("out/results.md").read_text()


def test_a_run_counts_once_however_it_is_reached(sweep, capsys):
    wanted = reported(capsys, "sweep")
    assert wanted[0] == 0
    assert "| 3 |" in wanted[1]
    shutil.copytree(sweep / "sweep/records", sweep / "copies")
    (sweep / "link").symlink_to("sweep")
    (sweep / "linked").mkdir()
    for path in (sweep / "sweep/records").iterdir():
        (sweep / "linked" / path.name).symlink_to(path)
    for folders in (
        ["sweep", "sweep"], ["sweep", "sweep/records"], ["sweep/../sweep", sweep / "sweep"], ["sweep", "copies"],
        ["link", "sweep"], ["linked", "sweep"], ["."], ["copies", "sweep"],
    ):  # fmt: skip
        assert reported(capsys, *folders) == wanted, folders


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: record["returns"]["best"]["tasks"]["cup-catch"]["returns"].append(9.0), "with other results"),
        (lambda record: record["cells"]["policy"].update(command="lit-pwm fit --other"), "commands of the stage"),
        (lambda record: record["cells"]["policy"].update(configs={"configs/policy/mlp_tiny.yaml": "x"}), "mlp_tiny"),
        (lambda record: record.update(sweep="large"), "different sweeps"),
    ],
)  # fmt: skip
def test_another_run_of_the_same_cell_and_seed_is_refused_with_both_names(made, sweep, capsys, change, says):
    other = made.cell("mlp", "cup-catch", "1")
    change(other)
    made.write(sweep / "other", other)
    code, said = reported(capsys, "sweep", "other")
    assert code == 2
    assert says in said
    for folder in ("sweep/records", "other"):
        assert f"{folder}/policy=mlp,task=cup-catch,seed=1.record.json" in said


@pytest.mark.parametrize("policy", ["mlp", "flow"])
def test_other_seeds_and_cells_of_another_sweep_are_refused_too(made, sweep, capsys, policy):
    """A sweep with another setting is no part of this one, though no cell and seed is in both."""
    for path in (sweep / "sweep/records").glob(f"policy={policy}*seed=2*"):
        path.unlink()
    for task in made.LABELS["task"]:
        made.write(sweep / "other", made.cell(policy, task, "2", updates=900))
    code, said = reported(capsys, "sweep", "other")
    assert code == 2
    assert all(words in said for words in ("--trainer.max_steps", "'100'", "'900'"))
    for path in (sweep / "sweep/records").glob(f"policy={policy}*"):
        path.unlink()
    code, said = reported(capsys, "sweep", "other")  # one policy of each
    assert code == 2
    assert all(words in said for words in ("--trainer.max_steps", "'100'", "'900'"))


def test_seeds_that_were_added_later_and_labels_with_values_belong_together(made, sweep, capsys):
    for task in made.LABELS["task"]:
        made.write(sweep / "later", made.cell("mlp", task, "17"))
    code, said = reported(capsys, "sweep", "later")
    assert code == 0
    assert "| 4 |" in said
    # A label that stands for another text is explained by the value that newer records hold.
    for seed, value in (("first", "11"), ("second", "12")):
        for task in made.LABELS["task"]:
            record = made.cell("mlp", task, seed) if seed.isdigit() else made.cell("mlp", task, "5")
            record["labels"]["seed"] = seed
            record["values"] = {"policy": "configs/policy/mlp_tiny.yaml", "task": task, "seed": value}
            command = record["cells"]["policy"]["command"].replace("--seed_everything 5", f"--seed_everything {value}")
            record["cells"]["policy"]["command"] = command
            made.write(sweep / "named", record)
    assert reported(capsys, "named")[0] == 0


def test_the_demos_runs_count_once_and_unlike_ones_are_refused(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made.write_demo(tmp_path / "runs/a", made.demo(0))
    made.write_demo(tmp_path / "runs/b", made.demo(1, order=-1))
    wanted = reported(capsys, "runs")
    assert wanted[0] == 0
    assert "| one |" in wanted[1]
    shutil.copytree("runs/a", "copy")
    made.write_demo(tmp_path / "runs/c.unfinished", made.demo(7))
    for folders in (["runs", "runs/a"], ["runs", "copy"], ["copy", "runs"]):
        assert reported(capsys, *folders) == wanted
    made.write_demo(tmp_path / "again", made.demo(0, shift=5.0))
    code, said = reported(capsys, "runs", "again")
    assert code == 2
    assert "'runs/a' and 'again' are two runs of seed 0 with other results" in said
    made.write_demo(tmp_path / "longer", made.demo(2, minutes=9))
    code, said = reported(capsys, "runs", "longer")
    assert code == 2
    assert "minutes 1 and 9" in said
