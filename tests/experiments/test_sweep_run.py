"""The shipped factorial at tiny scale: one cell trained and evaluated for real, its record, and its report."""

import csv
import json

import pytest

from lit_pwm.cli.main import run

pytestmark = pytest.mark.slow

TINY = {
    "model_updates": 4, "validate_every": 2, "policy_updates": 4, "evaluate_every": 4, "report_episodes": 2,
    "rollouts": 48,
}  # fmt: skip
CELL = "world_model=flow,policy=flow,task=cartpole-balance,seed=3"


@pytest.fixture(scope="module")
def swept(small_store, tmp_path_factory):
    """The folder of a sweep, the command line that made it, and where the records were copied."""
    folder = tmp_path_factory.mktemp("factorial")
    argv = ["sweep", "configs/sweeps/factorial.yaml", "--out", str(folder / "out"), "--records", str(folder / "kept")]
    for axis in CELL.split(","):
        argv += ["--only", axis]
    for name, value in {**TINY, "store": small_store}.items():
        argv += ["--set", f"{name}={value}"]
    assert run(argv) == 0, "\n".join(path.read_text() for path in folder.rglob("log.txt"))
    return folder / "out", argv, folder / "kept"


def test_the_stages_that_were_needed_ran(swept):
    out, _, _ = swept
    found = {str(path.parent.relative_to(out)) for path in out.rglob("cell.json")}
    # A store was given, so that none was collected.
    stages = ("policy", "best", "last", "sampled")
    assert found == {"pretrain/world_model=flow,seed=3", *(f"{stage}/{CELL}" for stage in stages)}


def test_the_record_condenses_what_the_runs_left(swept):
    out, _, kept = swept
    path = out / "records" / f"{CELL}.record.json"
    assert (kept / path.name).read_text() == path.read_text()
    assert path.stat().st_size < 20_000
    record = json.loads(path.read_text())
    assert record["labels"] == dict(pair.split("=", 1) for pair in CELL.split(","))
    assert record["axes"]["world_model"] == ["mlp", "flow", "refinement"]
    assert record["discovery"] == {"cup-catch": 300.0}
    for kind in ("best", "last", "sampled"):
        evaluated = json.loads((out / kind / CELL / "returns.json").read_text())
        assert record["returns"][kind]["tasks"] == evaluated["tasks"]
        assert record["returns"][kind]["seeds"] == [0, 1]
    assert record["world_model"]["updates"] == record["policy"]["updates"] == 4
    assert record["world_model"]["final"]["val/reward_error_16"] > 0
    for role in ("world_model", "policy"):
        assert abs(record[role]["compute"]["parity"]["difference"]) < 0.02
        assert record[role]["compute"]["flops_per_update"] > 0
    assert record["world_model"]["final"]["val/decoded_error_16/cartpole-balance"] > 0
    rows = record["policy"]["curve"]["rows"]
    assert [row[0] for row in rows] == [0, 4]
    with next((out / "policy").rglob("metrics.csv")).open() as file:
        logged = [float(row["eval/return"]) for row in csv.DictReader(file) if row["eval/return"]]
    assert [row[1] for row in rows] == logged
    assert "$OUT/pretrain/world_model=flow,seed=3/**/checkpoints/last.ckpt" in record["cells"]["policy"]["command"]
    assert "--seed_everything 3" in record["cells"]["pretrain"]["command"]
    assert "configs/policy/flow_tiny.yaml" in record["cells"]["policy"]["configs"]
    assert str(out) not in path.read_text()


def test_run_again_it_does_nothing_and_keeps_the_record(swept, capsys):
    out, argv, _ = swept
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json") if ".record" not in path.name}
    text = (out / "records" / f"{CELL}.record.json").read_text()
    assert run(argv) == 0
    assert "5 cells: 5 finished before." in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "records" / f"{CELL}.record.json").read_text() == text


def test_a_record_goes_with_its_results(swept, capsys):
    out, argv, _ = swept
    state = out / "last" / CELL / "cell.json"
    text = state.read_text()
    state.write_text(text.replace('"finished"', '"failed"'))
    broken = [*argv[:2], "--out", str(out), *argv[6:]]
    (out / "policy" / CELL / "lightning_logs/version_0/checkpoints/last.ckpt").rename(out / "hidden")
    assert run(broken) == 1
    assert "matches 0" in capsys.readouterr().out
    assert list((out / "records").iterdir()) == []
    (out / "hidden").rename(out / "policy" / CELL / "lightning_logs/version_0/checkpoints/last.ckpt")
    assert run(broken) == 0
    assert len(list((out / "records").iterdir())) == 1


def test_the_report_is_made_of_it(swept, tmp_path, capsys):
    out, _, kept = swept
    for source in (out, kept):
        assert run(["report", str(source), "--out", str(tmp_path / source.name)]) == 0
    assert (tmp_path / "out/results.md").read_text() == (tmp_path / "kept/results.md").read_text()
    mean = json.loads((out / "best" / CELL / "returns.json").read_text())["tasks"]["cartpole-balance"]["mean"]
    assert f"| flow / flow | 1 | {mean:.0f} (1 seed) | {mean:.0f} |" in (tmp_path / "out/results.md").read_text()
    assert list((tmp_path / "out/assets").glob("cost-curves-cartpole-balance-update.svg"))
