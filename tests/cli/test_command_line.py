"""The command lines of the documentation work as written, and an evaluation repeats training's to the bit."""

import json
import subprocess
import sys

import pytest
import torch

from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.cli.main import build_parser, run


def test_a_run_ends_with_a_last_checkpoint_and_its_config(world_model):
    folder = world_model.parent.parent
    assert (folder / "config.yaml").is_file()
    assert (folder / "metrics.csv").is_file()
    assert load_world_model(world_model).task_names == ("cartpole-balance", "cartpole-swingup")


def test_a_policy_checkpoint_holds_its_world_model(policy, world_model):
    loaded, original = load_policy(policy), load_world_model(world_model)
    for key, value in original.state_dict().items():
        assert torch.equal(loaded.world_model.state_dict()[key], value), key


def test_evaluate_repeats_the_trainings_own_evaluation_to_the_bit(policy, tmp_path):
    import csv

    out = tmp_path / "R.json"
    argv = ["evaluate", "--checkpoint", str(policy), "--tasks", "cartpole-swingup", "--episodes", "10"]
    assert run([*argv, "--seed", "10000", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    entry = result["tasks"]["cartpole-swingup"]
    assert len(entry["returns"]) == 10
    assert entry["mean"] == pytest.approx(sum(entry["returns"]) / 10)
    assert entry["normalised"] == pytest.approx(entry["mean"] / 1000)
    assert result["seeds"] == list(range(10000, 10010))
    with (policy.parent.parent / "metrics.csv").open() as file:
        logged = [row["eval/return/cartpole-swingup"] for row in csv.DictReader(file)]
    logged = [float(value) for value in logged if value]
    assert len(logged) == 3  # before the first update, and twice on schedule
    # CSVLogger writes what Lightning keeps, float32.
    assert torch.tensor(logged[-1], dtype=torch.float32) == torch.tensor(entry["mean"], dtype=torch.float32)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_resuming_prints_which_setting_wins(world_model, store, tmp_path, capsys):
    argv = ["fit", "--config", str(world_model.parent.parent / "config.yaml"), "--ckpt_path", str(world_model)]
    argv += ["--model.lr", "0.0009", "--trainer.max_steps", "6", "--trainer.default_root_dir", str(tmp_path)]
    assert run(argv) == 0
    text = capsys.readouterr().err
    assert "lr: 0.0003 in the checkpoint, 0.0009 in this run" in text
    assert "this run's win" in text
    resumed = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    assert resumed["global_step"] == 6
    group = next(g for g in resumed["optimizer_states"][0]["param_groups"] if g["name"] == "dynamics")
    assert group["lr"] == pytest.approx(0.0009)


def test_a_task_that_a_policy_was_not_trained_for_is_said(policy, capsys):
    """Its world model knows it, so that it can act there."""
    for task, is_said in (("cartpole-balance", True), ("cartpole-swingup", False)):
        assert run(["evaluate", "--checkpoint", str(policy), "--tasks", task, "--episodes", "1"]) == 0
        said = "trained for cartpole-swingup, and not for cartpole-balance" in capsys.readouterr().err
        assert said == is_said


@pytest.mark.parametrize("verb", ["collect", "data", "evaluate", "demo", "sweep", "report", "runs"])
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        run([verb, "--help"])
    assert stop.value.code == 0
    assert "usage: lit-pwm" in capsys.readouterr().out


def test_light_verbs_import_neither_torch_nor_dm_control(store):
    script = (
        "import sys; from lit_pwm.cli.main import run; code = run(['data', 'info', sys.argv[1]]); "
        "heavy = {'torch', 'lightning', 'dm_control', 'mujoco'} & set(sys.modules); assert not heavy, heavy; "
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(store)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cartpole-swingup" in done.stdout


def test_a_foreign_callbacks_folder_is_noticed(tmp_path):
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "lit_pwm", "data", "info", "x.h5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "callbacks" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_verb_is_advertised_that_does_not_exist():
    text = build_parser().format_help()
    for verb in ("import",):
        assert f" {verb} " not in text


def test_every_return_of_an_evaluation_is_the_trainings(store, world_model, tmp_path):
    from callbacks import EnvironmentEvaluation
    from lit_pwm.cli.trainer import build

    argv = ["fit", "--config", "configs/policy_learning.yaml", "--config", "configs/policy/mlp.yaml"]
    argv += ["--model.world_model_checkpoint", str(world_model), "--data.store", str(store), "--data.horizon", "4"]
    argv += ["--data.batch_size", "16", "--data.tasks", "[cartpole-swingup]", "--trainer.limit_val_batches", "1"]
    argv += [
        "--trainer.max_steps",
        "2",
        "--trainer.val_check_interval",
        "2",
        "--trainer.default_root_dir",
        str(tmp_path),
    ]
    trainer = build(argv).trainer
    (evaluation,) = (c for c in trainer.callbacks if isinstance(c, EnvironmentEvaluation))
    assert evaluation.latest is not None
    out, checkpoint = tmp_path / "R.json", next(tmp_path.rglob("last.ckpt"))
    assert run(["evaluate", "--checkpoint", str(checkpoint), "--seed", "10000", "--out", str(out)]) == 0
    returns = json.loads(out.read_text())["tasks"]["cartpole-swingup"]["returns"]
    assert returns == list(evaluation.latest.tasks["cartpole-swingup"].returns)
