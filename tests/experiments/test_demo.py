"""The demo at tiny scale through the real command line: from a built wheel elsewhere, and from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.demo.demo_plan import DEFAULT_MINUTES, DemoPlan, plan_for

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = ["demo", "--minutes", "0.01", "--seed", "3"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A folder that holds what the wheel installs."""
    out = tmp_path_factory.mktemp("wheel")
    # From a copy: setuptools would leave build/ in the checkout, and take files from it that are no longer in the tree.
    source = out / "source"
    source.mkdir()
    for name in ("lit_pwm", "callbacks", "datamodules", "configs"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (file,) = out.glob("*.whl")
    zipfile.ZipFile(file).extractall(out / "site")
    return out / "site"


@pytest.fixture(scope="module")
def from_wheel(wheel, tmp_path_factory):
    """A demo run by the wheel's code, in a folder that is no checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    # This process's path may name the checkout; the child's starts with the wheel.
    environment = os.environ | {"PYTHONPATH": str(wheel), "OMP_NUM_THREADS": "1"}
    script = (
        "import lit_pwm, sys; print(lit_pwm.__file__); from lit_pwm.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    program = folder / "program.py"
    program.write_text(f'if __name__ == "__main__":\n    {script}\n')
    done = subprocess.run(
        [sys.executable, str(program), *COMMAND],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(str(wheel))
    return folder, done.stdout


def record_of(folder: Path) -> dict:
    return json.loads((folder / "report/runs/demo-seed3/record.json").read_text())


def test_the_wheel_holds_everything(wheel):
    for package in ("lit_pwm", "callbacks", "datamodules"):
        assert (wheel / package / "py.typed").is_file()
        theirs = {path.relative_to(wheel) for path in (wheel / package).rglob("*.py")}
        ours = {path.relative_to(CHECKOUT) for path in (CHECKOUT / package).rglob("*.py")}
        assert theirs == ours
    shipped = {path.relative_to(wheel / "lit_pwm_configs") for path in (wheel / "lit_pwm_configs").rglob("*.yaml")}
    assert shipped == {path.relative_to(CHECKOUT / "configs") for path in (CHECKOUT / "configs").rglob("*.yaml")}
    assert (wheel / "lit_pwm/tasks/custom/reacher_three.xml").is_file()
    assert {path.name for path in (wheel / "lit_pwm/experiments/report/templates").iterdir()} == {
        path.name for path in (CHECKOUT / "lit_pwm/experiments/report/templates").iterdir()
    }


def test_it_ends_with_a_table_and_a_report(from_wheel):
    folder, text = from_wheel
    assert "PWM" in text
    for task in DemoPlan().tasks:
        assert task in text
    page = (folder / "report/index.html").read_text()
    HTMLParser().feed(page)
    for anchor in ("returns", "videos", "policy-learning", "world-model", "open-loop", "wall-clock", "run-record"):
        assert f'id="{anchor}"' in page
    record = record_of(folder)
    assert [task["task"] for task in record["tasks"]] == list(DemoPlan().tasks)
    for task in record["tasks"]:
        assert set(task["returns"]) == {"random", "data", "best", "last"}
        assert len(task["open_loop"]["series"]) == 4
    assert "collect noise" in record["seconds"]
    assert "evaluation" in record["seconds"]


def test_a_seed_gives_the_same_numbers_again(from_wheel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(COMMAND) == 0
    ours, theirs = record_of(tmp_path), record_of(from_wheel[0])
    for key in ("tasks", "world_model_curves", "policy_curves", "plan"):
        assert ours[key] == theirs[key], key


def test_report_is_made_anew_from_records(from_wheel, tmp_path):
    runs = str(from_wheel[0] / "report/runs")
    assert run(["report", runs, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/index.html").is_file()
    assert (tmp_path / "again/results.md").read_text() == (from_wheel[0] / "report/results.md").read_text()


def test_shipped_configs_are_found_from_anywhere(wheel, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(wheel)}
    script = "from lit_pwm.paths import find_config; print(find_config('configs/world_model/mlp_tiny.yaml'))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == wheel / "lit_pwm_configs/world_model/mlp_tiny.yaml"


def test_the_plan_scales():
    assert plan_for() == plan_for(DEFAULT_MINUTES) == DemoPlan()
    half, double = plan_for(DEFAULT_MINUTES / 2), plan_for(DEFAULT_MINUTES * 2)
    for small, large in zip(half.rounds, double.rounds, strict=True):
        assert large.policy_updates == 4 * small.policy_updates
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(LitPWMError, match="--minutes"):
            plan_for(wrong)
